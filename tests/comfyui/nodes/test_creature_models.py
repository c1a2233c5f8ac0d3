"""The creature models as ComfyUI's objects compute what was trained with diffusers and transformers.

Both sides hold the shipped fp16 weights and compute in float32, so that only the order of sums differs.
"""

import random

import pytest
import torch

from pit.demo.drawing.captions import caption
from pit.demo.drawing.composition import compose
from pit.demo.drawing.creature import sample_creature
from pit.demo.drawing.scenes import SCENE_NAMES
from pit.demo.drawing.things import sample_thing
from pit.demo.models.sizes import (
    EMBEDDING_DIM,
    ENCODER_SIZE,
    LATENT_CHANNELS,
    LATENT_SIZE,
    PICTURE_SIZE,
    TEXT_G,
    TEXT_LENGTH,
    TOKEN_DIM,
)
from pit.demo.models.words import END, WORDS, token_ids

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
CAPTION = "a green round creature with red ram horns and blue bat wings in the sky"
CLOSE = 1e-4
LATENT = (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)


@pytest.fixture(scope="module")
def chain():
    """The models in the classes that they were trained in."""
    from pit.demo.models.chain import CreatureChain

    return CreatureChain()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def assert_same(found, expected, close=CLOSE):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < close * expected.abs().max()
    assert expected.std() > 1e-3


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def prompt(clip, text):
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def captions(count):
    for number in range(count):
        rng = random.Random(f"caption {number}")
        things = [sample_thing(rng) for _ in range(rng.randint(0, 2))]
        creature = sample_creature(rng, 0.0) if rng.random() < 0.8 else None
        yield caption(compose(creature, things, scene=rng.choice(SCENE_NAMES), rng=rng), rng)


# Words --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("text", [CAPTION, "a red ball", ""])
def test_text_becomes_the_same_context_for_the_base_like_sd15(creature_sd15, chain, text):
    assert_same(prompt(creature_sd15[1], text)[0][0], chain.text_renderer.text([text]))


# Pictures and latents -----------------------------------------------------------------------------------


def test_pictures_become_the_same_latents_and_back(shipped, creature_sd15, chain):
    pixels = drawn(2, 3, PICTURE_SIZE, PICTURE_SIZE).mul(0.3).tanh()
    latents = chain.autoencoder.encode(pixels)
    assert latents.shape[1:] == LATENT
    for vae in (shipped[2], creature_sd15[2]):
        assert_same(vae.encode((pixels.movedim(1, -1) + 1) / 2), latents)
        assert_same(vae.decode(latents), chain.decode(latents).movedim(1, -1))


def test_pictures_of_other_sizes_and_with_alpha_have_latents(shipped):
    picture = drawn(1, 70, 100, 4).sigmoid()
    latents = shipped[2].encode(picture)
    assert latents.shape == (1, LATENT_CHANNELS, 4, 6)
    assert torch.equal(latents, shipped[2].encode(picture[:, 3:67, 2:98, :3]))
    assert shipped[2].decode(latents).shape == (1, 64, 96, 3)


def test_the_vae_tells_comfyui_its_sizes(shipped):
    vae = shipped[2]
    assert vae.spacial_compression_encode() == vae.spacial_compression_decode() == 16
    assert vae.latent_channels == LATENT_CHANNELS
    assert vae.model_size() == sum(weight.nbytes for weight in vae.get_sd().values())
    assert vae.patcher.model is vae.first_stage_model
    one, four = (vae.memory_used_decode((1, LATENT_CHANNELS, side, side), torch.float32) for side in (16, 32))
    assert 2**24 < one < 2**28 and four == 4 * one
    assert vae.memory_used_encode((1, 3, 256, 256), torch.float32) < one


def test_tiles_join_to_nearly_the_whole_picture(shipped, chain):
    """Not exactly: a tile does not see, and does not normalize by, what lies beyond it."""
    latents = drawn(1, LATENT_CHANNELS, 32, 32)
    whole = shipped[2].decode(latents)
    tiled = shipped[2].decode_tiled(latents, tile_x=16, tile_y=16, overlap=4)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.3 * whole.std()
    picture = drawn(1, 512, 512, 3).sigmoid()
    whole, tiled = shipped[2].encode(picture), shipped[2].encode_tiled(picture, 256, 256, 64)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.3 * whole.std()


def test_a_full_memory_is_answered_by_tiles(shipped, monkeypatch):
    vae, latents = shipped[2], drawn(1, LATENT_CHANNELS, 16, 16)
    plain, whole, asked = vae.first_stage_model.decode, vae.decode(latents), []

    def decode(latents):
        asked.append(latents.shape)
        if len(asked) == 1:
            raise torch.OutOfMemoryError("full")
        return plain(latents)

    monkeypatch.setattr(vae.first_stage_model, "decode", decode)
    assert_same(vae.decode(latents), whole)
    assert len(asked) > 1


# Encoded pictures ---------------------------------------------------------------------------------------


def test_pixels_become_the_same_features_and_tokens(inside, shipped, chain):
    clip_vision, ip_adapter = shipped[3:5]
    pixels = drawn(3, 3, ENCODER_SIZE, ENCODER_SIZE)
    features = chain.vision.features(pixels)
    assert_same(clip_vision.model(pixel_values=pixels, intermediate_output=-2)[1], features)
    tokens, uncond, _ = inside.nodes("encoding").encode_pixels(clip_vision, ip_adapter, pixels)
    assert_same(tokens, chain.resampler(features))
    assert_same(uncond, chain.uncond)


def test_the_stock_encoder_node_sees_the_same_features_and_embedding(shipped, chain):
    from pit.images import clip_pixel_values, to_pil

    pictures = drawn(2, ENCODER_SIZE, ENCODER_SIZE, 3).sigmoid()
    pixels, found = clip_pixel_values(to_pil(pictures), ENCODER_SIZE), shipped[3].encode_image(pictures)
    for seen, expected in (
        (found.penultimate_hidden_states, chain.vision.features(pixels)),
        (found.image_embeds, chain.vision.embed(pixels)),
    ):
        assert seen.shape == expected.shape
        # Its pixels are rounded elsewhere.
        assert (seen - expected).abs().mean() < 0.01 * expected.abs().mean()
    assert found.mm_projected is None


@pytest.fixture
def embedding(inside, shipped):
    """Embeddings of three pictures, and the pictures."""
    pictures = drawn(3, PICTURE_SIZE, PICTURE_SIZE, 3).sigmoid()
    node = inside.pack("nodes.pops.embeddings").EncodeEmbedding
    return node.execute(shipped[3], pictures, "squashed").args[0], pictures


@pytest.fixture
def base_tokens(inside, shipped, embedding):
    node = inside.pack("nodes.pops.tokens").EmbeddingToTokens
    return node.execute(embedding[0], shipped[6]).args[0]


def test_pictures_become_the_same_embeddings(embedding, chain):
    from pit.images import to_pil
    from pit.pops.embeddings import pixel_values

    found, pictures = embedding
    pixels = pixel_values(to_pil(pictures), "squashed", ENCODER_SIZE)
    assert_same(found.values, chain.vision.embed(pixels))
    assert_same(found.negative, chain.vision.embed(torch.zeros_like(pixels[:1])))
    assert found.values.shape == (3, EMBEDDING_DIM)


def test_embeddings_become_the_same_tokens(shipped, embedding, base_tokens, chain):
    assert_same(base_tokens.values, chain.renderer.base_projection(embedding[0].values))
    assert_same(base_tokens.uncond, chain.renderer.base_projection(torch.zeros(1, EMBEDDING_DIM)))
    assert base_tokens.values.shape == (3, 4, TOKEN_DIM)
    assert shipped[6].embedding_dim == EMBEDDING_DIM


def test_the_two_adapters_are_not_taken_for_each_other(inside, shipped, embedding, base_tokens):
    with pytest.raises(ValueError, match="base IP-Adapter, .*creature_ip_adapter.safetensors"):
        inside.pack("nodes.pops.tokens").EmbeddingToTokens.execute(embedding[0], shipped[4])
    with pytest.raises(ValueError, match="creature_base_adapter.safetensors"):
        inside.nodes("parts").EncodeImage.execute(shipped[3], shipped[6], embedding[1])
    with pytest.raises(ValueError):
        inside.apply(shipped[0], shipped[4], base_tokens)


# The UNets ----------------------------------------------------------------------------------------------


def predicted(inside, model, text, latents, timestep, **size):
    """What the UNet of a MODEL says, with the patches of its IP-Adapter."""
    context, extra = text
    options = inside.transformer_options(model, latents, (0,))
    unet, count = model.get_model_object("diffusion_model"), len(latents)
    more = {}
    if size:
        adm = model.model.encode_adm(**extra, **size, device=latents.device)
        more = {"y": adm.expand(count, -1)}
    times = torch.full((count,), timestep)
    return unet(latents, times, context.expand(count, -1, -1), transformer_options=options, **more)


@pytest.mark.parametrize("timestep", [999, 500, 20])
def test_the_unet_predicts_the_same_v_from_text_and_tokens(inside, shipped, chain, timestep):
    model, clip, _, _, ip_adapter = shipped[:5]
    tokens, latents = inside.tokens(2, width=TOKEN_DIM), drawn(2, *LATENT)
    patched = inside.apply(model, ip_adapter, tokens)
    size = {"width": PICTURE_SIZE, "height": PICTURE_SIZE}
    found = predicted(inside, patched, prompt(clip, CAPTION)[0], latents, timestep, **size)
    words, times = chain.renderer.text([CAPTION] * 2), torch.full((2,), timestep)
    assert_same(found, chain.renderer.predict(latents, times, words, tokens.values))
    assert not torch.allclose(found, chain.renderer.predict(latents, times, words, 0 * tokens.values))


def test_the_unet_predicts_the_same_v_from_embeddings(inside, shipped, chain, embedding, base_tokens):
    latents = drawn(3, *LATENT)
    patched = inside.apply(shipped[0], shipped[6], base_tokens)
    size = {"width": PICTURE_SIZE, "height": PICTURE_SIZE}
    found = predicted(inside, patched, prompt(shipped[1], CAPTION)[0], latents, 500, **size)
    tokens = chain.renderer.base_projection(embedding[0].values)
    words, times = chain.renderer.text([CAPTION] * 3), torch.full((3,), 500)
    assert_same(found, chain.renderer.predict(latents, times, words, base_tokens=tokens))


@pytest.mark.parametrize("timestep", [999, 500, 20])
def test_the_base_like_sd15_predicts_the_same_noise(inside, creature_sd15, chain, timestep):
    latents = drawn(2, *LATENT)
    found = predicted(inside, creature_sd15[0], prompt(creature_sd15[1], CAPTION)[0], latents, timestep)
    context, times = chain.text_renderer.text([CAPTION] * 2), torch.full((2,), timestep)
    assert_same(found, chain.text_renderer.predict(latents, times, context))


def test_the_unet_is_told_the_size_of_the_picture_unless_a_node_says_another(shipped):
    noise = torch.zeros(1, LATENT_CHANNELS, 16, 20)

    def told(**given):
        pooled = torch.zeros(1, TEXT_G["hidden_size"])
        return shipped[0].model.encode_adm(pooled_output=pooled, device=noise.device, **given)

    filled_in, said = {"width": 8 * 20, "height": 8 * 16}, {"width": 1024, "height": 768}
    assert torch.equal(told(noise=noise, **filled_in), told(width=320, height=256))
    assert torch.equal(told(noise=noise, **said), told(**said))


def test_the_models_tell_comfyui_what_they_predict(inside, shipped, creature_sd15):
    sampling = inside.comfy("model_sampling")
    models = shipped[0], creature_sd15[0]
    by_v, by_noise = (model.get_model_object("model_sampling") for model in models)
    assert isinstance(by_v, sampling.V_PREDICTION) and by_v.zsnr
    assert not isinstance(by_noise, sampling.V_PREDICTION) and not by_noise.zsnr
    for model in models:
        assert model.model.latent_format.latent_channels == LATENT_CHANNELS
        assert model.model.latent_format.spacial_downscale_ratio == 16
        assert not model.model.concat_keys  # as models have that inpaint


# Sampling -----------------------------------------------------------------------------------------------


def sampled_by_hand(predict, noise, schedule, guidance=3.0, steps=4):
    """Euler steps down the trained noise schedule on the model's own prediction, as in Karras et al. 2022.

    Args:
        predict: noisy latents of both branches and their timesteps -> what the model says of both.
    """
    times = torch.linspace(999, 0, steps).round().long()
    # At the last time nothing is left of the picture, by which one cannot divide: ComfyUI leaves this much.
    kept = schedule.alphas_cumprod.double()[times].clamp(min=4.8973451890853435e-08)
    sigmas = [*((1 - kept) / kept).sqrt(), torch.tensor(0.0)]
    velocity = schedule.config.prediction_type == "v_prediction"
    x = noise.double() * (1 + sigmas[0] ** 2).sqrt()
    for time, sigma, following in zip(times, sigmas, sigmas[1:], strict=False):
        shrunk = (x / (1 + sigma**2).sqrt()).float()
        given, empty = predict(shrunk.repeat(2, 1, 1, 1), time.expand(2 * len(x))).double().chunk(2)
        said = empty + guidance * (given - empty)
        if velocity:
            denoised = x / (1 + sigma**2) - said * sigma / (1 + sigma**2).sqrt()
        else:
            denoised = x - said * sigma
        x = x + (x - denoised) / sigma * (following - sigma)
    return x.float()


def test_the_sampler_draws_what_the_trained_model_draws(inside, shipped, chain):
    """Through ComfyUI's whole sampling: guidance, sizes, both branches, noise schedule, latent format."""
    from pit.training.denoising import noise_schedule

    model, clip, _, _, ip_adapter = shipped[:5]
    tokens, noise = inside.tokens(3, width=TOKEN_DIM), drawn(3, *LATENT, seed=4)
    found = inside.comfy("sample").sample(
        inside.apply(model, ip_adapter, tokens), noise, 4, 3.0, "euler", "normal", prompt(clip, CAPTION),
        prompt(clip, ""), torch.zeros_like(noise))
    words = chain.renderer.text([CAPTION] * 3 + [""] * 3)
    both = torch.cat([tokens.values, tokens.uncond.expand_as(tokens.values)])
    expected = sampled_by_hand(
        lambda x, times: chain.renderer.predict(x, times, words, both), noise,
        noise_schedule("v_prediction", zero_snr=True),
    )
    # The first noise is thousands of times as large as the picture, and ComfyUI's steps are in float32.
    assert_same(found, expected, close=2e-3)


def test_the_sampler_draws_what_the_base_like_sd15_draws(inside, creature_sd15, chain):
    from pit.training.denoising import noise_schedule

    model, clip, _ = creature_sd15
    noise = drawn(3, *LATENT, seed=4)
    found = inside.comfy("sample").sample(
        model, noise, 4, 3.0, "euler", "normal", prompt(clip, CAPTION), prompt(clip, ""),
        torch.zeros_like(noise))
    context = chain.text_renderer.text([CAPTION] * 3 + [""] * 3)
    expected = sampled_by_hand(
        lambda x, times: chain.text_renderer.predict(x, times, context), noise, noise_schedule()
    )
    assert_same(found, expected, close=1e-3)


def test_the_prior_is_the_shipped_one(shipped, chain):
    width = shipped[5].config.embedding_dim
    x, time, parts = drawn(2, 16, width), torch.tensor([0.3, 0.8]), drawn(2, 48, width, seed=1)
    assert_same(shipped[5].patcher.model(x, time, parts), chain.prior(x, time, parts))
