"""The user's own SD 1.5 or SDXL on the command line: what is trained on, and what encodes for it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ...files.weights import WeightFileError, read_keys
from ...images import to_pil
from ...training.stable_diffusion import (
    CONFIGS,
    CONFIGS_SD15,
    PADS,
    check_base,
    clip_tokenizer,
    marked_schedule,
    stamp_of,
    why_unreadable,
)

EXTRAS = ("safety_checker", "feature_extractor", "image_encoder")  # of SD 1.5, which nothing needs here
EITHER = "SD 1.5 or SDXL"


class Kind(NamedTuple):
    """What distinguishes one of the two bases."""

    pipeline: type
    configs: Path
    encoders: tuple[str, ...]
    pads: tuple[str, ...]
    size: int
    unused: tuple[str, ...]


SD15 = Kind(StableDiffusionPipeline, CONFIGS_SD15, ("text_encoder",), ("tokenizer",), 512, EXTRAS)
XL = Kind(StableDiffusionXLPipeline, CONFIGS, ("text_encoder", "text_encoder_2"), tuple(PADS), 1024, ())


@dataclass(frozen=True)
class Base:
    """A base on the CPU.

    Attributes:
        encoders: its text encoders, one for SD 1.5 and two for SDXL.
        size: of the pictures that it draws.
        stamp: what tells it from others.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    encoders: tuple[CLIPTextModelWithProjection, ...]
    schedule: DDPMScheduler
    size: int
    stamp: str

    def latents(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """What encodes pictures on a device, for `PartEncoders`."""
        vae = self.vae.to(device)

        def encode(pixels: Tensor) -> Tensor:
            found = vae.encode(pixels.to(device)).latent_dist
            return torch.cat([found.mean, found.std], dim=1).float().cpu() * vae.config.scaling_factor

        return encode

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents as the UNet sees them."""
        vae = self.vae
        with torch.no_grad():
            pictures = [
                vae.decode(each.to(vae.device) / vae.config.scaling_factor).sample
                for each in latents.split(1)
            ]
        return to_pil((torch.cat(pictures).movedim(1, -1) / 2 + 0.5).clamp(0, 1).float().cpu())


def load_base(path: Path) -> Base:
    """A base from a single file (.safetensors) or a diffusers folder, in fp32 on the CPU.

    Raises:
        WeightFileError: it is missing, damaged or of another kind.
    """
    check_base(path, EITHER)
    kind = kind_of(path)
    # Always with local files and our own configuration: diffusers would otherwise ask the hub for it.
    shared = {"torch_dtype": torch.float32, "local_files_only": True, **dict.fromkeys(kind.unused)}
    try:
        if path.is_dir():
            # Without its tokenizers, which may lie there in forms of all ages: ours are the same.
            pipeline = kind.pipeline.from_pretrained(path, **shared, **dict.fromkeys(kind.pads))
        else:
            pipeline = kind.pipeline.from_single_file(
                str(path), config=str(kind.configs), **shared,
                **{name: clip_tokenizer(PADS[name]) for name in kind.pads},
            )
        pipeline.to("cpu")  # fails if diffusers has left weights of the file unread
        schedule = DDPMScheduler.from_config(pipeline.scheduler.config)
        encoders = tuple(with_projection(getattr(pipeline, name)) for name in kind.encoders)
    except Exception as error:  # diffusers raises errors of many kinds, which change with its version
        raise WeightFileError(why_unreadable(path, error, EITHER)) from error
    if path.is_file():
        schedule = marked_schedule(path, schedule)
    vae = pipeline.vae.float().requires_grad_(False)
    return Base(pipeline.unet, vae, encoders, schedule, kind.size, stamp_of(path))


def kind_of(path: Path) -> Kind:
    """Which of the two a base is."""
    if path.is_dir():
        return XL if (path / "text_encoder_2").is_dir() else SD15
    return XL if any(key.startswith("conditioner.embedders.1.") for key in read_keys(path)) else SD15


def with_projection(encoder: nn.Module) -> CLIPTextModelWithProjection:
    """A text encoder of either class as the one that `PartPainter` takes; without a projection, none acts."""
    if isinstance(encoder, CLIPTextModelWithProjection):
        return encoder
    return text_encoder(encoder.config.to_dict(), encoder.state_dict())


def text_encoder(config: dict[str, object], state: dict[str, Tensor]) -> CLIPTextModelWithProjection:
    """A text encoder of these sizes with its weights, which are not copied.

    Args:
        state: with or without `text_model.` before the names; the projection is the identity if there is
            none.
    """
    named = {
        key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}": value
        for key, value in state.items() if not key.endswith("position_ids")
    }
    named.setdefault("text_projection.weight", torch.eye(config["hidden_size"]))
    sizes = {**config, "projection_dim": len(named["text_projection.weight"])}
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(CLIPTextConfig(**sizes))
    model.load_state_dict({key: value.float() for key, value in named.items()}, assign=True)
    embeddings = model.text_model.embeddings
    embeddings.position_ids = torch.arange(model.config.max_position_embeddings)[None]  # in no file
    return model.eval().requires_grad_(False)
