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
from ...ip_adapter.base_files import read_base_adapter
from ...ip_adapter.files import load_ip_adapter
from ...piece_it_together.parts import MIN_SLOTS, place_part
from ...piece_it_together.prior_files import load_prior
from ...piece_it_together.sample import concept_noise, sample_prior
from ...training.denoising import noise_schedule
from .autoencoder import CreatureAutoencoder
from .loading import load_creature_autoencoder, load_creature_vision
from .reader import as_pictures
from .sizes import ENCODER_SIZE, LATENT_CHANNELS, LATENT_SIZE, TOKEN_DIM, TOKENS_PER_PICTURE
from .unet import PREDICTION, Renderer, TextRenderer
from .weights import (
    BASE_ADAPTER,
    IP_ADAPTER,
    IP_PRIOR,
    RENDERER,
    SD15,
    float_weights,
    weight_file,
    with_prefix,
)

LATENT_SHAPE = (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)
GUIDANCE, TEXT_GUIDANCE = 2.0, 3.0  # of the renderer, and of the base of SD 1.5's structure
Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
OnBatch = Callable[[int], None]


def ignore(count: int) -> None:
    """Do nothing with a number of pictures."""


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
        adapter = load_ip_adapter(weight_file(IP_ADAPTER)).float()
        self.vision, self.resampler = load_creature_vision(), adapter.resampler
        self.renderer, self.autoencoder = load_renderer(), load_creature_autoencoder()
        self.renderer.image.load_state_dict(adapter.cross_attention.state_dict())
        self.prior = load_prior(weight_file(IP_PRIOR)).float()
        self.text_renderer = load_text_renderer()
        for model in (self.resampler, self.renderer, self.prior, self.text_renderer):
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

    @torch.no_grad()
    def embed(self, pictures: list[Image.Image], batch: int = 128) -> Tensor:
        """One embedding for each picture, `[N, 256]`."""
        chunks = (pictures[start:start + batch] for start in range(0, len(pictures), batch))
        return torch.cat([self.vision.embed(clip_pixel_values(chunk, ENCODER_SIZE)) for chunk in chunks])

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

    def render(
        self, tokens: Tensor, captions: list[str], seed: int, *, weight: float = 1.0, steps: int = 25,
        guidance_scale: float = GUIDANCE, batch: int = 16, on_batch: OnBatch = ignore,
    ) -> Tensor:
        """Render tokens `[N, T, D]` with captions: pictures `[N, 3, 256, 256]` in 0..1.

        Args:
            weight: of the image half of the cross-attention, as in **Apply IP+ Tokens**.
            on_batch: called with the number of pictures after each batch.
        """
        def draw(rows: slice, generator: torch.Generator) -> Tensor:
            return self.denoise(tokens[rows], captions[rows], generator, steps, guidance_scale, weight)

        return in_batches(self.autoencoder, len(tokens), seed, batch, draw, on_batch)

    def render_embeddings(
        self, embeddings: Tensor, captions: list[str], seed: int, *, steps: int = 25,
        guidance_scale: float = GUIDANCE, batch: int = 16, on_batch: OnBatch = ignore,
    ) -> Tensor:
        """Render embeddings `[N, 256]` by the base IP-Adapter: pictures `[N, 3, 256, 256]` in 0..1.

        Several for each picture, `[N, K, 256]`, stand side by side as tokens.
        """
        def draw(rows: slice, generator: torch.Generator) -> Tensor:
            return self.denoise_embeddings(embeddings[rows], captions[rows], generator, steps, guidance_scale)

        return in_batches(self.autoencoder, len(embeddings), seed, batch, draw, on_batch)

    def render_words(
        self, captions: list[str], seed: int, *, steps: int = 25, guidance_scale: float = TEXT_GUIDANCE,
        batch: int = 16, on_batch: OnBatch = ignore,
    ) -> Tensor:
        """Render captions by the base of SD 1.5's structure: pictures `[N, 3, 256, 256]` in 0..1."""
        def draw(rows: slice, generator: torch.Generator) -> Tensor:
            context = self.text_renderer.text(captions[rows] + [""] * len(captions[rows]))

            def predict(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
                return self.text_renderer.predict(x, time, context).chunk(2)

            return ancestral(predict, len(captions[rows]), generator, steps, guidance_scale, "epsilon")

        return in_batches(self.autoencoder, len(captions), seed, batch, draw, on_batch)

    @torch.no_grad()
    def denoise(
        self, tokens: Tensor, captions: list[str], generator: torch.Generator, steps: int = 25,
        guidance_scale: float = GUIDANCE, weight: float = 1.0,
    ) -> Tensor:
        """Latents `[N, 12, 16, 16]` of tokens, by the ancestral Euler sampler, as in the bundled workflow."""
        # Both branches run as one batch, so the negative one needs as many tokens as the other.
        uncond = self.uncond.expand(len(tokens), -1, -1).repeat(1, tokens.shape[1] // TOKENS_PER_PICTURE, 1)
        both, words = torch.cat([tokens, uncond]), self.renderer.text(captions + [""] * len(captions))

        def predict(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            return self.renderer.predict(x, time, words, both, image_weight=weight).chunk(2)

        return ancestral(predict, len(tokens), generator, steps, guidance_scale, PREDICTION)

    @torch.no_grad()
    def denoise_embeddings(
        self, embeddings: Tensor, captions: list[str], generator: torch.Generator, steps: int = 25,
        guidance_scale: float = GUIDANCE,
    ) -> Tensor:
        """Latents `[N, 12, 16, 16]` of embeddings `[N, 256]` or `[N, K, 256]`.

        Zeros are the negative ones, as published.
        """
        both = self.renderer.base_projection(torch.cat([embeddings, torch.zeros_like(embeddings)]))
        both = both.flatten(1, -2)  # the tokens of several embeddings, one after another
        words = self.renderer.text(captions + [""] * len(captions))

        def predict(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
            return self.renderer.predict(x, time, words, base_tokens=both).chunk(2)

        return ancestral(predict, len(embeddings), generator, steps, guidance_scale, PREDICTION)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[N, 12, 16, 16]` to pictures `[N, 3, 256, 256]` in 0..1."""
        return self.autoencoder.pictures(latents)

    @torch.no_grad()
    def reconstruct(self, pictures: list[Image.Image], batch: int = 32) -> Tensor:
        """What the autoencoder alone makes of pictures of 256 px, `[N, 3, 256, 256]` in 0..1."""
        chunks = (as_pictures(pictures) * 2 - 1).split(batch)
        return torch.cat([self.decode(self.autoencoder.encode(chunk)) for chunk in chunks])


@torch.no_grad()
def in_batches(
    autoencoder: CreatureAutoencoder, count: int, seed: int, batch: int,
    draw: Callable[[slice, torch.Generator], Tensor], on_batch: OnBatch,
) -> Tensor:
    """Pictures `[N, 3, 256, 256]` in 0..1, of latents that are drawn a few at a time.

    Args:
        count, batch: how many pictures in all, and at once.
        draw: latents of some of them, with a generator for all that is random.
        on_batch: called with the number of pictures after each batch.
    """
    pictures = []
    for start in range(0, count, batch):
        # A generator for each batch: its pictures do not depend on how many came before.
        generator = torch.Generator().manual_seed(seed + start)
        pictures.append(autoencoder.pictures(draw(slice(start, start + batch), generator)))
        on_batch(len(pictures[-1]))
    return torch.cat(pictures)


def load_renderer() -> Renderer:
    """The renderer with its base adapter; its other adapter has random weights still."""
    state, base = float_weights(RENDERER), read_base_adapter(weight_file(BASE_ADAPTER))
    renderer = Renderer()
    renderer.unet.load_state_dict(with_prefix(state, "unet."))
    renderer.text.load_comfyui_state(state)
    renderer.base_projection.load_state_dict(base.projection_state)
    renderer.base_image.load_state_dict(base.cross_attention_state)
    return renderer


def load_text_renderer() -> TextRenderer:
    """The base of SD 1.5's structure."""
    state, base = float_weights(SD15), TextRenderer()
    base.unet.load_state_dict(with_prefix(state, "unet."))
    base.text.load_comfyui_state(state)
    return base


def ancestral(
    predict: Predict, count: int, generator: torch.Generator, steps: int, guidance_scale: float,
    prediction: str,
) -> Tensor:
    """Latents `[count, 12, 16, 16]` by the ancestral Euler sampler.

    Args:
        predict: noisy latents of both branches `[2 * count, 12, 16, 16]` and their timesteps to what is
            predicted with and without the condition.
    """
    config = noise_schedule(prediction, zero_snr=prediction == PREDICTION).config
    schedule = EulerAncestralDiscreteScheduler.from_config(config)
    schedule.set_timesteps(steps)
    latents = torch.randn(count, *LATENT_SHAPE, generator=generator) * schedule.init_noise_sigma
    for time in schedule.timesteps:
        x = schedule.scale_model_input(torch.cat([latents, latents]), time)
        asked, unasked = predict(x, time.expand(len(x)))
        guided = unasked + guidance_scale * (asked - unasked)
        latents = schedule.step(guided, time, latents, generator=generator).prev_sample
    return latents
