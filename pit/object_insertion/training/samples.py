"""Pictures from a training: what is inserted into scenes that are held out, beside what should be."""
from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn

from ...flow.guidance import seeded_noise
from ...images import contact_sheet
from ..condition import null_context
from ..sampling import GUIDANCE, IMAGE_GUIDANCE, guided, leading_sigmas, leading_timesteps
from .task import InsertionTask

SHOWN, STEPS = 4, 20
"""Steps as the published validation has them."""
PIXELS = 192
Decode = Callable[[Tensor], list[Image.Image]]
"""From latents of the VAE, unscaled, `[B, C, h, w]`, to pictures."""


@torch.no_grad()
def sample_latents(
    task: InsertionTask, model: nn.Module, device: torch.device, *, count: int = SHOWN, steps: int = STEPS,
    guidance: float = GUIDANCE, image_guidance: float = IMAGE_GUIDANCE, seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of scenes, of what is inserted into them, and of the targets, unscaled, `[B, C, h, w]` each.

    Under the same query and noise each time, so that two pictures of a training differ by what was learned in
    between.
    """
    samples = [task.cache.read(index) for index in task.shown[:count]]
    scene = torch.stack([sample.scene for sample in samples]).to(device)
    tokens = torch.stack([sample.tokens for sample in samples]).to(device)
    targets = torch.stack([sample.target.chunk(2)[0] for sample in samples])
    query = task.queries([seed]).to(device)
    context = model.optimizer(tokens, query.expand(len(samples), -1, -1))
    null = null_context(model.optimizer, task.recipe.null, task.cache.blank[None].to(device), seed)
    null = null.to(context).expand_as(context)
    contexts, scenes = torch.cat([context, null, null]), torch.cat([scene, scene, torch.zeros_like(scene)])
    kept = task.schedule.alphas_cumprod
    sigmas = leading_sigmas(steps, ((1 - kept) / kept) ** 0.5).tolist()
    x = seeded_noise(seed, len(samples), *scene.shape[1:]).to(device) * (sigmas[0] ** 2 + 1) ** 0.5
    for time, sigma, after in zip(leading_timesteps(steps), sigmas, sigmas[1:], strict=False):
        inputs = (x / (sigma**2 + 1) ** 0.5).repeat(3, 1, 1, 1)
        found = model.predicted(inputs, time.to(device).expand(len(inputs)), scenes, contexts).float()
        followed = guided(*found.chunk(3), guidance, image_guidance)
        if task.schedule.config.prediction_type == "v_prediction":
            followed = noise_of_velocity(followed, x, sigma)
        x = x + followed * (after - sigma)
    return scene.cpu(), (x / task.latent_scale).cpu(), targets


def noise_of_velocity(velocity: Tensor, x: Tensor, sigma: float) -> Tensor:
    """The noise in `x`, a picture plus `sigma` times noise, by the v that is predicted (arXiv 2202.00512)."""
    # Of x / sqrt(sigma^2 + 1), the model says v = (noise - sigma * picture) / sqrt(sigma^2 + 1).
    return (velocity * (sigma**2 + 1) ** 0.5 + sigma * x) / (sigma**2 + 1)


def sample_sheet(task: InsertionTask, model: nn.Module, device: torch.device, decode: Decode) -> Image.Image:
    """One row for each of a few triplets: the scene, what is inserted into it, and the target."""
    latents = torch.stack(sample_latents(task, model, device), dim=1).flatten(0, 1)
    pictures = decode(latents)
    pixels = min(PIXELS, pictures[0].width)
    return contact_sheet([each.resize((pixels, pixels)) for each in pictures], 3, pixels)
