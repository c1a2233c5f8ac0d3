"""Pictures from a training: what the words of a few pictures come to."""
from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from torch import Tensor, nn

from ...flow.guidance import seeded_noise
from ...images import contact_sheet
from .task import PartTask

SHOWN, STEPS, GUIDANCE, PIXELS = 4, 20, 7.5, 192
Decode = Callable[[Tensor], list[Image.Image]]
"""From latents as the UNet sees them, `[B,C,h,w]`, to pictures."""


@torch.no_grad()
def sample_latents(
    task: PartTask, model: nn.Module, device: torch.device, *, count: int = SHOWN, steps: int = STEPS,
    guidance: float = GUIDANCE, seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Latents of pictures to validate with, and of what is drawn from all of their words, `[B,C,h,w]` each.

    From the same noise each time, so that two pictures of a training differ by what was learned in between.
    """
    chosen = task.split.validated[:count].tolist()
    samples = [task.cache.read(index) for index in chosen]
    codes = [task.cache.codes(index, sample) for index, sample in zip(chosen, samples, strict=True)]
    absent = task.cache.coding.count
    parts = [(own != absent).nonzero().flatten().tolist() for own in codes]
    texts = [[*own, task.recipe.class_name] for own in parts] + [[""]] * len(samples)
    ids = torch.stack([task.tokens.ids(text) for text in texts]).to(device)
    time_ids = torch.stack([sample.time_ids[0] for sample in samples]).to(device)
    context, more = model.read(ids, torch.stack(codes).to(device).repeat(2, 1), time_ids.repeat(2, 1))
    model.stop_watching()
    truth = torch.stack([sample.latents[0].chunk(2)[0] for sample in samples])
    schedule = EulerDiscreteScheduler.from_config(task.schedule.config)
    schedule.set_timesteps(steps)
    x = seeded_noise(seed, len(samples), *truth.shape[1:]).to(device) * schedule.init_noise_sigma
    for time in schedule.timesteps:
        inputs = schedule.scale_model_input(torch.cat([x, x]), time)
        times = time.to(device).expand(len(inputs))
        named, plain = model.unet(inputs, times, context, added_cond_kwargs=more).sample.float().chunk(2)
        x = schedule.step(torch.lerp(plain, named, guidance), time, x).prev_sample
    return truth, x.cpu()


def sample_sheet(task: PartTask, model: nn.Module, device: torch.device, decode: Decode) -> Image.Image:
    """One row for each of a few pictures: the picture itself, and what is drawn from its words."""
    latents = torch.stack(sample_latents(task, model, device), dim=1).flatten(0, 1)
    pictures = decode(latents)
    pixels = min(PIXELS, pictures[0].width)
    return contact_sheet([each.resize((pixels, pixels)) for each in pictures], 2, pixels)
