"""What trainings of diffusion models share: noise schedule, noisy latents, loss weights, seeds."""
from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

NoiseSchedule = DDPMScheduler


def noise_schedule(prediction_type: str = "epsilon", zero_snr: bool = False) -> NoiseSchedule:
    """The noise schedule of SDXL.

    Args:
        prediction_type: "epsilon" or "v_prediction".
        zero_snr: at the last timestep nothing is left of the picture (arXiv 2305.08891), not a little; for
            the prediction of v alone.
    """
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type,
        rescale_betas_zero_snr=zero_snr,
    )


class Noised(NamedTuple):
    """Noisy latents, and what a model is to predict of them.

    Attributes:
        noisy, wanted: `[B, C, h, w]`.
        timesteps: `[B]`.
    """

    noisy: Tensor
    wanted: Tensor
    timesteps: Tensor


def noised(
    schedule: NoiseSchedule, latents: Sequence[Tensor], times: Sequence[int], seeds: Sequence[int],
    offset: float = 0.0,
) -> Noised:
    """Latents drawn from what a VAE gives, with noise at given timesteps; a sample depends on its seed alone.

    Args:
        latents: mean and standard deviation of each sample, `[2 C, h, w]`.
        offset: share of noise that is the same all over a channel.
    """
    clean, noise = [], []
    for distribution, seed in zip(latents, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        mean, spread = distribution.chunk(2)
        clean.append(mean + spread * torch.randn(mean.shape, generator=generator))
        # Noise of mean zero hardly hides the mean of a picture, so that a model learns to keep it at all
        # timesteps; an offset for each channel takes that hint away.
        own = torch.randn(mean.shape, generator=generator)
        noise.append(own + offset * torch.randn(len(mean), 1, 1, generator=generator))
    clean, noise, timesteps = torch.stack(clean), torch.stack(noise), torch.tensor(times)
    velocity = schedule.config.prediction_type == "v_prediction"
    wanted = schedule.get_velocity(clean, noise, timesteps) if velocity else noise
    return Noised(schedule.add_noise(clean, noise, timesteps), wanted, timesteps)


def min_snr_weights(schedule: NoiseSchedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights of the loss per sample, `[B]`, by Min-SNR-gamma (arXiv 2303.09556); 1 if `gamma` is 0.

    min(SNR, gamma) / SNR where the model predicts the noise, min(SNR, gamma) / (SNR + 1) where it predicts v.
    """
    if not gamma:
        return torch.ones(len(timesteps))
    # The paper weights the error of the clean sample x by min(SNR, gamma), so that times with little noise do
    # not dominate. With x_t = a x + s e, a^2 + s^2 = 1 and SNR = a^2 / s^2, an error d in x is an error of
    # d a / s in the noise e and of d / s in v = a e - s x. Their squares are SNR d^2 and (SNR + 1) d^2: hence
    # the divisors.
    snr = compute_snr(schedule, timesteps)
    velocity = schedule.config.prediction_type == "v_prediction"
    return snr.clamp(max=gamma) / (snr + 1 if velocity else snr)


def seed_of(text: str) -> int:
    """A seed of 63 bits that follows from a text."""
    # `random` seeds itself from a text by SHA-512: unlike hash(), the same in every process and version.
    return random.Random(text).getrandbits(63)
