"""The right tokens for each prompt and image under ComfyUI's guiders, and under call patterns of others."""

import importlib

import pytest
import torch

from tests.comfyui.nodes.sampling import assert_same, interleaved, whole

EXTRAS = "comfy_extras.nodes_"


def extra(module: str, node: str):
    return getattr(importlib.import_module(EXTRAS + module), node)


# Guiders ------------------------------------------------------------------------------------------------


def test_perp_neg_with_an_empty_negative_is_plain_guidance(draw, cfg, patched, prompts):
    model, (positive, negative) = patched(), prompts
    guider = extra("perpneg", "PerpNegGuider").execute(model, positive, negative, negative, 5.0, 1.0).args[0]
    assert_same(draw(guider), draw(cfg(model)))


def test_the_older_perp_neg_makes_its_prompt_ready_in_the_middle_of_sampling(draw, cfg, patched, prompts):
    model = patched()
    perp_neg = extra("perpneg", "PerpNeg").execute(model, prompts[1], 1.0).args[0]
    assert_same(draw(cfg(perp_neg)), draw(cfg(model)))


@pytest.mark.parametrize("style, scale", [("regular", 5.0), ("nested", 15.0)])
def test_the_second_of_three_prompts_is_what_comfyui_says_it_is(draw, cfg, patched, prompts, style, scale):
    model, (positive, negative) = patched(), prompts
    guider = extra("custom_sampler", "DualCFGGuider").execute(
        model, positive, negative, negative, 5.0, 3.0, style).args[0]
    assert_same(draw(guider), draw(cfg(model, scale=scale)))


@pytest.mark.parametrize("own", [False, True])
def test_a_negative_that_is_evaluated_alone_stays_one(inside, draw, cfg, patched, prompts, own):
    """By the same model, or by another one, whose conditions know nothing of tokens."""
    model, (positive, negative) = patched(), prompts
    other = inside.tiny.tiny_sdxl() if own else model
    guider = extra("custom_sampler", "DualModelGuider").execute(
        model=model, model_negative=other, positive=positive, negative=negative, cfg=5.0).args[0]
    assert_same(draw(guider), draw(cfg(model)))


@pytest.fixture
def seen(inside, monkeypatch):
    """Whether the prompts are negative ones, for each call that lays tokens out."""
    module, calls = inside.nodes("token_layout"), []
    real = module.tokens_for_rows

    def watched(tokens, uncond, negative, images):
        calls.append(negative.tolist())
        return real(tokens, uncond, negative, images)

    monkeypatch.setattr(module, "tokens_for_rows", watched)
    return calls


@pytest.mark.parametrize("module, node, settings, expected", [
    ("sag", "SelfAttentionGuidance", (1.0, 2.0), [1]),
    ("pag", "PerturbedAttentionGuidance", (3.0,), [0]),
])
def test_guidance_by_a_further_call_has_the_role_of_its_prompt(
    draw, cfg, patched, seen, module, node, settings, expected
):
    draw(cfg(extra(module, node).execute(patched(), *settings).args[0]), steps=1)
    assert sorted(seen[0]) == [0, 1] and seen[1:] == [expected]


@pytest.mark.parametrize("name", ["third", "bad_prompt", "no_cond", "anti_prompt", "nonpositive", ""])
def test_a_guider_that_does_not_tell_the_role_is_refused(inside, draw, patched, prompts, name):
    guider = inside.comfy("samplers").CFGGuider(patched())
    guider.inner_set_conds({"positive": prompts[0], name: prompts[1]})
    with pytest.raises(ValueError, match=f"got one that calls a prompt '{name}'"):
        draw(guider)


@pytest.mark.parametrize(("name", "negative"), [
    ("positive", False), ("cond_2", False), ("Positive prompt", False), ("middle", False), ("uncond", True),
    ("negative", True), ("empty_negative_prompt", True), ("neg2", True), ("null_cond", True),
])
def test_names_that_tell_the_role(inside, name, negative):
    assert inside.pack("nodes.bridge.rows").is_negative(name) is negative


def test_a_batch_that_a_guider_makes_larger_is_refused(inside, draw, cfg, patched):
    class Twice(inside.comfy("samplers").CFGGuider):
        def predict_noise(self, x, timestep, model_options, seed):
            twice = x.repeat_interleave(2, dim=0), timestep.repeat_interleave(2)
            return super().predict_noise(*twice, model_options, seed)[::2]

    guider = Twice(patched(2))
    guider.original_conds, guider.cfg = cfg(guider.model_patcher).original_conds, 5.0
    with pytest.raises(ValueError, match="Expected a batch of all 2 images, got 4"):
        draw(guider, images=2)


def test_a_latent_batch_that_does_not_match_is_refused_before_the_first_step(draw, cfg, patched, seen):
    with pytest.raises(ValueError, match="batch for 3 concepts, got 4 images"):
        draw(cfg(patched(3)), images=4)
    assert seen == []


# Tiles and windows --------------------------------------------------------------------------------------


def tiled(model, tiles: int, at_once: int, repeat):
    """Another pack's tiles, some in one call; `repeat(tensor, times)` gives them the conditions."""
    def wrapper(apply_model, args):
        x, t, c = args["input"], args["timestep"], args["c"]
        done = []
        for group in torch.stack(x.chunk(tiles, dim=-1)).split(at_once):
            more = {key: repeat(value, len(group)) for key, value in c.items() if torch.is_tensor(value)}
            x = group.flatten(0, 1) if repeat is not interleaved else group.transpose(0, 1).flatten(0, 1)
            out = apply_model(x, repeat(t, len(group)), **c | more)
            if repeat is interleaved:
                done += out.unflatten(0, (-1, len(group))).unbind(1)
            else:
                done += out.chunk(len(group))
        return torch.cat(done, dim=-1)

    clone = model.clone()
    clone.set_model_unet_function_wrapper(wrapper)
    return clone


@pytest.mark.parametrize("concepts", [1, 2])
@pytest.mark.parametrize("at_once", [2, 4])
@pytest.mark.parametrize("repeat", [whole, interleaved])
def test_tiles_give_the_same_however_many_are_in_a_call(draw, cfg, patched, concepts, at_once, repeat):
    model = patched(concepts)
    one, more = (draw(cfg(tiled(model, 4, count, repeat)), images=concepts) for count in (1, at_once))
    assert_same(more, one)


def left_alone(layout, interleave):
    """A pack that repeats only the conditions that it knows."""
    def wrapper(apply_model, args):
        x, t, c = args["input"], args["timestep"], args["c"]
        known = {key: layout(c[key], 2) for key in ("c_crossattn", "y")}
        twice = torch.stack(x.chunk(2, dim=-1), dim=1 if interleave else 0).flatten(0, 1)
        out = apply_model(twice, layout(t, 2), **c | known)
        return torch.cat(out.unflatten(0, (-1, 2)).unbind(1) if interleave else out.chunk(2), dim=-1)

    return wrapper


@pytest.mark.parametrize("layout", [whole, interleaved])
def test_tiles_are_told_by_their_text_where_a_pack_repeats_that_alone(draw, cfg, patched, layout):
    model = patched(2)
    both = model.clone()
    both.set_model_unet_function_wrapper(left_alone(layout, layout is interleaved))
    assert_same(draw(cfg(both), images=2), draw(cfg(tiled(model, 2, 1, whole)), images=2))


def test_tiles_that_cannot_be_told_are_refused(draw, cfg, patched, prompts):
    model = patched(2)
    model.set_model_unet_function_wrapper(left_alone(whole, False))
    with pytest.raises(ValueError, match="Expected a batch of 4 latents, got 8 of them"):
        draw(cfg(model, negative=prompts[0]), images=2)


def test_a_pack_that_leaves_out_what_it_does_not_know_changes_nothing(draw, cfg, patched):
    model = patched(2)
    bare = model.clone()
    bare.set_model_unet_function_wrapper(lambda apply_model, args: apply_model(
        args["input"], args["timestep"],
        **{key: args["c"][key] for key in ("c_crossattn", "y", "transformer_options")}))
    assert torch.equal(draw(cfg(bare), images=2), draw(cfg(model), images=2))


@pytest.mark.parametrize("concepts", [1, 3, 6])
@pytest.mark.parametrize("retained", ["", "0", "0, 2"])
def test_windows_take_the_concept_of_each_of_their_images(draw, cfg, patched, concepts, retained):
    """Also where a user asks ComfyUI to keep the conditions of some images in every window."""
    model = patched(concepts)
    windowed = extra("context_windows", "ContextWindowsManualNode").execute(
        model=model, context_length=3, context_overlap=1, context_schedule="standard_static",
        context_stride=1, closed_loop=False, fuse_method="flat", dim=0, freenoise=False,
        cond_retain_index_list=retained, split_conds_to_windows=False, latent_retain_index_list="",
        causal_window_fix=False).args[0]
    assert_same(draw(cfg(windowed), images=6), draw(cfg(model), images=6))


@pytest.mark.parametrize("concepts", [1, 2])
def test_a_part_of_the_batch_is_refused_unless_the_concept_is_one(inside, draw, cfg, patched, concepts):
    class OneByOne(inside.comfy("samplers").CFGGuider):
        def predict_noise(self, x, timestep, model_options, seed):
            one = super().predict_noise
            return torch.cat([one(row[None], timestep[:1], model_options, seed) for row in x])

    guider = OneByOne(patched(concepts))
    guider.original_conds, guider.cfg = cfg(guider.model_patcher).original_conds, 5.0
    if concepts == 1:
        assert_same(draw(guider, images=2), draw(cfg(guider.model_patcher), images=2))
    else:
        with pytest.raises(ValueError, match="Expected a batch of all 2 images, got 1"):
            draw(guider, images=2)


# Options, attention, and all together -------------------------------------------------------------------


def test_options_that_another_pack_makes_anew_do_not_break_the_layers(inside, draw, cfg, patched):
    model, extension = patched(2), inside.comfy("patcher_extension")
    known = "patches_replace", "cond_or_uncond", "sigmas", "sample_sigmas", "uuids"
    rebuilt = model.clone()

    def anew(executor, x, t, c_concat, c_crossattn, control, options, **conditions):
        options = {key: options[key] for key in known if key in options}
        return executor(x, t, c_concat, c_crossattn, control, options, **conditions)

    rebuilt.add_wrapper_with_key(extension.WrappersMP.APPLY_MODEL, "another pack", anew)
    assert torch.equal(draw(cfg(rebuilt), images=2), draw(cfg(model), images=2))


def test_a_call_without_our_wrapper_is_refused(draw, cfg, patched):
    model = patched()

    def without_wrappers(apply_model, args):
        options = {**args["c"]["transformer_options"]}
        del options["wrappers"]
        return apply_model(args["input"], args["timestep"], **args["c"] | {"transformer_options": options})

    model.set_model_unet_function_wrapper(without_wrappers)
    with pytest.raises(ValueError, match="expected a model call with the wrappers that came with the model"):
        draw(cfg(model))


def test_an_attention_of_low_precision_is_left_to_the_text(draw, cfg, patched):
    lengths, model = set(), patched()

    def low_precision(attention, q, k, v, heads, *args, **options):
        lengths.add(k.shape[1])
        return attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads, *args, **options).to(q.dtype)

    model.model_options["transformer_options"]["optimized_attention_override"] = low_precision
    draw(cfg(model), noise=torch.randn(1, 4, 12, 12))  # nowhere of 16 places
    assert 77 in lengths and 16 not in lengths


@pytest.mark.parametrize("start, end", [(0.5, 0.5), (0.8, 0.2)])
def test_a_start_that_is_not_before_the_end_is_refused(patched, start, end):
    with pytest.raises(ValueError, match=f"expected start to be less than end, got {start} and {end}"):
        patched(start=start, end=end)


def hooked(inside, conditioning, model, seed):
    """A prompt with a LoRA of its own, as ComfyUI's hook nodes make it."""
    hooks = inside.comfy("hooks")
    key = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_out.0.weight"
    weight = model.model.state_dict()[key]
    difference = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.1
    group = hooks.HookGroup()
    hook = hooks.WeightHook(strength_model=1.0, strength_clip=0.0)
    hook.weights, hook.need_weight_init = {key: (difference,)}, False
    group.add(hook)
    return hooks.set_hooks_for_conditioning(conditioning, group)


def test_two_adapters_hooks_and_compiling_together(inside, draw, cfg, tiny_model, tiny_adapter, prompts):
    both = inside.apply(tiny_model, tiny_adapter, inside.tokens(2))
    both = inside.apply(both, inside.ip_adapter(), inside.tokens(1, seed=3), weight=0.5, end=0.6)
    positive = hooked(inside, prompts[0], tiny_model, 1)
    expected = draw(cfg(both, positive), images=2)
    assert (expected - draw(cfg(both), images=2)).abs().max() > 0.1  # the hook does something
    compiled = both.clone()
    helpers = importlib.import_module("comfy_api.torch_helpers")
    helpers.set_torch_compile_wrapper(compiled, backend="eager")
    assert_same(draw(cfg(compiled, positive), images=2), expected)
