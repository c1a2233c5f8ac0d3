"""The models of a training of Parts2Whole on the command line; inside ComfyUI its own take their place."""
from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ...files.weights import WeightFileError
from ...files.whole import sha256_of
from ...images import to_pil
from ...training.clip_text import load_text_states
from ...training.clip_vision import load_clip_vision
from ...training.diffusers_files import load_vae, stamp_of, vae_latents, weight_file
from ..files import PARTS, Parts2Whole, load_parts2whole, load_unet
from ..files import weight_file as part_file
from ..published import REPO
from .cache import PartsEncoders
from .start import new_parts


def starting_parts(start: Path | None, unet: Path | None, seed: int) -> tuple[Parts2Whole, str]:
    """What a training starts from, and what tells it from others.

    Args:
        start: a folder in the published layout; None = a new one.
        unet: for a new one, the UNet of a Stable Diffusion 1.5 in diffusers' keys, a file or its folder.
    Raises:
        ValueError: both or neither are given.
        WeightFileError: a file is missing, damaged or of another kind.
    """
    if (start is None) == (unet is None):
        raise ValueError(
            "Expected a folder of Parts2Whole or the UNet of a Stable Diffusion 1.5 to start from, got "
            f"{'neither' if start is None else 'both'}. Give one of them."
        )
    if start is not None:
        parts = load_parts2whole(start)
        files = [part_file(start / name) for name in PARTS]
    else:
        parts, files = new_parts(load_unet(unet), seed), [part_file(unet)]
    return parts, hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


class Encoders:
    """What encodes examples, on a device; decodes latents, too."""

    def __init__(self, vae: Path, text: Path, vision: Path, device: torch.device):
        self.vae, self.clip = load_vae(vae).to(device), load_clip_vision(vision).to(device)
        self.clip.requires_grad_(False)
        self.words = load_text_states(text, device, REPO)
        self.device = device
        self.models = {
            "VAE": sha256_of(weight_file(vae)), "image encoder": stamp_of(vision),
            "text encoder": stamp_of(text),
        }

    def check(self, parts: Parts2Whole) -> None:
        """Raise WeightFileError for encoders of other widths than the UNets read."""
        width = parts.unet.config.cross_attention_dim
        widths = {
            "image encoder": self.clip.config.projection_dim, "text encoder": self.words([""]).shape[-1],
        }
        for name, found in widths.items():
            if found != width:
                raise WeightFileError(
                    f"Expected the width {width} from the {name}, which the UNets read, got {found}. Take "
                    f"that of {REPO}."
                )

    def encoders(self) -> PartsEncoders:
        """As the cache of examples takes them."""
        return PartsEncoders(
            self.models, self.clip.config.image_size, self.latents, self.tokens, self.words
        )

    def free(self) -> None:
        """Free what nothing needs once examples are encoded."""
        del self.clip, self.words

    def latents(self, pictures: Tensor) -> Tensor:
        """Mean and standard deviation of latents."""
        return vae_latents(self.vae, pictures)

    def tokens(self, pixels: Tensor) -> Tensor:
        """Image tokens of pixel values."""
        return self.clip(pixels.to(self.device)).image_embeds.float().cpu()

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents, unscaled."""
        with torch.no_grad():
            pictures = [self.vae.decode(each.to(self.device)).sample for each in latents.split(1)]
        return to_pil((torch.cat(pictures).movedim(1, -1) / 2 + 0.5).clamp(0, 1).float().cpu())
