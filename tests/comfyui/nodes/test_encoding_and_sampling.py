"""Encode IP+ Parts, Encode IP+ Image and IP-Prior Sample with ComfyUI's own layers."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from PIL import Image

from tests.golden import assert_equal, number_in


def managed(inside, module, state, **sizes):
    """A module of the engine with the given weights, under ComfyUI's management."""
    return inside.pack("nodes.bridge.memory").managed(partial(module, **sizes), state)


@pytest.fixture(scope="module")
def clip_vision(inside):
    return inside.tiny.tiny_clip_vision()


@pytest.fixture(scope="module")
def ip_adapter(inside):
    return inside.ip_adapter()


@pytest.fixture(scope="module")
def prior(inside):
    return inside.prior()


@pytest.fixture
def encode_parts(inside, clip_vision, ip_adapter):
    """Runs Encode IP+ Parts; returns its PIT_PARTS and the pictures that it shows."""
    def run(*parts, placement="centred", seed=0, reference_slot=False, min_slots=3, reference=None):
        with torch.inference_mode():
            output = inside.nodes("parts").EncodeParts.execute(
                clip_vision, ip_adapter, {f"part{i}": part for i, part in enumerate(parts)}, placement, seed,
                0.0, reference_slot, min_slots, reference,
            )
        files = [inside.base / "temp" / shown["filename"] for shown in output.ui.as_dict()["images"]]
        return output.args[0], [Image.open(file) for file in files]

    return run


def picture(red, green, blue, height=8, width=6):
    return torch.tensor([red, green, blue]).expand(1, height, width, 3).float()


def test_encoding_equals_the_published_one(inside, golden):
    """CLIP's penultimate states, the resampler, and the all-zero pixels of the negative branch."""
    sizes, io = golden.facts("pit_tiny_config"), golden.below("pit_tiny_clip", "io.")
    config = {"model_type": "clip_vision_model", "num_channels": io["pixel_values"].shape[1], **sizes["clip"]}
    vision = inside.comfy("clip_vision").ClipVisionModel(config)
    vision.load_sd(golden.below("pit_tiny_clip", "clip."))
    resampler = managed(
        inside, inside.pack("pit.ip_adapter.resampler").Resampler,
        golden.below("pit_tiny_state", "image_proj."), **sizes["res"],
    )
    adapter = inside.nodes("types").ManagedIPAdapter("golden", resampler, resampler=resampler)
    with torch.inference_mode():
        encode_pixels = inside.nodes("encoding").encode_pixels
        tokens, uncond, _ = encode_pixels(vision, adapter, io["pixel_values"].float())
    assert_equal(tokens, io["tokens"])
    assert_equal(uncond, io["uncond_tokens"])


@pytest.mark.golden_keys("pit_tiny_io", r"sample\.out_cpu_seed.+")
def test_sampling_equals_the_published_one(inside, golden, key):
    sizes, given = golden.facts("pit_tiny_config")["dit"], golden.below("pit_tiny_io", "sample.")
    state = golden.below("pit_tiny_state", "prior.")
    names = {"num_layers": sizes["n_layers"], "num_heads": sizes["n_heads"]}
    names |= {name: sizes[name] for name in ("embedding_dim", "hidden_dim")}
    names["feed_forward_dim"] = len(state["layers.0.feed_forward.w1.weight"])
    config = inside.engine("prior_files").PriorConfig(**names)
    patcher = managed(inside, inside.engine("prior").IPPrior, state, **names)
    empty = given["empty_tokens"]
    slots = given["cond"][0].unflatten(0, (-1, empty.shape[1]))
    parts = inside.engine("slots").Parts(slots, empty, empty, source="golden")
    prior = inside.nodes("types").ManagedPrior("golden", patcher, config)
    settings = int(number_in(key, "seed")), 1, int(number_in(key, "steps", 25)), number_in(key, "g")
    with torch.inference_mode():
        tokens = inside.nodes("prior").SamplePrior.execute(prior, parts, *settings, "euler", 0.6).args[0]
    assert_equal(tokens.values, given[key.removeprefix("sample.")])
    assert tokens.uncond is parts.uncond


def test_a_prior_refuses_the_tokens_of_another_adapter(inside, encode_parts):
    parts, _ = encode_parts(picture(1, 0, 0))
    config = inside.engine("prior_files").PriorConfig(parts.width, 32, 1, 2, 64, adapter="0123")
    prior = inside.nodes("types").ManagedPrior("a prior", None, config)
    sample, settings = inside.nodes("prior").SamplePrior.execute, (0, 1, 1, 1.0, "euler", 0.6)
    with pytest.raises(ValueError, match=f"a prior was trained with .0123.*{parts.adapter}.*ip_adapter.saf"):
        sample(prior, parts, *settings)
    Tokens = inside.pack("pit.concepts.tokens").Tokens
    tokens = Tokens(parts.empty, parts.uncond, source="a file", adapter="4567")
    with pytest.raises(ValueError, match=r"0123.*4567.*from a file. Connect"):
        sample(prior, replace(parts, adapter=""), *settings, start=tokens)


def test_parts_of_any_kind_become_slots_in_order(encode_parts):
    grey, rgba = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, 9, 4, 4)
    batch = torch.cat([picture(1, 0, 0), picture(0, 1, 0)])
    parts, shown = encode_parts(picture(0, 0, 1, 300, 100), batch, grey, rgba)
    assert parts.slots.shape == (5, 16, 96)
    assert [image.getpixel((14, 14)) for image in shown] == [
        (0, 0, 255), (255, 0, 0), (0, 255, 0), (128, 128, 128), (255, 255, 255),
    ]
    assert all(image.size == (28, 28) for image in shown)
    assert parts.source == "Encode IP+ Parts with ip_adapter.safetensors"


def test_missing_slots_are_white_and_hold_the_empty_tokens(encode_parts):
    parts, shown = encode_parts(picture(1, 0, 0), min_slots=4, reference_slot=True)
    assert [image.getextrema() == ((255, 255),) * 3 for image in shown] == [True, False, True, True]
    for slot in (0, 2, 3):
        torch.testing.assert_close(parts.slots[slot], parts.empty[0])
    plain, _ = encode_parts(picture(1, 0, 0))
    torch.testing.assert_close(plain.empty, parts.empty)
    assert (parts.slots[1] - parts.empty[0]).abs().max() > 0.01
    assert (parts.uncond - parts.empty).abs().max() > 0.01


def test_reference_images_take_the_first_slot(encode_parts):
    _, shown = encode_parts(picture(1, 0, 0), reference=picture(0, 0, 1))
    assert shown[0].getextrema() == ((0, 0), (0, 0), (255, 255))
    assert shown[1].getpixel((14, 14)) == (255, 0, 0)
    _, shown = encode_parts(picture(1, 0, 0), reference=picture(0, 0, 1).expand(4, -1, -1, -1))
    assert shown[0].getextrema() == ((0, 0), (0, 0), (255, 255))


def test_the_seed_decides_the_random_places(encode_parts):
    first, _ = encode_parts(picture(1, 0, 0), placement="random", seed=1)
    again, _ = encode_parts(picture(1, 0, 0), placement="random", seed=1)
    other, _ = encode_parts(picture(1, 0, 0), placement="random", seed=2)
    assert torch.equal(first.slots, again.slots)
    assert not torch.equal(first.slots, other.slots)


def test_more_pictures_than_fit_at_once_are_the_same_as_one_by_one(inside, encode_parts):
    count = inside.nodes("encoding").PICTURES_AT_ONCE + 2
    colours = torch.rand(count, 1, 1, 3, generator=torch.Generator().manual_seed(4)).expand(-1, 5, 5, -1)
    together, _ = encode_parts(colours)
    for number in (0, count - 1):
        alone, _ = encode_parts(colours[number:number + 1])
        torch.testing.assert_close(together.slots[number], alone.slots[0], rtol=1e-4, atol=1e-5)


def test_each_picture_gives_one_set_of_tokens(inside, clip_vision, ip_adapter):
    encode = partial(inside.nodes("parts").EncodeImage.execute, clip_vision, ip_adapter)
    transparent = torch.cat([picture(1, 0, 0), torch.zeros(1, 8, 6, 1)], dim=-1)
    with torch.inference_mode():
        tokens = encode(torch.cat([picture(1, 0, 0), picture(1, 1, 1)])).args[0]
        assert tokens.values.shape == (2, 16, 96)
        torch.testing.assert_close(encode(transparent).args[0].values, tokens.values[1:])


def test_a_file_in_half_precision_stays_so_in_memory_and_computes_in_single(inside, clip_vision, ip_adapter):
    encode, half = inside.nodes("parts").EncodeImage.execute, inside.ip_adapter(torch.float16)
    weights = [*half.resampler.model.parameters(), *half.cross_attention.model.parameters()]
    assert {weight.dtype for weight in weights} == {torch.float16}
    with torch.inference_mode():
        found = encode(clip_vision, half, picture(1, 0, 0)).args[0].values
        expected = encode(clip_vision, ip_adapter, picture(1, 0, 0)).args[0].values
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_an_encoder_of_another_width_is_refused_with_both_widths(inside, ip_adapter):
    wide = inside.tiny.tiny_clip_vision(width=128)
    with pytest.raises(ValueError, match="width 64 .*, got a clip_vision_model of width 128.*CLIP-ViT-H"):
        inside.nodes("parts").EncodeImage.execute(wide, ip_adapter, picture(0, 0, 0))


@pytest.fixture
def sample(inside, prior, encode_parts):
    parts, _ = encode_parts(picture(1, 0, 0))

    def run(seed=0, concepts=1, steps=4, guidance=2.0, solver="euler", strength=0.6, start=None):
        node = inside.nodes("prior").SamplePrior
        with torch.inference_mode():
            output = node.execute(prior, parts, seed, concepts, steps, guidance, solver, strength, start)
        return output.args[0]

    return run


def test_concept_number_i_is_the_one_that_its_own_seed_draws(sample):
    together = sample(seed=5, concepts=3).values
    assert together.shape == (3, 16, 96)
    for number in range(3):
        torch.testing.assert_close(together[number], sample(seed=5 + number).values[0], rtol=1e-4, atol=1e-5)


def test_start_is_kept_varied_or_ignored_by_strength(inside, sample):
    start = inside.tokens(1)
    assert torch.equal(sample(concepts=2, start=start, strength=0.0).values, start.values.expand(2, -1, -1))
    assert torch.equal(sample(start=start, strength=1.0).values, sample().values)
    kept, varied = sample(start=start, strength=0.25).values, sample(start=start, strength=0.75).values
    assert (kept - start.values).square().mean() < (varied - start.values).square().mean()


def test_start_must_be_one_set_or_one_for_each(inside, sample):
    assert sample(concepts=2, start=inside.tokens(2)).values.shape[0] == 2
    with pytest.raises(ValueError, match="each of 3 concepts; got 2 sets"):
        sample(concepts=3, start=inside.tokens(2))


def test_tokens_of_another_width_are_refused_with_both_widths_and_their_source(inside, sample, prior):
    with pytest.raises(ValueError, match="prior.ckpt expected .* 96, got width 48 from the tokens of a"):
        sample(start=inside.tokens(1, width=48))


def test_a_cancelled_run_ends_where_it_reports_progress(inside):
    management = inside.comfy("model_management")
    done = inside.pack("nodes.bridge.feedback").progress_bar()
    done(1, 3)
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        done(2, 3)


def test_cancelling_ends_the_sampling_at_the_next_step(inside, sample):
    management = inside.comfy("model_management")
    steps = []
    utils = inside.comfy("utils")
    utils.set_progress_bar_global_hook(
        lambda value, total, *_, **__: (steps.append(value), management.interrupt_current_processing())
    )
    try:
        with pytest.raises(management.InterruptProcessingException):
            sample(steps=1000)
    finally:
        utils.set_progress_bar_global_hook(None)
        management.interrupt_current_processing(False)
    assert steps == [1]
