"""The creature models as ComfyUI's objects compute what was trained with diffusers and transformers.

Both sides hold the shipped fp16 weights and compute in float32, so that only the order of sums differs.
"""

import random

import pytest
import torch

from pit.demo.drawing.creature import SCENES, caption, sample_creature
from pit.demo.models.sizes import ENCODER_SIZE, LATENT_SCALE, PICTURE_SIZE, TEXT_LENGTH
from pit.demo.models.words import END, WORDS, token_ids

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
CAPTION = "a green round creature with red ram horns and blue bat wings in the sky"
CLOSE = 1e-4


@pytest.fixture(scope="module")
def chain():
    """The models in the classes that they were trained in."""
    from pit.demo.models.chain import CreatureChain

    return CreatureChain()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < CLOSE * expected.abs().max()
    assert expected.std() > 1e-3


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompt(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def captions(count):
    draws = (random.Random(f"caption {number}") for number in range(count))
    return [caption(sample_creature(draw, 0.0, scene=draw.choice(SCENES)), draw) for draw in draws]


def test_captions_become_the_ids_of_comfyuis_tokenizer(shipped):
    for text in ["", *captions(100), *WORDS]:
        words = shipped[1].tokenize(text)
        for encoder, padding in (("l", END), ("g", 0)):
            assert [token for token, _ in words[encoder][0]] == token_ids(text, TEXT_LENGTH, padding), text


@pytest.mark.parametrize("text", [CAPTION, "a creature", ""])
def test_text_becomes_the_same_context_and_pooled_vector(shipped, chain, text):
    context, pooled = chain.renderer.text([text])
    found = prompt(shipped[1], text)[0]
    assert_same(found[0], context)
    assert_same(found[1]["pooled_output"], pooled)


def test_pictures_become_the_same_latents_and_back(shipped, chain):
    pixels = drawn(2, 3, PICTURE_SIZE, PICTURE_SIZE).mul(0.3).tanh()
    latents = chain.autoencoder.encode(pixels).latent_dist.mean
    assert_same(shipped[2].encode((pixels.movedim(1, -1) + 1) / 2), latents)
    pictures = chain.autoencoder.decode(latents).sample
    assert_same(shipped[2].decode(latents), ((pictures + 1) / 2).clamp(0, 1).movedim(1, -1))


def test_pixels_become_the_same_features_and_tokens(inside, shipped, chain):
    _, _, _, clip_vision, ip_adapter, _ = shipped
    pixels = drawn(3, 3, ENCODER_SIZE, ENCODER_SIZE)
    features = chain.vision.features(pixels)
    assert_same(clip_vision.model(pixel_values=pixels, intermediate_output=-2)[1], features)
    tokens, uncond, _ = inside.nodes("encoding").encode_pixels(clip_vision, ip_adapter, pixels)
    assert_same(tokens, chain.resampler(features))
    assert_same(uncond, chain.uncond)


def test_the_stock_encoder_node_sees_the_same_features(shipped, chain):
    from pit.images import clip_pixel_values, to_pil

    pictures = drawn(2, ENCODER_SIZE, ENCODER_SIZE, 3).sigmoid()
    found = shipped[3].encode_image(pictures).penultimate_hidden_states
    expected = chain.vision.features(clip_pixel_values(to_pil(pictures), ENCODER_SIZE))
    assert (found - expected).abs().mean() < 0.01 * expected.abs().mean()  # its pixels are rounded elsewhere


@pytest.mark.parametrize("timestep", [999, 500, 20])
def test_the_unet_predicts_the_same_v_from_text_and_tokens(inside, shipped, chain, timestep):
    model, clip, _, _, ip_adapter, _ = shipped
    tokens, latents = inside.tokens(2, width=ip_adapter.token_dim), drawn(2, 4, 16, 16)
    context, extra = prompt(clip, CAPTION)[0]
    patched = inside.apply(model, ip_adapter, tokens)
    unet = patched.get_model_object("diffusion_model")
    options = inside.transformer_options(patched, latents, (0,))
    times = torch.full((2,), timestep)
    size = {"width": PICTURE_SIZE, "height": PICTURE_SIZE}
    adm = model.model.encode_adm(**extra, **size, device=latents.device)
    found = unet(latents, times, context.expand(2, -1, -1), adm.expand(2, -1), transformer_options=options)
    assert_same(found, chain.renderer(latents, times, [CAPTION] * 2, tokens.values))


def sampled_by_hand(renderer, noise, tokens, uncond, steps=4, guidance=3.0):
    """Euler steps down the trained noise schedule on its own v-prediction, as in Karras et al. 2022."""
    from pit.training.denoising import noise_schedule

    times = torch.linspace(999, 0, steps).round().long()
    kept = noise_schedule().alphas_cumprod[times]
    sigmas = [*((1 - kept) / kept).sqrt(), torch.tensor(0.0)]
    texts, both = [CAPTION] * len(noise) + [""] * len(noise), torch.cat([tokens, uncond.expand_as(tokens)])
    x = noise * (1 + sigmas[0] ** 2).sqrt()
    for time, sigma, following in zip(times, sigmas, sigmas[1:], strict=False):
        shrunk = x / (1 + sigma**2).sqrt()
        given, empty = renderer(shrunk.repeat(2, 1, 1, 1), time.expand(2 * len(x)), texts, both).chunk(2)
        v = empty + guidance * (given - empty)
        denoised = x / (1 + sigma**2) - v * sigma / (1 + sigma**2).sqrt()
        x = x + (x - denoised) / sigma * (following - sigma)
    return x / LATENT_SCALE


def test_the_sampler_draws_what_the_trained_model_draws(inside, shipped, chain):
    """Through ComfyUI's whole sampling: guidance, sizes, both branches, noise schedule, latent factor."""
    model, clip, _, _, ip_adapter, _ = shipped
    tokens, noise = inside.tokens(3, width=ip_adapter.token_dim), drawn(3, 4, 16, 16, seed=4)
    found = inside.comfy("sample").sample(
        inside.apply(model, ip_adapter, tokens), noise, 4, 3.0, "euler", "normal", prompt(clip, CAPTION),
        prompt(clip, ""), torch.zeros_like(noise))
    assert_same(found, sampled_by_hand(chain.renderer, noise, tokens.values, tokens.uncond))


def test_the_prior_is_the_shipped_one(shipped, chain):
    width = shipped[5].config.embedding_dim
    x, time, parts = drawn(2, 16, width), torch.tensor([0.3, 0.8]), drawn(2, 48, width, seed=1)
    assert_same(shipped[5].patcher.model(x, time, parts), chain.prior(x, time, parts))
