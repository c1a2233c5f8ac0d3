"""A sampling that another pack starts within one, by the same model: from a callback, a step, or a call."""

import copy

import pytest
import torch

from tests.comfyui.nodes.sampling import assert_same

KNOWN = "c_crossattn", "y", "transformer_options"


@pytest.fixture
def forgetful(patched):
    """Makes the model with tokens, and with a pack that leaves out the conditions that it does not know."""
    def make(concepts=2):
        model = patched(concepts)
        model.set_model_unet_function_wrapper(lambda apply_model, args: apply_model(
            args["input"], args["timestep"], **{name: args["c"][name] for name in KNOWN}))
        return model

    return make


class Inner:
    """Samples once within another sampling, with other images, and then lets that one go on."""

    def __init__(self, draw, guider, images):
        self.draw, self.guider, self.images = draw, guider, images
        self.drawn, self.refused = None, None

    def __call__(self):
        if self.drawn is not None or self.refused is not None:
            return
        try:
            self.drawn = self.draw(self.guider, images=self.images)
        except ValueError as error:
            self.refused = error


def before_a_step(inside, model, inner):
    def function(executor, *args, **named):
        inner()
        return executor(*args, **named)

    model.add_wrapper_with_key("predict_noise", "another pack", function)


def after_the_prompts(inside, model, inner):
    def function(args):
        inner()
        return args["conds_out"]

    model.set_model_sampler_pre_cfg_function(function)


def after_guidance(inside, model, inner):
    def function(args):
        inner()
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(function)


PLACES = [before_a_step, after_the_prompts, after_guidance]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("images", [2, 4])
def test_both_samplings_are_as_each_alone(inside, draw, cfg, forgetful, prompts, place, images):
    expected = draw(cfg(forgetful()), images=2)
    expected_inside = draw(cfg(forgetful(), prompts[1], prompts[0]), images=images)
    outer = forgetful()
    inner = Inner(draw, cfg(outer.clone(), prompts[1], prompts[0]), images)
    place(inside, outer, inner)
    assert torch.equal(draw(cfg(outer), images=2), expected)
    assert_same(inner.drawn, expected_inside)


@pytest.mark.parametrize("place", PLACES)
def test_an_inner_sampling_that_is_refused_leaves_the_outer_one_its_own(inside, draw, cfg, forgetful, place):
    expected, outer = draw(cfg(forgetful()), images=2), forgetful()
    inner = Inner(draw, cfg(outer.clone()), 3)
    place(inside, outer, inner)
    assert torch.equal(draw(cfg(outer), images=2), expected)
    assert "batch for 2 concepts, got 3 images" in str(inner.refused)


def test_an_inner_sampling_that_fails_in_its_first_step_leaves_the_outer_one_its_own(
    inside, draw, cfg, forgetful
):
    def fail(args):
        raise ValueError("the inner one fails")

    expected, outer = draw(cfg(forgetful()), images=2), forgetful()
    failing = outer.clone()
    failing.set_model_sampler_pre_cfg_function(fail)
    inner = Inner(draw, cfg(failing), 2)
    after_the_prompts(inside, outer, inner)
    assert torch.equal(draw(cfg(outer), images=2), expected)
    assert str(inner.refused) == "the inner one fails"


def test_a_copied_guider_samples_the_same_conditions_at_another_size(inside, draw, cfg, forgetful):
    """The conditions have the same identity then, in both samplings."""
    expected, outer = draw(cfg(forgetful()), images=2), forgetful()
    guider = cfg(outer)
    inner = Inner(draw, copy.copy(guider), 4)
    guider.model_patcher = outer.clone()
    before_a_step(inside, guider.model_patcher, inner)
    guider.model_options = guider.model_patcher.model_options
    assert torch.equal(draw(guider, images=2), expected)
    assert inner.drawn.shape[0] == 4


def test_samplings_can_be_nested_twice(inside, draw, cfg, forgetful):
    expected, outer = draw(cfg(forgetful()), images=2), forgetful()
    middle = outer.clone()
    innermost = Inner(draw, cfg(outer.clone()), 2)
    after_guidance(inside, middle, innermost)
    inner = Inner(draw, cfg(middle), 2)
    before_a_step(inside, outer, inner)
    assert torch.equal(draw(cfg(outer), images=2), expected)
    assert torch.equal(inner.drawn, expected) and torch.equal(innermost.drawn, expected)


def test_a_callback_may_sample(inside, draw, cfg, forgetful):
    expected, model = draw(cfg(forgetful()), images=2), forgetful()
    samplers = inside.comfy("samplers")
    inner, guider = Inner(draw, cfg(model.clone()), 4), cfg(model)
    sigmas = samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = guider.sample(
            noise, torch.zeros_like(noise), samplers.sampler_object("euler"), sigmas, seed=1,
            disable_pbar=True, callback=lambda *_: inner())
    assert torch.equal(found, expected) and inner.drawn.shape[0] == 4


def with_lora(inside, model, seed):
    """A clone of the model with weights of its own, in the UNet and in the projections of the adapter."""
    random = torch.Generator().manual_seed(seed)
    state = {
        f"{name}.{part}": torch.randn(*shape, generator=random) / 4
        for name in ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
                     "ip_adapter.33.to_v_ip")
        for part, shape in (("lora_down.weight", (4, 128 if name.startswith("lora") else 96)),
                            ("lora_up.weight", (128, 4)))
    }
    lora, strengths = (inside.pack(f"pit.files.{name}") for name in ("lora", "lora_blocks"))
    apply = inside.nodes("ip_lora").apply_ip_lora
    return apply(model, lora.split_lora(state), "a LoRA", 1.0, strengths.parse_block_strengths(""))[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("seeds", [(None, 1), (1, None), (1, 2)])
def test_both_samplings_have_their_own_loras(inside, draw, cfg, patched, prompts, place, seeds):
    def make(seed):
        return patched(2) if seed is None else with_lora(inside, patched(2), seed)

    expected, other = (draw(cfg(make(seed)), images=2) for seed in seeds)
    assert (expected - other).abs().max() > 0.01 * expected.abs().max()
    outer = make(seeds[0])
    inner = Inner(draw, cfg(make(seeds[1])), 2)
    place(inside, outer, inner)
    assert torch.equal(draw(cfg(outer), images=2), expected)
    assert torch.equal(inner.drawn, other)


def test_nothing_is_kept_after_sampling(inside, draw, cfg, forgetful):
    model = forgetful()
    draw(cfg(model), images=2)
    conditions = model.get_model_object("extra_conds")
    assert len(conditions.known) == 0
    with pytest.raises(ValueError, match="batch for 2 concepts"):
        draw(cfg(model), images=3)
    assert len(conditions.known) == 0
