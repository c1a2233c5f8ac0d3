"""What trainings of diffusion models share: noise schedule, loss weights, seeds."""
from __future__ import annotations

import random

import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor


def noise_schedule(prediction_type: str = "epsilon") -> DDPMScheduler:
    """SDXL's; `prediction_type` is "epsilon" or "v_prediction"."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )


def min_snr_weights(schedule: DDPMScheduler, timesteps: Tensor, gamma: float) -> Tensor:
    """Weights of the loss, `[B]`: min(SNR, gamma) / SNR for noise, / (SNR + 1) for v (arXiv 2303.09556)."""
    if not gamma:
        return torch.ones(len(timesteps))
    snr = compute_snr(schedule, timesteps)
    velocity = schedule.config.prediction_type == "v_prediction"
    return snr.clamp(max=gamma) / (snr + 1 if velocity else snr)


def seed_of(text: str) -> int:
    """A seed of 63 bits."""
    return random.Random(text).getrandbits(63)
