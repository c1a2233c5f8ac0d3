"""Pictures from an IP-LoRA in training: what it makes of the captions and references it learns from."""
from __future__ import annotations

from dataclasses import replace

import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor, nn

from .task import LoraTask

SHOWN, STEPS, GUIDANCE = 4, 20, 5.0


@torch.no_grad()
def sample_latents(
    task: LoraTask, model: nn.Module, device: torch.device, *, count: int = SHOWN, steps: int = STEPS,
    guidance_scale: float = GUIDANCE, seed: int = 0,
) -> Tensor:
    """Latents of the first samples of the cache, as the UNet sees them, `[N, 4, h, w]`.

    As in the published inference script for IP-LoRA, guidance leads away from no words, and both branches see
    the same image tokens.
    """
    cache = task.cache
    samples = [cache.read(index) for index in range(min(count, len(cache.files)))]
    # Guidance then acts on the words alone, and it is words that an IP-LoRA teaches to count.
    unsaid = [replace(each, context=cache.empty.context, pooled=cache.empty.pooled) for each in samples]
    context, pooled, time_ids, tokens = (
        torch.stack([getattr(each, name) for each in samples + unsaid]).to(device)
        for name in ("context", "pooled", "time_ids", "tokens")
    )
    schedule = EulerDiscreteScheduler.from_config(task.schedule.config)
    schedule.set_timesteps(steps)
    shape = samples[0].latents.chunk(2)[0].shape
    # The same noise each time, so that two pictures of a training differ by what was learned in between.
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(samples), *shape, generator=generator).to(device) * schedule.init_noise_sigma
    for time in schedule.timesteps:
        x = schedule.scale_model_input(torch.cat([latents, latents]), time)
        predicted = model(x, time.to(device).expand(len(x)), context, pooled, time_ids, tokens).float()
        with_words, without = predicted.chunk(2)
        guided = torch.lerp(without, with_words, guidance_scale)
        latents = schedule.step(guided, time, latents).prev_sample
    return latents.cpu()
