"""One step of the published sampling: the noise that the denoising UNet predicts, with guidance."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import KeysAndValues
from .schedule import STEPS
from .unets import Denoiser

GUIDANCE = 3.5  # as published


@dataclass(frozen=True)
class Conditions:
    """What a picture is made from; each is one for all pictures of a batch, or one for each.

    Attributes:
        text, negative: embedded prompts `[1, 77, D]` or `[B, 77, D]`.
        images: image tokens of the references `[1, n, D]` or `[B, n, D]`.
        pose: features of the pose `[1, C, h, w]` or `[B, C, h, w]`.
        references: see `Denoiser.keys_and_values`.
        start, end: shares of the sampling between which references and image tokens act.
    """

    text: Tensor
    negative: Tensor
    images: Tensor | None = None
    pose: Tensor | None = None
    references: Mapping[str, KeysAndValues] | None = None
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"Expected start to be less than end, both within 0 to 1, got {self.start} and {self.end}."
            )

    def act(self, timestep: int) -> bool:
        """Whether references and image tokens act at a timestep; sampling goes from 999 down to 0."""
        return self.start <= 1 - (timestep + 1) / STEPS <= self.end


@torch.no_grad()
def predicted_noise(
    denoiser: Denoiser, noisy: Tensor, timestep: int, given: Conditions, guidance: float = GUIDANCE
) -> Tensor:
    """The noise in latents `[B, 4, h, w]`; at a guidance of 1 the negative prompt is not computed."""
    count, act = len(noisy), given.act(timestep)
    text, images = _rows(given.text, count), None
    if act and given.images is not None:
        images = _rows(given.images, count)
    references = given.references if act else None
    pose = None if given.pose is None else _rows(given.pose, count)
    if guidance == 1:
        return denoiser(noisy, timestep, text, images, pose, references)
    # The pose is in both halves, as published: guidance then acts on what wears it, not on how it stands.
    both = denoiser(
        torch.cat([noisy, noisy]), timestep, torch.cat([_rows(given.negative, count), text]),
        None if images is None else torch.cat([torch.zeros_like(images), images]),
        None if pose is None else torch.cat([pose, pose]),
        references, [False] * count + [True] * count,
    )
    return guided(*both.chunk(2), guidance)


def guided(negative: Tensor, positive: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598)."""
    return negative + guidance * (positive - negative)


def _rows(each: Tensor, count: int) -> Tensor:
    return each.expand(count, *each.shape[1:]) if len(each) == 1 else each
