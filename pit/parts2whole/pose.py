"""The pose guider: a picture of a pose in, features for the first layer of the denoising UNet out.

Made as ControlNet's embedding of its condition (arXiv 2302.05543); state-dict keys as in the published file.
"""
from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ..images import on_white, to_pil, to_tensor

CHANNELS = (16, 32, 96, 256)
SAME_ASPECT = 0.02  # how far the aspect of a pose may be from that of the picture, as a share of it


def channels_for(latent_pixel: int) -> tuple[int, ...]:
    """Widths of a guider for latent pixels of this many pixels along their side, a power of two from 8 on."""
    more = latent_pixel.bit_length() - len(CHANNELS)
    return CHANNELS[:1] * more + CHANNELS


class PoseGuider(nn.Module):
    """Pictures `[B, 3, H, W]` in 0..1 -> features `[B, output_dim, H / f, W / f]`, by default with f = 8."""

    def __init__(self, output_dim: int = 320, channels: Sequence[int] = CHANNELS, input_dim: int = 3,
                 operations=nn, *, device=None, dtype=None):
        """
        Args:
            output_dim: channels of the first layer of the denoising UNet.
            channels: widths on the way; between two of them the picture is halved.
            operations: namespace of `Conv2d` (ComfyUI's casting layers work too).
        """
        super().__init__()
        options = {"padding": 1, "device": device, "dtype": dtype}
        self.conv_in = operations.Conv2d(input_dim, channels[0], 3, **options)
        self.blocks = nn.ModuleList()
        for narrow, wide in pairwise(channels):
            self.blocks.append(operations.Conv2d(narrow, narrow, 3, **options))
            self.blocks.append(operations.Conv2d(narrow, wide, 3, stride=2, **options))
        self.conv_out = operations.Conv2d(channels[-1], output_dim, 3, **options)
        # Training begins with a guider that changes nothing.
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments that make one of the same sizes."""
        return {
            "output_dim": self.conv_out.out_channels, "input_dim": self.conv_in.in_channels,
            "channels": [self.conv_in.out_channels, *(each.out_channels for each in self.blocks[1::2])],
        }

    @property
    def latent_pixel(self) -> int:
        """How many pixels along its side one of the features stands for."""
        return 2 ** (len(self.blocks) // 2)

    def forward(self, pictures: Tensor) -> Tensor:
        hidden = functional.silu(self.conv_in(pictures))
        for block in self.blocks:
            hidden = functional.silu(block(hidden))
        return self.conv_out(hidden)


def pose_picture(image: Tensor, width: int, height: int) -> Tensor:
    """A pose as the guider reads it: `[1, 3, height, width]` in 0..1, resized by Lanczos as published.

    Args:
        image: one picture, `[1, H, W, C]` in 0..1; transparent ones are put on white.
    Raises:
        ValueError: several pictures, one of another aspect than that of the picture to make, or values that
            are not finite.
    """
    pictures = to_pil(image)
    if len(pictures) != 1:
        raise ValueError(f"Expected one picture of a pose, got {len(pictures)}. Take one from the batch.")
    given = pictures[0].width / pictures[0].height
    if abs(given * height / width - 1) > SAME_ASPECT:
        raise ValueError(
            f"Expected a pose of the aspect of the picture, {width}x{height}, got {pictures[0].width}x"
            f"{pictures[0].height}. Crop or pad it: stretched, it would be the pose of another body."
        )
    resized = on_white(pictures[0]).resize((width, height), Image.Resampling.LANCZOS)
    return to_tensor([resized]).movedim(-1, 1)


@torch.no_grad()
def pose_features(guider: PoseGuider, pose: Tensor, strength: float = 1.0) -> Tensor:
    """Features `[B, C, h, w]` of poses `[B, 3, H, W]`, the same in all steps and for all prompts."""
    weight = guider.conv_in.weight
    return guider(pose.to(weight)) * strength
