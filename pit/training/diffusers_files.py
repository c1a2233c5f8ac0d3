"""Networks of diffusers from files, for the command line.

Files as diffusers saves them, with their config.json beside them, or without one: then a UNet has the sizes
of its weights, and a VAE those of Stable Diffusion 1.5. Inside ComfyUI its own models take their place.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..files.checked import (
    MOST_LAYERS,
    State,
    another_file,
    computable,
    filled,
    shapes,
    sound,
    without_wrappers,
)
from ..files.plain_json import read_json
from ..files.weights import WeightFileError, read_state
from ..files.whole import sha256_of

FILE = "diffusion_pytorch_model.safetensors"
VAE_SIZES = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}


SizesOf = Callable[[Path, State, Mapping[str, str]], Mapping[str, Any]]
"""The sizes of a network in diffusers' names, from its file, its weights and its metadata."""


def load_vae(path: Path) -> AutoencoderKL:
    """The VAE of Stable Diffusion 1.5's kind, in fp32 on the CPU, from a file or the folder that it is in.

    Raises:
        WeightFileError: it is missing, damaged or of another kind.
    """
    path = weight_file(path)
    return network(path, AutoencoderKL, lambda *_: VAE_SIZES, "quant_conv.weight", "a VAE")


def weight_file(path: Path) -> Path:
    """A weight file, or the one in a folder as diffusers saves it."""
    return path / FILE if path.is_dir() else path


def network(
    path: Path, kind: type[nn.Module], sizes: SizesOf, sign: str, what: str,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """A network of diffusers with the weights of a file, complete and finite, without gradients.

    Args:
        sizes: gives them where there is no config.json beside the file; its errors pass.
        sign: a weight without which the file is of another kind.
        what: it is, for messages.
    Raises:
        WeightFileError: it is missing, damaged or of another kind.
    """
    state, metadata = read_state(path)
    state = without_wrappers(state)
    if sign not in state:
        raise another_file(path, state, f"{what} with diffusers' names")
    config = path.with_name("config.json")
    read_off = None if config.is_file() else sizes(path, state, metadata)
    try:
        given = read_json(config) if read_off is None else read_off
        check_depth(given)
        # On the meta device nothing is allocated or initialized at random, only to be overwritten.
        with torch.device("meta"):
            module = kind.from_config(given)
    except Exception as error:  # diffusers refuses odd sizes with errors of every kind
        reason = " ".join(str(error).split())
        where, advice = config, "Fetch it again, or remove it for those of Stable Diffusion 1.5."
        if read_off is not None:
            where, advice = path, "Put its config.json beside it."
        raise WeightFileError(
            f"{where}: expected the sizes of {what}, got others ({reason}). {advice}"
        ) from error
    sane = sound(path, state, shapes(module))
    state = {key: computable(value).to(dtype) for key, value in sane.items()}
    return filled(module, state).requires_grad_(False)


def check_depth(sizes: Mapping[str, Any]) -> None:
    """Raise ValueError for more layers than any network has: each is built before a weight is looked at."""
    for name, value in sizes.items():
        counts = value if isinstance(value, list) else [value]
        if "layers" in name and any(isinstance(count, int) and count > MOST_LAYERS for count in counts):
            raise ValueError(f"its {name} is above {MOST_LAYERS}")


@torch.no_grad()
def vae_latents(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Mean and deviation of the latents of pictures in -1..1, unscaled, `[B, 8, h, w]` on the CPU."""
    found = vae.encode(pictures.to(vae.device)).latent_dist
    return torch.cat([found.mean, found.std], dim=1).float().cpu()


def stamp_of(path: Path) -> str:
    """A checksum of all weights in a file or a folder."""
    files = [path]
    if path.is_dir():
        files = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.bin"))
    return " ".join(map(sha256_of, files))
