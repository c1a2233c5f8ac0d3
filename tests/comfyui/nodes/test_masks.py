"""Apply IP+ Tokens with a mask: two concepts in one picture, each in a region of its own."""

import pytest
import torch

from pit.ip_adapter.regions import coverage
from tests.comfyui.nodes.sampling import assert_same, interleaved, whole
from tests.comfyui.nodes.test_apply_tokens import NoReadback
from tests.comfyui.nodes.test_guiders import extra, hooked, tiled
from tests.comfyui.nodes.test_regions import Regions
from tests.comfyui.nodes.test_wrappers import BATCHES, KINDS, changing

SIZES = [(8, 8), (9, 7), (5, 16), (13, 8)]
FIRST = "input_blocks.4.1.transformer_blocks.0.attn2"  # on a grid of half the latents


def random_mask(count=1, height=8, width=8, seed=5):
    """Of sixteenths, whose averages over equal pixels need no rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 17, (count, height, width), generator=generator) / 16


def left_half(height=8, width=8):
    mask = torch.zeros(1, height, width)
    mask[..., :width // 2] = 1
    return mask


def noise_of(images, height=8, width=8):
    return torch.randn(images, 4, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masked(inside, tiny_model, tiny_adapter):
    """Makes the model with tokens in a region."""
    def make(mask, concepts=1, model=tiny_model, seed=0, **settings):
        return inside.apply(model, tiny_adapter, inside.tokens(concepts, seed), mask=mask, **settings)

    return make


@pytest.fixture
def shown(inside, monkeypatch):
    """The mask of each row on the grid of its latents, for each time that masks are laid out."""
    kind, seen = inside.nodes("token_layout").AppliedTokens, []
    real = kind.for_call

    def watched(self, *given):
        laid_out = real(self, *given)
        seen.append(laid_out.masks[0])
        return laid_out

    monkeypatch.setattr(kind, "for_call", watched)
    return seen


@pytest.fixture
def first_layer(draw, cfg, tiny_model):
    """What goes into `to_out` of the first cross-attention in the first step of a sampling."""
    def run(model, **how):
        seen = []
        layer = tiny_model.model.diffusion_model.get_submodule(FIRST).to_out
        handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
        try:
            draw(cfg(model), steps=1, **how)
        finally:
            handle.remove()
        return seen[0]

    return run


# What a mask does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_mask_of_all_is_no_mask_and_one_of_nothing_no_tokens(draw, cfg, tiny_model, patched, masked, size):
    noise = noise_of(2, *size)
    for value, expected in ((1.0, patched(2)), (0.0, tiny_model)):
        found = draw(cfg(masked(torch.full((1, 30, 40), value), 2)), noise=noise)
        assert torch.equal(found, draw(cfg(expected), noise=noise))


@pytest.mark.parametrize(
    ("size", "pixels"), [((8, 8), (64, 64)), ((9, 7), (100, 37)), ((5, 16), (4, 4)), ((13, 8), (30, 90))])
def test_a_layer_adds_as_much_as_the_mask_covers_of_each_place(
    tiny_model, patched, masked, first_layer, size, pixels
):
    mask, noise = random_mask(1, *pixels), noise_of(1, *size)
    text, full, found = (
        first_layer(each, noise=noise) for each in (tiny_model, patched(1), masked(mask)))
    grid = tuple((side + 1) // 2 for side in size)
    shares = coverage(mask, torch.tensor([[0, 0, *size]]), size, grid).flatten(1).unsqueeze(-1)
    torch.testing.assert_close(found, text + shares * (full - text), rtol=1e-4, atol=1e-5)


def test_outside_the_mask_nothing_is_added_and_inside_it_all(tiny_model, patched, masked, first_layer):
    noise = noise_of(1, 8, 16)
    text, full, found = (
        first_layer(each, noise=noise).unflatten(1, (4, 8))
        for each in (tiny_model, patched(1), masked(left_half(64, 128))))
    assert torch.equal(found[:, :, 4:], text[:, :, 4:])
    assert torch.equal(found[:, :, :4], full[:, :, :4])
    assert (full - text).abs().amax(-1).min() > 1e-3


def test_a_blurred_edge_is_gradual(tiny_model, patched, masked, first_layer):
    noise, ramp = noise_of(1, 8, 16), torch.linspace(1, 0, 128).expand(1, 64, -1)
    text, full, found = (
        first_layer(each, noise=noise).unflatten(1, (4, 8))
        for each in (tiny_model, patched(1), masked(ramp)))
    share = ((found - text).norm(dim=-1) / (full - text).norm(dim=-1)).mean((0, 1))
    torch.testing.assert_close(share, ramp[0, 0].unflatten(0, (8, 16)).mean(-1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_two_nodes_that_share_the_picture_add_up(draw, cfg, patched, masked, size):
    """The same tokens by a mask and by its inverse are these tokens everywhere."""
    mask, noise = random_mask(1, 50, 30), noise_of(2, *size)
    both = masked(1 - mask, 2, model=masked(mask, 2))
    assert_same(draw(cfg(both), noise=noise), draw(cfg(patched(2)), noise=noise))


def test_two_concepts_each_have_their_half(tiny_model, masked, first_layer):
    left, noise = left_half(64, 64), noise_of(1)
    both = masked(1 - left, seed=1, model=masked(left))
    found, one, other = (first_layer(each, noise=noise).unflatten(1, (4, 4)) for each in (
        both, masked(torch.ones(1, 8, 8)), masked(torch.ones(1, 8, 8), seed=1)))
    assert torch.equal(found[:, :, :2], one[:, :, :2])
    assert torch.equal(found[:, :, 2:], other[:, :, 2:])
    assert (one - other).abs().max() > 1e-2


def test_each_image_has_its_own_mask(draw, cfg, masked):
    masks, noise = random_mask(3), noise_of(3)
    found = draw(cfg(masked(masks, 3)), noise=noise)
    for number in range(3):
        alone = draw(cfg(masked(masks[number:number + 1], 3)), noise=noise)
        assert_same(found[number], alone[number])
    assert (found - draw(cfg(masked(masks.flip(0), 3)), noise=noise)).abs().max() > 1


def test_masks_that_do_not_match_the_images_are_refused(draw, cfg, masked):
    with pytest.raises(ValueError, match=r"batch for 2 masks, got 3 images.*or pass one mask"):
        draw(cfg(masked(random_mask(2))), images=3)


@pytest.mark.parametrize("mask", [torch.full((1, 4, 4), 255.0), torch.zeros(0, 4, 4)])
def test_what_is_no_mask_is_refused_by_the_node(masked, mask):
    with pytest.raises(ValueError, match="Expected a mask of"):
        masked(mask)


def test_tokens_of_embeddings_take_a_mask_as_well(inside, tiny_model, tiny_adapter, first_layer):
    """A base IP-Adapter makes four tokens of an embedding."""
    sixteen = inside.tokens(1)
    four = inside.concepts("tokens").Tokens(sixteen.values[:, :4], sixteen.uncond[:, :4], source="embedding")
    mask = left_half(64, 64)
    text, full, found = (first_layer(each).unflatten(1, (4, 4)) for each in (
        tiny_model, inside.apply(tiny_model, tiny_adapter, four),
        inside.apply(tiny_model, tiny_adapter, four, mask=mask)))
    assert torch.equal(found[:, :, 2:], text[:, :, 2:]) and torch.equal(found[:, :, :2], full[:, :, :2])


# Areas, tiles and windows of the picture ----------------------------------------------------------------


def area(prompt, height, width, top, left):
    return [[text, {**extras, "area": (height, width, top, left)}] for text, extras in prompt]


def same_set(found, expected):
    """Whether masks `[n, h, w]` are these, in any order."""
    return sorted(each.flatten().tolist() for each in found) == sorted(
        each.flatten().tolist() for each in expected)


def test_the_areas_of_prompts_see_their_part_of_the_mask(draw, cfg, masked, prompts, shown):
    """ComfyUI runs both areas of both prompts in one call, and the whole picture of the negative alone."""
    mask = random_mask()
    positive = area(prompts[0], 8, 4, 0, 0) + area(prompts[0], 8, 4, 0, 4)
    draw(cfg(masked(mask), positive), steps=1)
    halves, whole_picture = sorted(shown, key=len, reverse=True)
    assert same_set(halves, [mask[0, :, :4], mask[0, :, 4:]] * 2)
    assert torch.equal(whole_picture, mask)


@pytest.mark.parametrize("images", [1, 2])
def test_areas_that_cover_the_picture_keep_the_masks_of_the_images(draw, cfg, masked, prompts, shown, images):
    masks, positive = random_mask(images), area(prompts[0], 5, 7, 3, 1)
    draw(cfg(masked(masks, images), positive), steps=1, images=images)
    parts, whole_picture = sorted(shown, key=len, reverse=True)
    assert same_set(parts, [*masks[:, 3:, 1:]] * 2)
    assert torch.equal(whole_picture, masks)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("repeat", [whole, interleaved])
def test_tiles_see_their_part_of_the_mask(draw, cfg, masked, shown, images, at_once, repeat):
    """Of a pack that does not cut conditions: the latents tell."""
    masks = random_mask(images)
    model = masked(masks, images)
    one, more = (draw(cfg(tiled(model, 4, count, repeat)), images=images) for count in (1, at_once))
    assert_same(more, one)
    strips = [*masks.chunk(4, dim=-1)] * 2  # for both prompts
    assert same_set(torch.cat(shown[-4 // at_once:]), torch.cat(strips))


def test_tiles_of_a_pack_that_cuts_conditions_need_no_search(inside, draw, cfg, masked, shown, monkeypatch):
    def fail(*_):
        raise AssertionError("searched")

    monkeypatch.setattr(inside.pack("nodes.bridge.extents"), "corners", fail)

    def wrapper(apply_model, args):
        x, t, c = args["input"], args["timestep"], args["c"]

        def cut(value, part):
            return value.chunk(2, -1)[part] if torch.is_tensor(value) and value.ndim == 4 else value

        return torch.cat([
            apply_model(cut(x, part), t, **{key: cut(value, part) for key, value in c.items()})
            for part in (0, 1)], -1)

    mask = random_mask()
    model = masked(mask)
    model.set_model_unet_function_wrapper(wrapper)
    draw(cfg(model), steps=1)
    assert same_set(torch.cat(shown[-2:]), [half for half in mask[0].chunk(2, -1) for _ in (0, 1)])


def test_a_pack_that_leaves_out_what_it_does_not_know_changes_nothing(draw, cfg, masked):
    model = masked(random_mask(2), 2)
    bare = model.clone()
    bare.set_model_unet_function_wrapper(lambda apply_model, args: apply_model(
        args["input"], args["timestep"],
        **{key: args["c"][key] for key in ("c_crossattn", "y", "transformer_options")}))
    assert torch.equal(draw(cfg(bare), images=2), draw(cfg(model), images=2))


@pytest.mark.parametrize("change", [
    lambda x: torch.nn.functional.pad(x, (2, 2, 0, 0)),  # beyond the picture
    lambda x: x[..., :4] * 1.01,
    lambda x: torch.zeros_like(x[..., :4]),
])
def test_tiles_that_nothing_tells_are_refused(draw, cfg, masked, change):
    model = masked(random_mask())
    model.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(change(args["input"]), args["timestep"], **args["c"]))
    with pytest.raises(ValueError, match="expected the latents of the picture, of 8x8, or tiles of them"):
        draw(cfg(model))


def windowed(model, dim, length, schedule="standard_static", stride=1):
    return extra("context_windows", "ContextWindowsManualNode").execute(
        model=model, context_length=length, context_overlap=1, context_schedule=schedule,
        context_stride=stride, closed_loop=False, fuse_method="flat", dim=dim, freenoise=False,
        cond_retain_index_list="", split_conds_to_windows=False, latent_retain_index_list="",
        causal_window_fix=False).args[0]


def test_windows_of_the_batch_keep_the_masks_of_their_images(draw, cfg, masked):
    model = masked(random_mask(6), 6)
    assert_same(draw(cfg(windowed(model, 0, 3)), images=6), draw(cfg(model), images=6))


@pytest.mark.parametrize("dim", [2, 3])
def test_windows_of_the_picture_see_their_part_of_the_mask(draw, cfg, masked, shown, dim):
    mask = random_mask()
    draw(cfg(windowed(masked(mask), dim, 5)), steps=1)
    expected = [mask[0].narrow(dim - 2, start, 5) for start in (0, 3)] * 2  # for both prompts
    assert same_set(torch.cat(shown), expected)


# Other packs, all together ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "others"), [*((kind, True) for kind in KINDS), ("apply_model", False)])
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_that_a_wrapper_changes_keeps_its_masks(draw, cfg, masked, kind, name, others):
    model = masked(random_mask(2), 2)
    wrapped = model.clone()
    wrapped.add_wrapper_with_key(kind, "another pack", changing(*BATCHES[name], kind, others)[1])
    assert_same(draw(cfg(wrapped), images=2), draw(cfg(model), images=2))


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_of_a_wrapper_see_their_part_of_the_mask(draw, cfg, masked, shown, kind):
    def by_tile(executor, x, t, *args, **named):
        return torch.cat([executor(tile, t, *args, **named) for tile in x.chunk(2, dim=-1)], dim=-1)

    mask = random_mask(2)
    model = masked(mask, 2)
    model.add_wrapper_with_key(kind, "another pack", by_tile)
    draw(cfg(model), images=2, steps=1)
    halves = [half for each in mask for half in each.chunk(2, -1) for _ in (0, 1)]
    assert same_set(torch.cat(shown[-2:]), halves)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("interleave", [False, True])
def test_regions_of_another_pack_with_the_same_prompt_are_as_no_regions(
    draw, cfg, masked, prompts, count, interleave
):
    model = masked(random_mask(2), 2)
    regions = Regions([prompts[0][0][0]] * count, interleave).on(model)
    assert_same(draw(cfg(regions), images=2), draw(cfg(model), images=2))


def test_layers_on_grids_of_their_own_are_followed(draw, cfg, patched, masked):
    """Kohya's Deep Shrink draws some layers of the first steps smaller."""
    def shrunk(model):
        return extra("model_downscale", "PatchModelAddDownscale").execute(
            model=model, block_number=3, downscale_factor=1.5, start_percent=0.0, end_percent=1.0,
            downscale_after_skip=True, downscale_method="bicubic", upscale_method="bicubic").args[0]

    mask, noise = random_mask(1, 64, 64), noise_of(1, 12, 20)
    both = masked(1 - mask, model=masked(mask))
    found, expected, one = (
        draw(cfg(shrunk(model)), noise=noise) for model in (both, patched(1), masked(mask)))
    assert_same(found, expected)
    assert (one - expected).abs().max() > 1


def test_a_prompt_with_hooks_keeps_its_mask(inside, draw, cfg, tiny_model, patched, masked, prompts):
    """The same tokens by a mask and by its inverse, for a prompt with a LoRA of its own."""
    mask, positive = random_mask(2), hooked(inside, prompts[0], tiny_model, 1)
    both = masked(1 - mask, 2, model=masked(mask, 2))
    found, expected = (draw(cfg(model, positive), images=2) for model in (both, patched(2)))
    assert_same(found, expected)
    assert (found - draw(cfg(both), images=2)).abs().max() > 0.1  # the hook does something


def test_a_mask_that_comes_changes_and_goes_is_followed_where_a_layer_is_compiled(inside, masked):
    """As ComfyUI's own node compiles, without guards on the options."""
    layout = inside.nodes("token_layout")
    table = masked(None).model_options["transformer_options"]["patches_replace"]["attn2"]
    patch, graphs = table["input", 4, 0], []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def layer(q, text, options):
        return patch(q, text, text, options)

    compiled = torch.compile(layer, backend=backend, fullgraph=True, options={
        "guard_filter_fn": lambda guards: ["options" not in guard.name for guard in guards]})
    generator = torch.Generator().manual_seed(1)
    scale, tokens, text, wide = torch.ones(17), *(
        torch.randn(1, count, width, generator=generator) for count, width in [(16, 96), (7, 64), (24, 64)])
    calls = [(wide, random_mask(1, 4, 6)), (wide, random_mask(1, 4, 6, seed=6)), (wide, None),
             (wide[:, :16], random_mask(1, 4, 4)), (wide, random_mask(1, 4, 6, seed=7))]
    with torch.inference_mode():
        for q, mask in calls:
            laid_out = layout.LaidOut(tokens, scale, () if mask is None else (mask,))
            grid = [1, 64, 4, q.shape[1] // 4]
            options = {
                "n_heads": 1, "attn_precision": None, "sigmas": torch.ones(1), "activations_shape": grid,
                layout.PATCH_KEY: [laid_out],
            }
            layout.structure.text = layout.described([laid_out])
            try:
                torch.testing.assert_close(compiled(q, text, options), layer(q, text, options))
            finally:
                layout.structure.text = ""
    assert len(graphs) == 3  # with a mask, without one, and for another size


def test_no_value_is_read_back_from_the_gpu(inside, masked):
    model = masked(random_mask(2), 2)
    with NoReadback():
        inside.predict(model, images=2)


def test_what_other_nodes_deal_out_to_the_images_is_still_carried(inside, tiny_model, masked):
    """As Apply Parts2Whole does, before and after the tokens."""
    add_rows, encode = inside.pack("nodes.bridge.rows").add_rows, "extra_conds"
    before = tiny_model.clone()
    add_rows(before, [4])
    after = masked(random_mask(3), 2, model=before)
    add_rows(after, [5])
    conditions = after.get_model_object(encode)
    assert conditions.concepts == (2, 4, 5) and conditions.masks == (3,)
