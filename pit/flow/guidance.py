"""Guidance of a flow, and the noise it starts from."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def seeded_noise(seed: int, count: int, *shape: int) -> Tensor:
    """Starting noise `[count, *shape]`; row i is what seed + i draws alone.

    It is drawn on the CPU, so that a seed means the same on every device.
    """
    # One generator per row, so that a row does not depend on those before it. The sum wraps around because
    # the largest seed that a user can enter is also the largest that torch accepts.
    generators = (torch.Generator().manual_seed((seed + index) % 2**64) for index in range(count))
    return torch.stack([torch.randn(*shape, generator=generator) for generator in generators])


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: v = v_negative + scale * (v_parts - v_negative).

    Attributes:
        scale: 1 or less means no guidance, as published.
        interval: times at which to guide (arXiv 2404.07724); at all others the scale is 1, at half the cost.
        rescale: how far to bring the spread of the velocity back to its value without guidance, 0 to 1
            (arXiv 2305.08891, section 3.4).
    """

    scale: float = 2.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def check(self) -> None:
        """Raise ValueError for a setting out of range."""
        low, high = self.interval
        if not math.isfinite(self.scale):
            raise ValueError(f"Expected a finite number for guidance_scale, got {self.scale}.")
        if not 0.0 <= low < high <= 1.0:
            raise ValueError(
                f"Expected a guidance interval within 0 to 1 that is not empty, got {low} to {high}."
            )
        if not 0.0 <= self.rescale <= 1.0:
            raise ValueError(f"Expected a guidance rescale between 0 and 1, got {self.rescale}.")

    def applies(self, t: float) -> bool:
        return self.scale > 1.0 and self.interval[0] <= t <= self.interval[1]


def rescaled(guided: Tensor, given: Tensor, share: float) -> Tensor:
    """`guided [B, N, D]` with its spread brought back toward that of `given`, by a share from 0 to 1."""
    # Guidance adds a multiple of given - negative, which lengthens the velocity, the more the higher the
    # scale. Only the length is brought back, sample by sample; the direction that guidance chose stays.
    ratio = given.std(dim=(1, 2), keepdim=True) / guided.std(dim=(1, 2), keepdim=True)
    return guided * (1 + share * (ratio - 1))
