"""The published step of training: what is left out, what is predicted, and which weights are learned."""
from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ...training.order import Batch
from ..attention import KeysAndValues
from ..files import Parts2Whole
from ..references import reading
from ..schedule import SCHEDULER
from ..unets import Denoiser, write_references

OUTER = ("conv_in.", "conv_norm_out.", "conv_out.")
"""What the names of the denoising UNet's first and last layers begin with."""
TRAINING_SCHEDULE = {
    name: SCHEDULER[name]
    for name in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
}


@dataclass(frozen=True)
class PartsBatch(Batch):
    """What one step of training is given, for B pictures with up to R references each.

    Attributes:
        noisy: latents of the pictures to make, with noise `[B, 4, h, w]`.
        wanted: that noise; timesteps: how much of it `[B]`.
        text: embedded captions `[B, 77, D]`; images: image tokens `[B, n, D]`.
        references: latents `[B, R, 4, h, w]`; labels `[B, R, 77, D]`; masks `[B, R, 1, 8 h, 8 w]`.
        present: 1 for each reference that is there, 0 for what fills up the batch `[B, R]`.
        pose: pictures of the poses in 0..1 `[B, 3, 8 h, 8 w]`.
        posed: 1 for each picture whose pose is given, else 0 `[B]`.
    """

    noisy: Tensor
    wanted: Tensor
    timesteps: Tensor
    text: Tensor
    images: Tensor
    references: Tensor
    labels: Tensor
    masks: Tensor
    present: Tensor
    pose: Tensor
    posed: Tensor


class Kept(NamedTuple):
    """What of a picture is given: its pose, which of its references by number, its words."""

    pose: bool
    references: tuple[int, ...]
    prompt: bool


@dataclass(frozen=True)
class Drops:
    """How often something is left out, so that the model also learns to do without it; as configured there.

    Attributes:
        reference: the pose, all references together, and each reference.
        prompt: text and image tokens, for guidance.
    """

    reference: float = 0.2
    prompt: float = 0.1

    def keep(self, count: int, choice: random.Random) -> Kept:
        """What is left of a picture with this many references.

        Drawn for each picture, where the published code draws for a batch: with a batch of 1, the same.
        """
        pose = choice.random() >= self.reference
        any_reference = choice.random() >= self.reference
        # All are drawn in any case: what is drawn after them does not depend on the settings.
        each = [choice.random() >= self.reference for _ in range(count)]
        kept = tuple(number for number, here in enumerate(each) if here and any_reference)
        return Kept(pose, kept, choice.random() >= self.prompt)


def training_schedule() -> DDPMScheduler:
    """The noise of the published training."""
    return DDPMScheduler(**TRAINING_SCHEDULE)


class WholeModel(nn.Module):
    """All four models of Parts2Whole as one."""

    def __init__(self, parts: Parts2Whole):
        super().__init__()
        self.denoiser = Denoiser(parts.unet, parts.decoupled)
        self.reference_unet: UNet2DConditionModel = parts.reference_unet
        self.pose_guider = parts.pose_guider

    def forward(
        self, noisy: Tensor, timesteps: Tensor, text: Tensor, images: Tensor, references: Tensor,
        labels: Tensor, masks: Tensor, present: Tensor, pose: Tensor, posed: Tensor,
    ) -> Tensor:
        """The noise that is predicted, in the shape of `noisy`; `PartsBatch` describes what is given."""
        read = self.read(references, labels, masks, present)
        return self.denoiser(noisy, timesteps, text, images, self.posing(pose, posed), read)

    def read(
        self, references: Tensor, labels: Tensor, masks: Tensor, present: Tensor
    ) -> dict[str, KeysAndValues] | None:
        """References as the denoising UNet attends to them; None if there are none."""
        if not references.shape[1]:
            return None
        each = (given.flatten(0, 1) for given in (references, labels, masks))
        written = write_references(self.reference_unet, *each)
        # All there, which is the common case, needs no bias.
        strengths = None if present.all() else present
        return self.denoiser.keys_and_values(reading(written, strengths, pictures=len(references)))

    def posing(self, pose: Tensor, posed: Tensor) -> Tensor:
        """Features of the poses `[B, C, h, w]`, 0 where there is none."""
        return self.pose_guider(pose) * posed.reshape(-1, 1, 1, 1)


def outer_layers(denoiser: Denoiser) -> list[nn.Parameter]:
    """The first and the last layers of the denoising UNet, which stay as they are, as published."""
    return [value for name, value in denoiser.unet.named_parameters() if name.startswith(OUTER)]
