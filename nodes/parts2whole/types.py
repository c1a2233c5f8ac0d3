"""The socket types of Parts2Whole, and what travels through them."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
from comfy.latent_formats import LatentFormat
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...pit.ip_adapter.attention import ImageCrossAttention
from ...pit.parts2whole.parts import Reference, Wiring
from ...pit.parts2whole.pose import PoseGuider
from ...pit.parts2whole.references import ReferenceTokens

CATEGORY = "Piece it Together/Parts2Whole"

Parts2WholeType = io.Custom("PIT_PARTS2WHOLE")
"""Carries a `ManagedParts2Whole`."""
ReferenceType = io.Custom("PIT_REFERENCE")
"""Carries a `ReferencePictures`."""
ReferencesType = io.Custom("PIT_REFERENCES")
"""Carries an `EncodedReferences`."""
PoseType = io.Custom("PIT_POSE")
"""Carries a `Pose`."""


@dataclass(frozen=True)
class ManagedParts2Whole:
    """What Parts2Whole adds to Stable Diffusion 1.5, under ComfyUI's memory management.

    Attributes:
        name: what error messages call it.
        reference_unet: patcher of a module whose `network` is the UNet that writes the references.
        pose_guider: patcher of a `PoseGuider`.
        decoupled: patcher of an `ImageCrossAttention`.
        blocks: the names of the transformer blocks, in the order of `pit.parts2whole.unets.blocks_of`.
        latents: in which both UNets work.
    """

    name: str
    reference_unet: ModelPatcher
    pose_guider: ModelPatcher
    decoupled: ModelPatcher
    blocks: tuple[str, ...]
    latents: LatentFormat

    @property
    def word_dim(self) -> int:
        """The width of the words that both UNets read."""
        return self.reference_unet.model.network.config.cross_attention_dim

    @property
    def guider(self) -> PoseGuider:
        return self.pose_guider.model

    @property
    def image_attention(self) -> ImageCrossAttention:
        return self.decoupled.model

    def picture_size(self, latent: Mapping[str, Any]) -> tuple[int, int]:
        """Width and height, in pixels, of the pictures that are sampled from a LATENT."""
        height, width = latent["samples"].shape[-2:]
        # Empty latents may be those of other models: as the samplers do it, the size in pixels counts.
        own, given = self.guider.latent_pixel, latent.get("downscale_ratio_spacial")
        pixel = given if given and not latent["samples"].any() else own
        return round(width * pixel / own) * own, round(height * pixel / own) * own


class OwnLatents(LatentFormat):
    """Latents whose scale is that of noise already, of another autoencoder than Stable Diffusion's."""

    def __init__(self, channels: int, latent_pixel: int):
        self.latent_channels, self.spacial_downscale_ratio = channels, latent_pixel


def latents_of(channels: int, latent_pixel: int) -> LatentFormat:
    """The latents that a UNet predicts so many channels of, each for so many pixels along their side."""
    published = comfy.latent_formats.SD15()
    if (channels, latent_pixel) == (published.latent_channels, published.spacial_downscale_ratio):
        return published
    return OwnLatents(channels, latent_pixel)


def vae_of(latents: LatentFormat) -> str:
    """What people call the VAE that makes such latents."""
    published = isinstance(latents, comfy.latent_formats.SD15)
    return "the VAE of Stable Diffusion 1.5" if published else "the VAE of the model"


@dataclass(frozen=True)
class ReferencePictures:
    """A part as pictures `[B, H, W, C]`: one for all pictures of a batch, or one for each of them.

    Attributes:
        mask: `[B, H, W]`, or one `[1, H, W]` for all; None for all of each picture.
        label, strength: as in `pit.parts2whole.parts.Reference`.
    """

    image: Tensor
    label: str
    mask: Tensor | None
    strength: float

    def of(self, picture: int) -> Reference:
        """The reference of one picture of a batch."""
        def one(each: Tensor) -> Tensor:
            return each[[picture % len(each)]]

        return Reference(one(self.image), self.label, None if self.mask is None else one(self.mask),
                         self.strength)


@dataclass(frozen=True)
class EncodedReferences:
    """References as the model reads them; S sets, one for all pictures of a batch or one for each.

    Attributes:
        tokens: what each block reads, by its name.
        images: image tokens of R references `[S, R, D]`.
        label: the embedded first label `[1, 77, D]`.
        wiring: how labels, prompt and image tokens reach the networks.
    """

    tokens: Mapping[str, ReferenceTokens]
    images: Tensor
    label: Tensor
    wiring: Wiring

    @property
    def sets(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Pose:
    """Pictures of poses `[P, H, W, C]`, one for all pictures of a batch or one for each, and the guider."""

    image: Tensor
    strength: float
    guider: ModelPatcher
