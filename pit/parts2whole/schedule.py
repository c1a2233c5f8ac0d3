"""The noise schedule of Parts2Whole: betas that grow linearly, unlike those of Stable Diffusion.

Stable Diffusion's roots of the betas grow linearly. diffusers calls that "scaled_linear" and this "linear";
ComfyUI, like the original code of Stable Diffusion, calls that "linear" and this "sqrt_linear".
"""
from __future__ import annotations

import torch
from torch import Tensor

STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
COMFYUI_NAME, DIFFUSERS_NAME = "sqrt_linear", "linear"
SCHEDULER = {
    "num_train_timesteps": STEPS, "beta_start": BETA_START, "beta_end": BETA_END,
    "beta_schedule": DIFFUSERS_NAME, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    "timestep_spacing": "leading", "prediction_type": "epsilon",
}
"""The published `scheduler_config.json`, for diffusers' DDIMScheduler."""


def alphas_cumprod() -> Tensor:
    """The share of the picture in the noisy one, as a variance, `[1000]`."""
    return (1 - torch.linspace(BETA_START, BETA_END, STEPS)).cumprod(0)


def sigmas() -> Tensor:
    """The noise of each timestep relative to the picture, `[1000]`, ascending: what ComfyUI samples with."""
    kept = alphas_cumprod()
    return ((1 - kept) / kept).sqrt()
