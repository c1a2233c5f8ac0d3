"""The noise of models: what they were trained with, and how much of the first a sampling begins with."""
from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import comfy.model_sampling
from comfy.model_patcher import ModelPatcher
from torch import Tensor

if TYPE_CHECKING:
    from ...pit.training.denoising import NoiseSchedule


def trained_schedule(model: ModelPatcher) -> NoiseSchedule:
    """The noise that a MODEL of Stable Diffusion's kind was trained with, for trainers."""
    # Imported here, because diffusers takes seconds to import.
    from ...pit.training.denoising import noise_schedule

    # What a UNet predicts is not in its weights: on the other target, a LoRA would learn to undo the model.
    sampling = model.get_model_object("model_sampling")
    velocity = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    return noise_schedule(
        "v_prediction" if velocity else "epsilon", zero_snr=velocity and getattr(sampling, "zsnr", False)
    )


def with_published_start(model: ModelPatcher) -> ModelPatcher:
    """A clone of the model that scales the first noise as the published pipelines do."""
    # ComfyUI scales noise by sqrt(sigma^2 + 1) only at the very highest level, at which the published steps
    # do not begin. Latents that are not empty are hidden by the noise of their level, as ComfyUI does it.
    sampling = copy.copy(model.get_model_object("model_sampling"))
    scaled = sampling.noise_scaling

    # `max_denoise` is given at the start of a sampling alone, and not where masked latents get their noise.
    def noise_scaling(
        sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool | None = None
    ) -> Tensor:
        starts_empty = max_denoise is not None and not latent.any()
        return scaled(sigma, noise, latent, bool(max_denoise or starts_empty))

    sampling.noise_scaling = noise_scaling
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched
