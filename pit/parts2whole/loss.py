"""The published training of Parts2Whole as one function: what is dropped, what is predicted, the loss."""
from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from .pose import PoseGuider
from .references import reading
from .schedule import SCHEDULER
from .unets import Denoiser, write_references

TRAINING_SCHEDULE = {
    name: SCHEDULER[name]
    for name in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
}


@dataclass(frozen=True)
class Batch:
    """What one step of training is given, for B pictures with R references each.

    Attributes:
        latents: of the pictures to make `[B, 4, h, w]`.
        noise: added to them; timesteps: how much of it `[B]`.
        text: embedded captions `[B, 77, D]`; images: image tokens `[B, n, D]`.
        references: latents `[B, R, 4, h, w]`; labels `[B, R, 77, D]`; masks `[B, R, 1, 8 h, 8 w]`.
        pose: pictures of the poses in 0..1 `[B, 3, 8 h, 8 w]`, or None.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    text: Tensor
    images: Tensor
    references: Tensor
    labels: Tensor
    masks: Tensor
    pose: Tensor | None


@dataclass(frozen=True)
class Drops:
    """How often something is left out, so that the model also learns to do without it; as configured there.

    Attributes:
        reference: the pose of a batch, all references of a batch, and each reference of it.
        prompt: text and image tokens of a picture, for guidance.
    """

    reference: float = 0.2
    prompt: float = 0.1

    def apply(self, batch: Batch, choice: random.Random) -> Batch:
        """A batch without what is left out. The image tokens of references that are left out stay."""
        pose = None if choice.random() < self.reference else batch.pose
        all_left_out = choice.random() < self.reference
        count = batch.references.shape[1]
        kept = [number for number in range(count) if choice.random() >= self.reference and not all_left_out]
        # The whole sequence becomes zeros in training; sampling takes an empty prompt instead.
        told = [choice.random() >= self.prompt for _ in batch.text]
        factor = batch.text.new_tensor(told).reshape(-1, 1, 1)
        return replace(
            batch, pose=pose, text=batch.text * factor, images=batch.images * factor,
            references=batch.references[:, kept], labels=batch.labels[:, kept], masks=batch.masks[:, kept],
        )


def noise_loss(
    denoiser: Denoiser, reference_unet: UNet2DConditionModel, pose_guider: PoseGuider, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The squared error of the predicted noise for each picture `[B]`, and the prediction."""
    schedule = DDPMScheduler(**TRAINING_SCHEDULE)
    noisy = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
    references = None
    if batch.references.shape[1]:
        each = (given.flatten(0, 1) for given in (batch.references, batch.labels, batch.masks))
        written = write_references(reference_unet, *each)
        references = denoiser.keys_and_values(reading(written, pictures=len(noisy)))
    pose = None if batch.pose is None else pose_guider(batch.pose)
    predicted = denoiser(noisy, batch.timesteps, batch.text, batch.images, pose, references)
    # In float32: the mean of many small squares loses its digits in half precision.
    error = (predicted.float() - batch.noise.float()).square()
    return error.mean((1, 2, 3)), predicted


def trainable(denoiser: Denoiser) -> list[torch.nn.Parameter]:
    """What of the denoising UNet is trained: all but its first and its last layers, as published."""
    frozen = ("conv_in.", "conv_norm_out.", "conv_out.")
    return [
        *(each for name, each in denoiser.unet.named_parameters() if not name.startswith(frozen)),
        *denoiser.decoupled.parameters(),
    ]
