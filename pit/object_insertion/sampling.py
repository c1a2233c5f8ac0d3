"""How the published pipeline samples: guidance by object and scene, and its steps."""
from __future__ import annotations

import torch
from torch import Tensor

TRAINED_STEPS = 1000
OFFSET = 1  # of the timesteps, as in Stable Diffusion's own scheduler
GUIDANCE, IMAGE_GUIDANCE, STEPS = 7.0, 1.5, 100
"""As in the published scripts."""


def is_guided(guidance: float, image_guidance: float) -> bool:
    """Whether there is any guidance: the published code is content with one pass otherwise."""
    return guidance > 1 and image_guidance >= 1


def guided(both: Tensor, scene: Tensor, neither: Tensor, guidance: float, image_guidance: float) -> Tensor:
    """The noise that is followed, from what the model predicts with object and scene, scene alone, neither.

    `neither + image_guidance * (scene - neither) + guidance * (both - scene)`, and `both` without guidance.
    """
    if not is_guided(guidance, image_guidance):
        return both
    return neither + guidance * (both - scene) + image_guidance * (scene - neither)


def scaled_linear_sigmas() -> Tensor:
    """The noise levels of Stable Diffusion's training, `[1000]`, the lowest first."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAINED_STEPS) ** 2
    kept = (1 - betas).cumprod(0)
    return ((1 - kept) / kept) ** 0.5


def leading_timesteps(steps: int) -> Tensor:
    """The timesteps of a sampling `[steps]`, the highest first: "leading" spacing with an offset of 1.

    Multiples of 1000 // steps, so that 501 to 999 steps do not begin at full noise.

    Raises:
        ValueError: fewer than 1 or more than 1000 steps.
    """
    if not 1 <= steps <= TRAINED_STEPS:
        raise ValueError(f"Expected 1 to {TRAINED_STEPS} steps, got {steps}.")
    return torch.arange(steps).flip(0) * (TRAINED_STEPS // steps) + OFFSET


def leading_sigmas(steps: int, table: Tensor | None = None) -> Tensor:
    """The noise levels of a sampling, `[steps + 1]` with the final 0; errors as in `leading_timesteps`.

    Args:
        table: those of the model's training `[1000]`, by default Stable Diffusion's.
    Raises:
        ValueError: the table has another length.
    """
    table = scaled_linear_sigmas() if table is None else table
    if table.shape != (TRAINED_STEPS,):
        raise ValueError(
            f"Expected a model with {TRAINED_STEPS} noise levels, as Stable Diffusion 1.5 has them, got "
            f"{list(table.shape)}. Use an InstructPix2Pix of Stable Diffusion 1.5."
        )
    # With 1000 steps the offset leads past the end, where the published scheduler repeats the last level.
    levels = table[leading_timesteps(steps).clamp(max=TRAINED_STEPS - 1).to(table.device)]
    return torch.cat([levels, levels.new_zeros(1)])
