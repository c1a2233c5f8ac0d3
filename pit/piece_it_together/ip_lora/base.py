"""The user's own SDXL, on which an IP-LoRA is trained: what renders, and what encodes for it."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor

from ...files.weights import WeightFileError
from ...ip_adapter.attention import ImageCrossAttention
from ...ip_adapter.encoder import TokenEncoder
from ...ip_adapter.files import read_ip_adapter
from ...training.stable_diffusion import (
    CONFIGS,
    PADS,
    check_base,
    clip_tokenizer,
    marked_schedule,
    stamp_of,
    why_unreadable,
)
from .cache import RenderEncoders
from .image_prompt import ImagePromptUNet


def load_renderer(
    base: Path, adapter: Path, dtype: torch.dtype = torch.float32, configs: Path = CONFIGS
) -> tuple[ImagePromptUNet, DDPMScheduler]:
    """The UNet with its image cross-attention, and the noise schedule, on the CPU.

    Args:
        base: a single file (.safetensors) or a diffusers folder.
        adapter: an IP-Adapter-plus file.
        configs: a folder with diffusers' configuration files, for a single file.

    Raises:
        WeightFileError: a file is missing, damaged or of another kind.
        ValueError: the adapter was made for another UNet.
    """
    check_base(base)
    # Always with local files and our own configuration: diffusers would otherwise ask the hub for it.
    try:
        if base.is_dir():
            unet = UNet2DConditionModel.from_pretrained(
                base, subfolder="unet", torch_dtype=dtype, local_files_only=True
            )
            schedule = DDPMScheduler.from_pretrained(base, subfolder="scheduler", local_files_only=True)
        else:
            unet = UNet2DConditionModel.from_single_file(
                str(base), config=str(configs), subfolder="unet", torch_dtype=dtype, local_files_only=True
            )
            schedule = marked_schedule(base, DDPMScheduler.from_pretrained(configs, subfolder="scheduler"))
    except Exception as error:  # diffusers raises errors of many kinds, which change with its version
        raise WeightFileError(why_unreadable(base, error)) from error
    file = read_ip_adapter(adapter)
    image = ImageCrossAttention(file.token_dim, file.inner_dims)
    image.load_state_dict({key: value.to(dtype) for key, value in file.cross_attention_state.items()})
    return ImagePromptUNet(unet, image.to(dtype)), schedule


def load_encoders(
    base: Path, tokens: TokenEncoder, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32, configs: Path = CONFIGS,
) -> RenderEncoders:
    """VAE and text encoders of an SDXL; WeightFileError as in `load_renderer`."""
    check_base(base)
    shared = {"unet": None, "torch_dtype": dtype, "local_files_only": True}
    try:
        if base.is_dir():
            pipeline = StableDiffusionXLPipeline.from_pretrained(base, **shared)
        else:
            pipeline = StableDiffusionXLPipeline.from_single_file(
                str(base), config=str(configs), **shared,
                **{name: clip_tokenizer(pad) for name, pad in PADS.items()},
            )
        pipeline.to(device)  # fails if diffusers has left weights of the file unread
    except Exception as error:  # as above
        raise WeightFileError(why_unreadable(base, error)) from error
    vae = pipeline.vae.float()  # SDXL's VAE overflows in fp16

    # Mean and deviation instead of one sample: training then draws a new sample in every step, as published.
    def latents(pixels: Tensor) -> Tensor:
        found = vae.encode(pixels.to(device, torch.float32)).latent_dist
        return torch.cat([found.mean, found.std], dim=1).float().cpu() * vae.config.scaling_factor

    def text(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        context, _, pooled, _ = pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False)
        # As published, no words are zeros, not the encoding of "".
        said = torch.tensor([bool(caption) for caption in captions], device=context.device)
        return (context * said[:, None, None]).float().cpu(), (pooled * said[:, None]).float().cpu()

    return RenderEncoders({"VAE and text encoders": stamp_of(base)}, latents, text, tokens)
