"""The user's own SDXL, to train an IP-LoRA on: a single file as ComfyUI has it, or a diffusers folder.

diffusers reads both; the small files that say what an SDXL is lie in `sdxl/`, so that nothing is fetched and
nothing is kept twice. The merges of CLIP's byte-pair encoding there are OpenAI's (MIT licence).
"""
from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTokenizer

from ..adapter import ImageCrossAttention
from ..checkpoints import CheckpointError, read_ip_adapter
from ..weight_files import read_keys
from .encode import TokenEncoder
from .files import sha256_of
from .image_prompt import ImagePromptUNet
from .lora_cache import RenderEncoders

CONFIGS = Path(__file__).with_name("sdxl")
LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
PADS = {"tokenizer": END, "tokenizer_2": "!"}


def load_renderer(
    base: Path, adapter: Path, dtype: torch.dtype = torch.float32, configs: Path = CONFIGS
) -> tuple[ImagePromptUNet, DDPMScheduler]:
    """UNet, image cross-attention and noise schedule, on the CPU.

    Args:
        base: a single file (.safetensors) or a diffusers folder.
        adapter: an IP-Adapter-plus file.
        configs: a folder of diffusers' configuration files for a single file.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind, or the two do not fit each other.
    """
    check_base(base)
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
            schedule = DDPMScheduler.from_pretrained(configs, subfolder="scheduler")
    except Exception as error:  # diffusers raises errors of many kinds, which change with its version
        raise CheckpointError(why_unreadable(base, error)) from error
    if base.is_file() and "v_pred" in read_keys(base):
        schedule = DDPMScheduler.from_config(schedule.config, prediction_type="v_prediction")
    file = read_ip_adapter(adapter)
    image = ImageCrossAttention(file.token_dim, file.inner_dims)
    image.load_state_dict({key: value.to(dtype) for key, value in file.cross_attention_state.items()})
    return ImagePromptUNet(unet, image.to(dtype)), schedule


def load_encoders(
    base: Path, tokens: TokenEncoder, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32, configs: Path = CONFIGS,
) -> RenderEncoders:
    """VAE (in fp32: its fp16 overflows) and text encoders of an SDXL; errors as in `load_renderer`."""
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
        raise CheckpointError(why_unreadable(base, error)) from error
    vae = pipeline.vae.float()

    def latents(pixels: Tensor) -> Tensor:
        found = vae.encode(pixels.to(device, torch.float32)).latent_dist
        return torch.cat([found.mean, found.std], dim=1).float().cpu() * vae.config.scaling_factor

    def text(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        context, _, pooled, _ = pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False)
        # As published, zeros and not the encoding of "" stand for no words.
        said = torch.tensor([bool(caption) for caption in captions], device=context.device)
        return (context * said[:, None, None]).float().cpu(), (pooled * said[:, None]).float().cpu()

    return RenderEncoders((base.name, stamp_of(base)), latents, text, tokens)


def clip_tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's tokenizer; the two text encoders of SDXL differ in what they fill up with."""
    merges = (CONFIGS / "clip_merges.txt").read_text(encoding="utf-8").splitlines()
    letters = byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair.split()) for pair in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, START, END])}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(
            folder, bos_token=START, eos_token=END, unk_token=END, pad_token=pad, model_max_length=LENGTH
        )


def byte_letters() -> list[str]:
    """A printable letter for each of the 256 bytes, in the order of CLIP's vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + number) for number in range(len(hidden))]


def check_base(base: Path) -> None:
    """Raise CheckpointError for what is certainly no SDXL that can be read here."""
    if base.is_dir():
        if not (base / "unet" / "config.json").is_file():
            raise CheckpointError(f"{base} is no diffusers folder of an SDXL: there is no unet/config.json.")
    elif not base.is_file():
        raise CheckpointError(f"{base} is not there. Name an SDXL file from models/checkpoints.")
    elif base.suffix != ".safetensors":
        raise CheckpointError(
            f"{base} is not a .safetensors file. Save it as one first: `python -m pit convert`."
        )


def stamp_of(base: Path) -> str:
    """What tells one version of a base model from another: the checksums of all its weights."""
    files = [base] if base.is_file() else sorted(base.rglob("*.safetensors")) + sorted(base.rglob("*.bin"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def why_unreadable(base: Path, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    return f"{base} cannot be read as an SDXL model ({reason}). Take an SDXL file from models/checkpoints."
