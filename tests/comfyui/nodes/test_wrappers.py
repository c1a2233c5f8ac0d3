"""Apply IP+ Tokens where another pack changes patches or batch in a wrapper, after ours of the model call."""

import importlib

import pytest
import torch

from tests.comfyui.nodes.sampling import assert_same
from tests.comfyui.nodes.test_regions import Regions, turned_and_scaled, turned_back


def appended(options, patches):
    """Adds patches in the lists that are there, as most packs do."""
    for name, patch in patches.items():
        options.setdefault("patches", {}).setdefault(name, []).append(patch)
    return options


def rebuilt(options, patches):
    """New options with new lists."""
    present = options.get("patches", {})
    lists = {name: [*present.get(name, ()), patch] for name, patch in patches.items()}
    return {**options, "patches": {**present, **lists}}


def known_alone(options, patches):
    """New options of what a pack knows."""
    names = "patches_replace", "cond_or_uncond", "sigmas", "sample_sigmas", "uuids", "wrappers"
    return {name: options[name] for name in names} | {"patches": {name: [p] for name, p in patches.items()}}


def patching(kind, add, patches):
    """A wrapper that adds patches for this call alone, and takes them away after it."""
    def wrapper(executor, *args, **named):
        # Both kinds of wrapper have the options as their last argument by place.
        *first, options = args
        before = {name: list(each) for name, each in options.get("patches", {}).items()}
        try:
            return executor(*first, add(options, patches), **named)
        finally:
            if "patches" in options:
                options["patches"].clear()
                options["patches"].update(before)

    return kind, wrapper


@pytest.fixture
def wrapped(inside, tiny_model, tiny_adapter):
    """Makes the model with tokens, and with another pack's wrapper from before or after Apply IP+ Tokens."""
    def make(kind, wrapper, concepts=1, ours_first=True):
        model = tiny_model.clone()
        if ours_first:
            model = inside.apply(model, tiny_adapter, inside.tokens(concepts))
        model.add_wrapper_with_key(kind, "another pack", wrapper)
        return model if ours_first else inside.apply(model, tiny_adapter, inside.tokens(concepts))

    return make


KINDS = ["diffusion_model", "apply_model"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("add", [appended, rebuilt, known_alone])
@pytest.mark.parametrize("concepts, ours_first", [(2, True), (2, False), (1, True)])
def test_regions_that_a_wrapper_adds_are_as_no_regions(
    draw, cfg, patched, prompts, wrapped, kind, add, concepts, ours_first
):
    regions = Regions([prompts[0][0][0]] * 3, interleave=ours_first)
    patches = {"attn2_patch": regions.before, "attn2_output_patch": regions.after}
    model = wrapped(*patching(kind, add, patches), concepts, ours_first)
    assert_same(draw(cfg(model), images=concepts), draw(cfg(patched(concepts)), images=concepts))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ours_first", [False, True])
def test_an_order_that_a_wrapper_changes_is_followed(draw, cfg, patched, wrapped, kind, ours_first):
    """The number of rows stays, so that nothing but following tells."""
    patches = {"attn2_patch": turned_and_scaled, "attn2_output_patch": turned_back}
    model = wrapped(*patching(kind, appended, patches), 2, ours_first)
    assert_same(draw(cfg(model), images=2), draw(cfg(patched(2)), images=2), 1e-2)


def test_an_order_that_a_replaced_forward_changes_is_followed(inside, draw, cfg, patched, tiny_adapter):
    model = inside.tiny.tiny_sdxl()
    unet, patches = model.model.diffusion_model, {
        "attn2_patch": turned_and_scaled, "attn2_output_patch": turned_back}

    def forward(x, *args, transformer_options, **named):
        options = rebuilt(transformer_options, patches)
        return type(unet).forward(unet, x, *args, transformer_options=options, **named)

    replaced = inside.apply(model, tiny_adapter, inside.tokens(2))
    replaced.add_object_patch("diffusion_model.forward", forward)
    assert_same(draw(cfg(replaced), images=2), draw(cfg(patched(2)), images=2), 1e-2)
    is_replaced = inside.pack("nodes.bridge.following").is_replaced
    assert is_replaced(unet)
    replaced.unpatch_model()
    assert not is_replaced(unet)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_a_wrapper_mixes_are_refused(draw, cfg, wrapped, kind):
    mixed = {"attn2_patch": lambda n, context, value, options: (n + n.flip(0), context, value)}
    with pytest.raises(ValueError, match="nothing that tells which is which"):
        draw(cfg(wrapped(*patching(kind, appended, mixed), 2)), images=2)


@pytest.mark.parametrize("kind", KINDS)
def test_patches_of_the_self_attention_leave_the_tokens_alone(draw, cfg, patched, wrapped, kind):
    def twice(n, context, value, options):
        return tuple(torch.cat([each, each]) for each in (n, context, value))

    patches = {"attn1_patch": twice, "attn1_output_patch": lambda out, options: out.chunk(2)[1]}
    model = wrapped(*patching(kind, appended, patches), 2)
    assert_same(draw(cfg(model), images=2), draw(cfg(patched(2)), images=2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrapper_that_takes_our_patches_away_is_refused(draw, cfg, wrapped, kind):
    def bare(executor, *args, **named):
        *first, options = args
        return executor(*first, {**options, "patches_replace": {}}, **named)

    with pytest.raises(ValueError, match="Put that node before Apply"):
        draw(cfg(wrapped(kind, bare)))


# The batch itself ---------------------------------------------------------------------------------------


def changing(change, undo, kind, others):
    """A wrapper that calls the model with another batch; `others` are its conditions by name as well."""
    def of_model(executor, x, t, context, y, control, options, **named):
        return undo([executor(*batch, control, options, **named)
                     for batch in zip(*map(change, (x, t, context, y)), strict=True)])

    def of_call(executor, x, t, c_concat, context, control, options, **named):
        known = named if others else {"y": named["y"]}
        done = []
        for place, (x_, t_, context_) in enumerate(zip(*map(change, (x, t, context)), strict=True)):
            more = {name: change(each)[place] for name, each in known.items()}
            done.append(executor(x_, t_, c_concat, context_, control, options, **{**named, **more}))
        return undo(done)

    return kind, of_model if kind == "diffusion_model" else of_call


BATCHES = {
    "turned": (lambda x: [x.flip(0)], lambda done: done[0].flip(0)),
    "one prompt at a time": (lambda x: x.chunk(2), torch.cat),
    "one row at a time": (lambda x: x.split(1), torch.cat),
    "twice": (lambda x: [torch.cat([x, x])], lambda done: done[0].chunk(2)[1]),
    "each twice": (lambda x: [x.repeat_interleave(2, 0)], lambda done: done[0][::2]),
    "a part twice": (lambda x: [torch.cat([x, x[:2]])], lambda done: done[0][:-2]),
    "copied": (lambda x: [x.clone()], lambda done: done[0]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_that_a_wrapper_changes_is_followed(draw, cfg, patched, wrapped, kind, name):
    expected = draw(cfg(patched(2)), images=2)
    for ours_first in (False, True):
        model = wrapped(*changing(*BATCHES[name], kind, True), 2, ours_first)
        assert_same(draw(cfg(model), images=2), expected)


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_followed_past_a_pack_that_changes_what_it_knows_alone(draw, cfg, patched, wrapped, name):
    model = wrapped(*changing(*BATCHES[name], "apply_model", False), 2)
    assert_same(draw(cfg(model), images=2), draw(cfg(patched(2)), images=2))


def test_a_batch_of_values_that_nobody_has_seen_is_refused(draw, cfg, wrapped):
    def new(executor, x, t, context, y, control, options, **named):
        return executor(x + 1, t, context * 1.01, y * 1.01, control, options, **named)

    with pytest.raises(ValueError, match="nothing that tells which is which"):
        draw(cfg(wrapped("diffusion_model", new, 2)), images=2)


def test_latents_that_a_wrapper_changes_are_no_obstacle(draw, cfg, wrapped):
    """One image of two alone gets the same tokens as both: the texts tell that no row has moved."""
    def darker(executor, x, *more, **named):
        return executor(x * 0.5, *more, **named)

    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1, 1)
    two, one = (draw(cfg(wrapped("diffusion_model", darker, count)), noise=noise) for count in (2, 1))
    assert_same(two[0], one[0])
    assert (two[1] - two[0]).abs().max() > 1


def test_a_wrapper_that_changes_nothing_costs_no_comparison(inside, draw, cfg, patched, wrapped, monkeypatch):
    def fail(*_):
        raise AssertionError("compared")

    monkeypatch.setattr(inside.pack("nodes.bridge.following"), "equal_rows", fail)
    model = wrapped("diffusion_model", lambda executor, *args, **named: executor(*args, **named), 2)
    assert torch.equal(draw(cfg(model), images=2), draw(cfg(patched(2)), images=2))


def test_wrappers_and_compiling_together(draw, cfg, patched, prompts, wrapped):
    regions = Regions([prompts[0][0][0]] * 2)
    patches = {"attn2_patch": regions.before, "attn2_output_patch": regions.after}
    model = wrapped(*patching("diffusion_model", rebuilt, patches), 2)
    helpers = importlib.import_module("comfy_api.torch_helpers")
    helpers.set_torch_compile_wrapper(model, backend="eager")
    assert_same(draw(cfg(model), images=2), draw(cfg(patched(2)), images=2))


IMAGES_SWAPPED = [1, 0, 3, 2]  # of both prompts, so that the texts do not tell


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [lambda x: x * 1.0001, lambda x: x.bfloat16().float()])
def test_images_that_a_wrapper_moves_and_changes_a_little_are_followed(draw, cfg, wrapped, kind, change):
    def runs(order):
        def wrapper(executor, x, t, *args, **named):
            return executor(change(x[order]), t, *args, **named)[order]

        return draw(cfg(wrapped(kind, wrapper, 2)), images=2)

    assert_same(runs(IMAGES_SWAPPED), runs([0, 1, 2, 3]))


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_one_image_in_a_call_are_followed(draw, cfg, wrapped, kind):
    """As many rows as the whole batch has, and the same texts in the same order."""
    def by_image(executor, x, t, *args, **named):
        out = torch.empty_like(x)
        for image in range(2):
            both = x[[image, image, image + 2, image + 2]]
            tiles = torch.cat([both[:1, ..., :4], both[1:2, ..., 4:], both[2:3, ..., :4], both[3:, ..., 4:]])
            done = executor(tiles, t, *args, **named)
            out[[image, image + 2]] = torch.cat([done[::2], done[1::2]], dim=-1)
        return out

    def by_tile(executor, x, t, *args, **named):
        return torch.cat([executor(tile, t, *args, **named) for tile in x.chunk(2, dim=-1)], dim=-1)

    found, expected = (draw(cfg(wrapped(kind, wrapper, 2)), images=2) for wrapper in (by_image, by_tile))
    assert_same(found, expected)
