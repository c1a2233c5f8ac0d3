"""Part Attention: the published maps, in any size, and nothing for those who do not ask."""
from __future__ import annotations

import pytest
import torch

from tests.comfyui.nodes.partcraft.shared import IO, nodes
from tests.golden import relative_error

ROUNDED = 2e-3  # as the UNet's output with its LoRA, see golden/README.md


def record(inside, model, context, places, level):
    maps = nodes(inside, "attention").RecordedMaps(context, places, level)
    return nodes(inside, "attention").watched_model(model, maps), maps


def call(inside, model, maps, x, times, context):
    """The UNet within the wrapper of a model call."""
    inside.comfy("model_management").load_models_gpu([model])
    options = model.model_options["transformer_options"]

    def unet(x, times, _, context, control, options):
        return model.model.diffusion_model(x, times, context=context, transformer_options=options)

    executor = inside.comfy("patcher_extension").WrapperExecutor.new_executor(unet, [maps.call])
    with torch.inference_mode():
        return executor.execute(x, times, None, context, None, options)


@pytest.mark.parametrize("row", [0, 1])
def test_the_maps_are_the_published_ones(inside, golden, applied, row):
    io = golden.below(IO, "unet/")
    words = {f"<part0:{place}>": [place] for place in range(77)}
    side = io["avg_attn_map"].shape[1]
    level = io["sample"].shape[-1] // side
    model, maps = record(inside, applied[0], io["encoder"][row:row + 1], words, level)
    found = call(inside, model, maps, io["sample"], io["timesteps"].float(), io["encoder"])
    assert relative_error(found, io["out"]) < ROUNDED
    assert maps.found().shape == (1, 77, side, side)
    assert relative_error(maps.found()[0].movedim(0, -1), io["avg_attn_map"][row]) < ROUNDED


@pytest.mark.parametrize("height, width, level, grid", [
    (64, 64, 4, (2, 2)), (64, 96, 2, (4, 6)), (128, 72, 4, (4, 3)), (88, 120, 1, (11, 15)),
])
def test_a_sampling_gives_masks_of_any_size(inside, applied, encode, height, width, level, grid):
    attention = nodes(inside, "attention")
    positive = encode(applied[1], "a <part2:3> and <part0:1>, <part2:3>")
    negative = encode(applied[1], "")
    size = next(name for name, each in attention.DETAILS.items() if each == 8 * level)
    model, maps = attention.PartAttention.execute(applied[0], positive, size).args
    ours = sample(inside, model, positive, negative, height, width)
    assert maps.found().shape == (2, 2, *grid)
    image = torch.rand(2, height, width, 3)
    with torch.inference_mode():
        masks, pictures, words = attention.PartAttentionMaps.execute(maps, image).args
    assert masks.shape == (4, height, width) and pictures.shape == (4, height, width, 3)
    assert masks.flatten(1).amax(1).allclose(torch.ones(4)) and masks.min() >= 0
    assert words.splitlines() == ["<part2:3>", "<part0:1>"]
    # The model draws the same as without, to the last bit.
    assert torch.equal(ours, sample(inside, applied[0], positive, negative, height, width))


def test_maps_are_a_share_of_the_picture_whatever_the_latent_is(inside, applied, encode, creature_sd15):
    attention, positive = nodes(inside, "attention"), encode(applied[1], "a <part2:3>")
    for model, levels in ((applied[0], [4, 2, 1]), (creature_sd15[0], [2, 1, 1])):
        maps = [attention.PartAttention.execute(model, positive, size).args[1] for size in attention.DETAILS]
        assert [each.level for each in maps] == levels


def sample(inside, model, positive, negative, height, width, steps=2):
    samplers = inside.comfy("samplers")
    guider = samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(5.0)
    sigmas = samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    noise = torch.randn(2, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return guider.sample(noise, torch.zeros_like(noise), samplers.sampler_object("euler"), sigmas,
                             disable_pbar=True, seed=1)


def test_the_maps_are_a_mean_over_the_steps_of_the_last_sampling(inside, applied, encode):
    attention = nodes(inside, "attention")
    positive, negative = encode(applied[1], "a <part2:3>"), encode(applied[1], "")
    model, maps = attention.PartAttention.execute(applied[0], positive).args
    sample(inside, model, positive, negative, 64, 64, steps=3)
    first, count = maps.found(), maps.maps.count
    assert count == 3 * 5
    sample(inside, model, positive, negative, 64, 64, steps=3)
    assert torch.equal(maps.found(), first) and maps.maps.count == count


def test_a_longer_negative_prompt_leaves_the_maps_in_their_places(inside, applied, encode):
    attention = nodes(inside, "attention")
    positive, negative = encode(applied[1], "a <part2:3>"), encode(applied[1], "very " * 90)
    model, maps = attention.PartAttention.execute(applied[0], positive).args
    sample(inside, model, positive, negative, 64, 64)
    assert maps.found().shape == (2, 1, 2, 2)
    assert maps.places(154) == [[2, 79]]


def test_a_model_that_does_not_ask_has_no_patch(inside, applied, encode):
    attention, before = nodes(inside, "attention"), dict(applied[0].model_options["transformer_options"])
    attention.PartAttention.execute(applied[0], encode(applied[1], "a <part2:3>"))
    assert applied[0].model_options["transformer_options"] == before
    assert "patches_replace" not in before and not applied[0].wrappers


def test_patches_of_others_go_on_below_and_above(inside, applied, encode):
    attention, calls = nodes(inside, "attention"), []
    other = applied[0].clone()

    def below(q, k, v, options):
        calls.append("below")
        return torch.zeros_like(q)

    other.set_model_attn2_replace(below, "input", 1)
    positive, negative = encode(applied[1], "a <part2:3>"), encode(applied[1], "")
    model, maps = attention.PartAttention.execute(other, positive).args
    patch = model.model_options["transformer_options"]["patches_replace"]["attn2"][("input", 1, 0)]
    patch.add(lambda out, *_, **options: calls.append("above") or out * 0, sigma_start=1e9, sigma_end=0.0)
    sample(inside, model, positive, negative, 64, 64, steps=1)
    assert calls == ["below", "above"] and maps.found().isfinite().all()


def test_what_has_no_maps_is_refused(inside, applied, encode, model, clip):
    attention = nodes(inside, "attention")
    with pytest.raises(ValueError, match="Part Attention expected a prompt with part words"):
        attention.PartAttention.execute(applied[0], encode(applied[1], "a bird"))
    positive = encode(applied[1], "a <part2:3>")
    patched, maps = attention.PartAttention.execute(applied[0], positive).args
    with pytest.raises(ValueError, match="a sampling with the model of Part Attention"):
        attention.PartAttentionMaps.execute(maps, torch.rand(1, 64, 64, 3))
    sample(inside, patched, encode(applied[1], "other"), encode(applied[1], ""), 64, 64)
    with pytest.raises(ValueError, match="a sampling with the model of Part Attention and the prompt"):
        attention.PartAttentionMaps.execute(maps, torch.rand(1, 64, 64, 3))
    sample(inside, patched, positive, encode(applied[1], ""), 64, 64)
    with pytest.raises(ValueError, match="the 2 pictures that were sampled last, got 3"):
        attention.PartAttentionMaps.execute(maps, torch.rand(3, 64, 64, 3))


@pytest.mark.parametrize("first", ["tokens", "maps"])
def test_maps_and_tokens_of_an_ip_adapter_go_together(inside, tiny_model, tiny_adapter, prompts, first):
    """In either order: neither hides the other, and the picture is that with the tokens alone."""
    context = prompts[0][0][0]
    tokens = inside.tokens(1)
    alone = inside.apply(tiny_model, tiny_adapter, tokens)
    if first == "tokens":
        both, maps = record(inside, alone, context, {"<head:1>": [2]}, 2)
    else:
        watched, maps = record(inside, tiny_model, context, {"<head:1>": [2]}, 2)
        both = inside.apply(watched, tiny_adapter, tokens)
    found, wanted = (sample(inside, each, *prompts, 64, 64) for each in (both, alone))
    assert torch.equal(found, wanted)
    assert not torch.equal(found, sample(inside, tiny_model, *prompts, 64, 64))
    assert maps.found().shape == (2, 1, 4, 4) and maps.found().isfinite().all()
