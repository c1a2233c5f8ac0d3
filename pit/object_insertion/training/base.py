"""The models of an InstructPix2Pix on the command line: what is trained on, and what encodes for it.

Files as diffusers saves them, with their config.json beside them, or without one: then the UNet has the sizes
of its weights, and the VAE those of Stable Diffusion 1.5. Inside ComfyUI its own models take their place.
"""
from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ...files.unet_sizes import sizes_of_unet
from ...files.weights import WeightFileError
from ...files.whole import sha256_of
from ...images import to_pil
from ...training.clip_vision import load_clip_vision
from ...training.diffusers_files import load_vae, network, stamp_of, vae_latents, weight_file
from ..embedding_optimizer import LAST
from ..unet_layout import INSTRUCT_CHANNELS
from .cache import TripletEncoders


def load_unet(path: Path, dtype: torch.dtype = torch.float32) -> UNet2DConditionModel:
    """The UNet of an InstructPix2Pix, on the CPU, from a file or the folder that it is in.

    Raises:
        WeightFileError: it is missing, damaged or of another kind.
    """
    path = weight_file(path)
    what = "an InstructPix2Pix UNet"
    unet = network(path, UNet2DConditionModel, sizes_of_unet, "conv_in.weight", what, dtype)
    channels = unet.conv_in.in_channels
    if channels != INSTRUCT_CHANNELS:
        raise WeightFileError(
            f"{path}: expected an InstructPix2Pix, with {INSTRUCT_CHANNELS} input channels, got a UNet with "
            f"{channels}. Take that of paint-by-inpaint/add-base or the published one."
        )
    return unet


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
        return vae_latents(self.vae, pictures)

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """Pictures of latents, unscaled."""
        with torch.no_grad():
            pictures = [self.vae.decode(each.to(self.device)).sample for each in latents.split(1)]
        return to_pil((torch.cat(pictures).movedim(1, -1) / 2 + 0.5).clamp(0, 1).float().cpu())
