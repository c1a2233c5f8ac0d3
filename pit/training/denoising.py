"""What trainings of diffusion models share: noise schedule, loss weights, seeds."""
from __future__ import annotations

import random

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor


def noise_schedule(prediction_type: str = "epsilon") -> DDPMScheduler:
    """The noise schedule of SDXL; `prediction_type` is "epsilon" or "v_prediction"."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )


def min_snr_weights(schedule: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
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
