"""The models of an InstructPix2Pix on the command line: what is trained on, and what encodes for it.

Files as diffusers saves them, with their config.json beside them, or without one of Stable Diffusion 1.5's
sizes. Inside ComfyUI its own models take their place.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from ...files.checked import MOST_LAYERS, another_file, computable, filled, shapes, sound, without_wrappers
from ...files.plain_json import read_json
from ...files.weights import WeightFileError, read_state
from ...files.whole import sha256_of
from ...images import to_pil
from ...training.clip_vision import load_clip_vision
from ..embedding_optimizer import LAST
from ..unet_layout import INSTRUCT_CHANNELS
from .cache import TripletEncoders

FILE = "diffusion_pytorch_model.safetensors"
UNET_SIZES = {"in_channels": INSTRUCT_CHANNELS, "cross_attention_dim": 768, "attention_head_dim": 8}
VAE_SIZES = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}


def load_unet(path: Path, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """The UNet of an InstructPix2Pix, on the CPU, from a file or the folder that it is in.

    Raises:
        WeightFileError: it is missing, damaged or of another kind.
    """
    path = weight_file(path)
    what = "an InstructPix2Pix UNet"
    unet = network(path, UNet2DConditionModel, UNET_SIZES, "conv_in.weight", what, dtype)
    channels = unet.conv_in.in_channels
    if channels != INSTRUCT_CHANNELS:
        raise WeightFileError(
            f"{path}: expected an InstructPix2Pix, with {INSTRUCT_CHANNELS} input channels, got a UNet with "
            f"{channels}. Take that of paint-by-inpaint/add-base or the published one."
        )
    return unet


def load_vae(path: Path) -> AutoencoderKL:
    """The VAE of an InstructPix2Pix, in fp32 on the CPU; errors as in `load_unet`."""
    path = weight_file(path)
    return network(path, AutoencoderKL, VAE_SIZES, "quant_conv.weight", "a VAE")


def weight_file(path: Path) -> Path:
    """A weight file, or the one in a folder as diffusers saves it."""
    return path / FILE if path.is_dir() else path


def network(
    path: Path, kind: type[nn.Module], sizes: Mapping[str, Any], sign: str, what: str,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """A network of diffusers with the weights of a file, complete and finite. Raises WeightFileError."""
    state = without_wrappers(read_state(path)[0])
    if sign not in state:
        raise another_file(path, state, f"{what} with diffusers' names")
    config = path.with_name("config.json")
    try:
        sizes = read_json(config) if config.is_file() else sizes
        check_depth(sizes)
        # On the meta device nothing is allocated or initialized at random, only to be overwritten.
        with torch.device("meta"):
            module = kind.from_config(sizes)
    except Exception as error:  # diffusers refuses odd sizes with errors of every kind
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{config}: expected the sizes of {what}, got others ({reason}). Fetch it again, or remove it "
            "for those of Stable Diffusion 1.5."
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


class Encoders:
    """What encodes triplets, on a device; decodes latents, too."""

    def __init__(self, vae: Path, vision: Path, device: torch.device, reads: int = LAST):
        """
        Args:
            reads: which hidden states of CLIP the Embedding Optimizer reads.
        """
        self.vae, self.clip = load_vae(vae).to(device), load_clip_vision(vision).to(device)
        self.clip.requires_grad_(False)
        self.device, self.reads = device, reads
        self.files = {"VAE": weight_file(vae), "image encoder": vision}

    def encoders(self) -> TripletEncoders:
        """As the cache of triplets takes them."""
        size = self.clip.config.image_size
        # The same encoder answers otherwise where other hidden states are read.
        vision = f"{stamp_of(self.files['image encoder'])} {self.reads}"
        models = {"VAE": sha256_of(self.files["VAE"]), "image encoder": vision}
        return TripletEncoders(models, size, self.tokens, self.latents)

    def free_clip(self) -> None:
        """Free the image encoder, which nothing needs once triplets are encoded."""
        del self.clip

    def tokens(self, pixels: Tensor) -> Tensor:
        """CLIP tokens of pixel values."""
        # Neither kind has passed CLIP's final norm.
        states = self.clip(pixels.to(self.device), output_hidden_states=True).hidden_states
        return states[self.reads].float().cpu()

    def latents(self, pictures: Tensor) -> Tensor:
        """Mean and standard deviation of latents."""
        found = self.vae.encode(pictures.to(self.device)).latent_dist
        return torch.cat([found.mean, found.std], dim=1).float().cpu()

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents, unscaled."""
        with torch.no_grad():
            pictures = [self.vae.decode(each.to(self.device)).sample for each in latents.split(1)]
        return to_pil((torch.cat(pictures).movedim(1, -1) / 2 + 0.5).clamp(0, 1).float().cpu())


def stamp_of(vision: Path) -> str:
    """A checksum of the weights of an image encoder, a file or a folder."""
    files = [vision]
    if vision.is_dir():
        files = sorted(vision.glob("*.safetensors")) + sorted(vision.glob("*.bin"))
    return " ".join(map(sha256_of, files))
