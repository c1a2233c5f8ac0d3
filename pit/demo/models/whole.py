"""The creatures' Parts2Whole: the base of SD 1.5's structure, changed to draw, and a second one that reads.

The file of the weights holds those of the denoising UNet that are not the base's own, and of the reference
UNet what it differs by from the base, as products of two matrices.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...ip_adapter.attention import ImageCrossAttention
from ...parts2whole.files import Parts2Whole
from ...parts2whole.pose import PoseGuider
from ...parts2whole.training.start import new_parts
from ...parts2whole.training.step import OUTER
from ...parts2whole.unets import empty_reference_unet, empty_unet, widths_of
from .instruct import base_weights
from .sizes import EMBEDDING_DIM
from .text import TextEncoder
from .unet import build_sd15_unet
from .weights import SD15, check_base, float_weights, weight_file, with_prefix

WHOLE = "creature_parts2whole.safetensors"
RANK = 12  # of what the reference UNet differs by: all weights together take less than 12 MB
GUIDER_CHANNELS = (8, 16, 32, 64, 96)  # four halvings, from pixels to latents
UNET, REFERENCE, GUIDER, DECOUPLED = (
    f"{name}." for name in ("unet", "reference_unet", "pose_guider", "decoupled")
)
UP, DOWN = ".up", ".down"


class LowRankChange(nn.Module):
    """A parametrization: a weight, and a change of low rank on top of it, which is zero at first."""

    def __init__(self, weight: Tensor, rank: int = RANK):
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The changed weight, in the shape of `weight`."""
        return weight + (self.up @ self.down).reshape(weight.shape)


def unet_config() -> dict[str, Any]:
    """The sizes of both UNets, in diffusers' names."""
    return {key: value for key, value in build_sd15_unet().config.items() if not key.startswith("_")}


def new_whole(seed: int) -> Parts2Whole:
    """What training starts from: the shipped base twice, and a guider and image tokens that say nothing.

    Raises:
        WeightFileError: the base is missing, damaged or of another version.
    """
    unet = empty_unet(unet_config())
    unet.load_state_dict(base_weights(), assign=True)
    parts = new_parts(unet, seed, EMBEDDING_DIM, GUIDER_CHANNELS)
    parts.reference_unet.requires_grad_(False)
    for module in list(parts.reference_unet.modules()):
        weight = getattr(module, "weight", None)
        if weight is not None and weight.ndim > 1:
            parametrize.register_parametrization(module, "weight", LowRankChange(weight))
    return parts


def changes_of(parts: Parts2Whole) -> dict[str, Tensor]:
    """What the file holds of all four models, which `new_whole` has made."""
    found = {
        UNET + key: value for key, value in parts.unet.state_dict().items() if not key.startswith(OUTER)
    }
    for name, module in parts.reference_unet.named_modules():
        if isinstance(module, LowRankChange):
            place = name.removesuffix(".parametrizations.weight.0")
            found |= {REFERENCE + place + UP: module.up, REFERENCE + place + DOWN: module.down}
    for prefix, model in ((GUIDER, parts.pose_guider), (DECOUPLED, parts.decoupled)):
        found |= {prefix + key: value for key, value in model.state_dict().items()}
    return {key: value.detach() for key, value in found.items()}


def load_whole() -> Parts2Whole:
    """The shipped models, in fp32 on the CPU.

    Raises:
        WeightFileError: a file is missing, damaged or of another version, or was trained on another base.
    """
    check_base(weight_file(WHOLE), "parts2whole")
    return whole_of(base_weights(), float_weights(WHOLE))


def whole_of(base: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Parts2Whole:
    """The four models from the weights of the base's UNet and from `changes_of`, both in fp32."""
    unet, reference_unet = empty_unet(unet_config()), empty_reference_unet(unet_config())
    unet.load_state_dict({**base, **with_prefix(state, UNET)}, assign=True)
    changed = {**base, **changed_weights(base, with_prefix(state, REFERENCE))}
    # Copies, so that neither UNet changes with the other.
    own = {key: changed[key].clone() for key in reference_unet.state_dict()}
    reference_unet.load_state_dict(own, assign=True)
    guider = PoseGuider(unet.conv_in.out_channels, GUIDER_CHANNELS)
    guider.load_state_dict(with_prefix(state, GUIDER))
    decoupled = ImageCrossAttention(EMBEDDING_DIM, widths_of(unet))
    decoupled.load_state_dict(with_prefix(state, DECOUPLED))
    models = unet, reference_unet, guider, decoupled
    return Parts2Whole(*(model.eval().requires_grad_(False) for model in models))


def changed_weights(base: Mapping[str, Tensor], changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the reference UNet that differ from the base, from the matrices in the file."""
    places = [key.removesuffix(UP) for key in changes if key.endswith(UP)]
    return {
        f"{place}.weight": base[f"{place}.weight"]
        + (changes[place + UP] @ changes[place + DOWN]).reshape(base[f"{place}.weight"].shape)
        for place in places
    }


def load_words() -> TextEncoder:
    """The text encoder of the base, for labels and prompts; errors as in `new_whole`."""
    text = TextEncoder()
    text.load_comfyui_state(float_weights(SD15))
    return text.eval().requires_grad_(False)
