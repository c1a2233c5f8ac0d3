"""The miniature models as one chain, without ComfyUI: from parts to tokens, concepts and pictures.

The measures run on it. It holds the shipped weights in the classes in which they were trained; a test
compares each of them with ComfyUI's own object.
"""
from __future__ import annotations

import random
from collections.abc import Callable

import torch
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image
from torch import Tensor

from ...images import clip_pixel_values
from ...ip_adapter.files import load_ip_adapter
from ...piece_it_together.parts import MIN_SLOTS, place_part
from ...piece_it_together.prior_files import load_prior
from ...piece_it_together.sample import concept_noise, sample_prior
from ...training.denoising import noise_schedule
from .autoencoder import build_autoencoder
from .reader import as_pictures
from .sizes import ENCODER_SIZE, LATENT_SCALE, PICTURE_SIZE, TOKEN_DIM, TOKENS_PER_PICTURE
from .unet import PREDICTION, Renderer
from .vision import CreatureVision
from .weights import IP_ADAPTER, IP_PRIOR, RENDERER, VISION, read_weights, weight_file, with_prefix

LATENT_SHAPE = (4, PICTURE_SIZE // 8, PICTURE_SIZE // 8)


class CreatureChain:
    """Every miniature model, on the CPU in fp32.

    Attributes:
        empty: tokens of a white picture, `[1, 16, D]`, which stand for "no part".
        uncond: tokens of the negative branch, `[1, 16, D]`: those of all-zero pixel values.
    """

    def __init__(self) -> None:
        """Load the shipped weights.

        Raises:
            WeightFileError: a file is missing, damaged or of another version.
        """
        state = {key: value.float() for key, value in read_weights(RENDERER).items()}
        adapter = load_ip_adapter(weight_file(IP_ADAPTER)).float()
        self.vision, self.resampler = CreatureVision(), adapter.resampler
        self.vision.load_state_dict(read_weights(VISION))
        self.renderer, self.autoencoder = Renderer(), build_autoencoder()
        self.renderer.unet.load_state_dict(with_prefix(state, "unet."))
        self.renderer.text.load_comfyui_state(state)
        self.renderer.image.load_state_dict(adapter.cross_attention.state_dict())
        self.autoencoder.load_state_dict(with_prefix(state, "vae."))
        self.prior = load_prior(weight_file(IP_PRIOR)).float()
        for model in (self.vision, self.resampler, self.renderer, self.autoencoder, self.prior):
            model.eval().requires_grad_(False)
        # As published: white fills empty slots of the prior, zeros (mid-gray, once normalized) the negative
        # branch of the UNet.
        self.empty = self.encode([Image.new("RGB", (ENCODER_SIZE, ENCODER_SIZE), "white")])
        self.uncond = self.resampler(self.vision.features(torch.zeros(1, 3, ENCODER_SIZE, ENCODER_SIZE)))

    @torch.no_grad()
    def encode(self, pictures: list[Image.Image], batch: int = 128) -> Tensor:
        """IP+ tokens of pictures on white, `[N, 16, D]`."""
        chunks = (pictures[start:start + batch] for start in range(0, len(pictures), batch))
        pixels = (clip_pixel_values(chunk, ENCODER_SIZE) for chunk in chunks)
        return torch.cat([self.resampler(self.vision.features(chunk)) for chunk in pixels])

    def encode_parts(self, parts: list[Image.Image]) -> Tensor:
        """IP+ tokens of pictures of parts, placed on white as **Encode IP+ Parts** does it, `[P, 16, D]`."""
        rng = random.Random(0)  # asked for, but not drawn from by this placement
        return self.encode([place_part(part, placement="centred", rng=rng) for part in parts])

    def slots(self, parts: Tensor) -> Tensor:
        """The prior's condition for one concept: part tokens `[P, 16, D]`, at least 3 slots, `[16 S, D]`."""
        missing = max(0, MIN_SLOTS - len(parts))
        return torch.cat([parts, self.empty.expand(missing, -1, -1)]).flatten(0, 1)

    @torch.no_grad()
    def sample(
        self, conditions: Tensor, seed: int, *, guidance_scale: float, steps: int = 25, solver: str = "euler"
    ) -> Tensor:
        """One concept for each condition `[N, 16 S, D]`, concept i from seed + i: `[N, 16, D]`."""
        return sample_prior(
            self.prior, conditions, empty_tokens=self.empty, steps=steps, guidance_scale=guidance_scale,
            noise=concept_noise(seed, len(conditions), TOKEN_DIM), solver=solver,
        )

    @torch.no_grad()
    def render(
        self, tokens: Tensor, captions: list[str], seed: int, *, weight: float = 1.0, steps: int = 25,
        guidance_scale: float = 2.0, batch: int = 16, on_batch: Callable[[int], None] = lambda count: None,
    ) -> Tensor:
        """Render tokens `[N, T, D]` with captions: pictures `[N, 3, 128, 128]` in 0..1.

        Args:
            weight: of the image half of the cross-attention, as in **Apply IP+ Tokens**.
            on_batch: called with the number of pictures after each batch.
        """
        pictures = []
        for start in range(0, len(tokens), batch):
            chunk, words = tokens[start:start + batch], captions[start:start + batch]
            # A generator for each batch: its pictures do not depend on how many came before.
            generator = torch.Generator().manual_seed(seed + start)
            pictures.append(self.decode(self.denoise(chunk, words, generator, steps, guidance_scale, weight)))
            on_batch(len(chunk))
        return torch.cat(pictures)

    @torch.no_grad()
    def denoise(
        self, tokens: Tensor, captions: list[str], generator: torch.Generator, steps: int = 25,
        guidance_scale: float = 2.0, weight: float = 1.0,
    ) -> Tensor:
        """Unscaled latents `[N, 4, 16, 16]`, by the ancestral Euler sampler, as in the bundled workflow."""
        schedule = EulerAncestralDiscreteScheduler.from_config(noise_schedule(PREDICTION).config)
        schedule.set_timesteps(steps)
        latents = torch.randn(len(tokens), *LATENT_SHAPE, generator=generator) * schedule.init_noise_sigma
        # Both branches run as one batch, so the negative one needs as many tokens as the other.
        uncond = self.uncond.expand(len(tokens), -1, -1).repeat(1, tokens.shape[1] // TOKENS_PER_PICTURE, 1)
        both, words = torch.cat([tokens, uncond]), self.renderer.text(captions + [""] * len(captions))
        for time in schedule.timesteps:
            x = schedule.scale_model_input(torch.cat([latents, latents]), time)
            asked, unasked = self.renderer.predict(x, time.expand(len(x)), words, both, weight).chunk(2)
            guided = unasked + guidance_scale * (asked - unasked)
            latents = schedule.step(guided, time, latents, generator=generator).prev_sample
        return latents / LATENT_SCALE

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Unscaled latents `[N, 4, 16, 16]` to pictures `[N, 3, 128, 128]` in 0..1."""
        return (self.autoencoder.decode(latents).sample / 2 + 0.5).clamp(0, 1)

    @torch.no_grad()
    def reconstruct(self, pictures: list[Image.Image], batch: int = 32) -> Tensor:
        """What the autoencoder alone makes of pictures of 128 px, `[N, 3, 128, 128]` in 0..1."""
        chunks = (as_pictures(pictures) * 2 - 1).split(batch)
        return torch.cat([self.decode(self.autoencoder.encode(chunk).latent_dist.mean) for chunk in chunks])
