"""Pictures from a training: what is made of the references and poses of examples that are held out."""
from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from ...flow.guidance import seeded_noise
from ...images import contact_sheet
from ..sample import GUIDANCE, Conditions, predicted_noise
from ..schedule import SCHEDULER
from .step import PartsBatch, WholeModel
from .task import PartsTask, Row, everything

SHOWN, STEPS, PIXELS = 4, 20, 160
Decode = Callable[[Tensor], list[Image.Image]]
"""From latents of the VAE, unscaled, `[B, 4, h, w]`, to pictures."""


@torch.no_grad()
def sample_latents(
    task: PartsTask, model: WholeModel, batch: PartsBatch, steps: int = STEPS, guidance: float = GUIDANCE
) -> Tensor:
    """Latents that the model makes of what a batch is given, unscaled, `[B, 4, h, w]`.

    Of the same noise each time, so that two pictures of a training differ by what was learned in between.
    """
    device = batch.noisy.device
    given = Conditions(
        batch.text, task.cache.empty[None].to(device), batch.images, model.posing(batch.pose, batch.posed),
        model.read(batch.references, batch.labels, batch.masks, batch.present),
    )
    scheduler = DDIMScheduler(**SCHEDULER)
    scheduler.set_timesteps(steps)
    x = seeded_noise(0, len(batch.noisy), *batch.noisy.shape[1:]).to(device)
    for timestep in scheduler.timesteps.tolist():
        noise = predicted_noise(model.denoiser, x, timestep, given, guidance).float()
        x = scheduler.step(noise, timestep, x).prev_sample
    return (x / task.latent_scale).cpu()


def sample_sheet(
    task: PartsTask, model: WholeModel, device: torch.device, decode: Decode, steps: int = STEPS
) -> Image.Image:
    """One row for each of a few examples: its pose, its references, what is made of them, and the target."""
    examples = task.shown[:SHOWN]
    columns = 3 + max(len(example.parts) for example in examples)
    cells: list[Image.Image | None] = []
    for example in examples:
        sample = task.cache.read(example)
        batch = task.batch([sample], [Row(0, 0, everything(example))]).to(device)
        made = sample_latents(task, model, batch, steps)
        pictures = decode(torch.cat([sample.references, made, sample.latents.chunk(2)[0][None]]))
        pose = Image.fromarray((sample.pose.movedim(0, -1) * 255).byte().numpy())
        gaps = [None] * (columns - 1 - len(pictures))
        cells += [pose, *pictures[:-2], *gaps, *pictures[-2:]]
    return contact_sheet([each and square(each) for each in cells], columns, PIXELS)


def square(picture: Image.Image) -> Image.Image:
    """A picture on white in a cell of the sheet."""
    cell = Image.new("RGB", (PIXELS, PIXELS), "white")
    small = picture.copy()
    small.thumbnail((PIXELS, PIXELS))
    cell.paste(small, ((PIXELS - small.width) // 2, (PIXELS - small.height) // 2))
    return cell
