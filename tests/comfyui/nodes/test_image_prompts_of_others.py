"""Apply IP+ Tokens before and after another pack that shows the model a picture, as IPAdapter_plus does.

Such a pack puts patches that take additions into the slots of all cross-attentions, by copies of the tables
of a clone; in a slot that is taken it adds to the patch that it finds. The stand-in here does the same.
"""

import pytest
import torch

from tests.comfyui.nodes.sampling import assert_same

NARROW = [("input", 4, 0), ("input", 5, 0), *[("output", number, 0) for number in (3, 4, 5)]]
WIDE = [("input", number, index) for number in (7, 8) for index in (0, 1)]
WIDE += [("output", number, index) for number in (0, 1, 2) for index in (0, 1)]
SLOTS = NARROW + WIDE
# By the place of the transformer in its block, where ComfyUI never looks.
UNSEEN = [("middle", 1, 0), ("middle", 1, 1)]
ALWAYS = {"sigma_start": 999999999.9, "sigma_end": 0.0}


class AddingPatch:
    """Attention to the text, and what was added, each between its own noise levels."""

    def __init__(self, attention, callback, **settings):
        self.attention = attention
        self.callbacks, self.settings = [callback], [settings]

    def add(self, callback, **settings):
        self.callbacks.append(callback)
        self.settings.append(settings)

    def __call__(self, q, k, v, extra_options):
        out = self.attention(q, k, v, extra_options["n_heads"])
        sigma = extra_options["sigmas"][0].item()
        for callback, settings in zip(self.callbacks, self.settings, strict=True):
            if settings["sigma_end"] <= sigma <= settings["sigma_start"]:
                out = out + callback(out, q, k, v, extra_options, **settings)
        return out


@pytest.fixture
def shown(inside):
    """Makes a clone of a model that is shown a picture: four keys and values in every slot."""
    attention = inside.comfy("ldm.modules.attention").optimized_attention

    def attend(out, q, k, v, extra_options, seed, weight, **_):
        generator = torch.Generator().manual_seed(seed)
        keys, values = torch.randn(2, 1, 4, q.shape[-1], generator=generator).expand(-1, len(q), -1, -1)
        return weight * attention(q, keys, values, extra_options["n_heads"])

    def apply(model, seed=5, weight=0.8, **between):
        clone, settings = model.clone(), {"seed": seed, "weight": weight} | ALWAYS | between
        options = clone.model_options["transformer_options"].copy()
        replaced = options["patches_replace"] = options.get("patches_replace", {}).copy()
        table = replaced["attn2"] = replaced.get("attn2", {}).copy()
        for slot in SLOTS + UNSEEN:
            if slot in table:
                table[slot].add(attend, **settings)
            else:
                table[slot] = AddingPatch(attention, attend, **settings)
        clone.model_options["transformer_options"] = options
        return clone

    return apply


@pytest.fixture
def ours(inside, tiny_adapter):
    """Makes a clone of a model with our tokens."""
    return lambda model, **settings: inside.apply(
        model, tiny_adapter, inside.tokens(1), **{"weight": 0.7} | settings)


def layer_output(inside, model, slot, sigma=1.0):
    """What the patches in a slot give for queries, keys and values of its width."""
    width = 64 if slot in NARROW else 128
    q, k, v = torch.randn(3, 2, 9, width, generator=torch.Generator().manual_seed(9))
    options = inside.transformer_options(model, q, sigma=sigma)
    heads = {"n_heads": width // 64, "attn_precision": None}
    with torch.inference_mode():
        return options["patches_replace"]["attn2"][slot](q, k, v, options | heads)


def orders(ours, shown, model, **between):
    """The model with both: theirs after ours, and ours after theirs."""
    return shown(ours(model), **between), ours(shown(model, **between))


def test_every_layer_gives_the_text_and_what_both_add(inside, tiny_model, ours, shown):
    nothing, tokens, picture = ours(tiny_model, weight=0.0), ours(tiny_model), shown(tiny_model)
    for both in orders(ours, shown, tiny_model):
        for slot in SLOTS:
            text, with_tokens, with_picture = (
                layer_output(inside, each, slot) for each in (nothing, tokens, picture))
            assert (with_tokens - text).abs().max() > 0.01 and (with_picture - text).abs().max() > 0.01
            torch.testing.assert_close(layer_output(inside, both, slot), with_tokens + with_picture - text)


def test_the_whole_model_is_the_same_in_either_order(inside, tiny_model, ours, shown):
    after, before = (inside.predict(both) for both in orders(ours, shown, tiny_model))
    assert_same(after, before)
    for alone in (ours(tiny_model), shown(tiny_model)):
        assert (after - inside.predict(alone)).abs().max() > 0.01 * after.abs().max()


@pytest.mark.parametrize(("sigma", "acts"), [(3.0, False), (1.0, True), (0.1, False)])
def test_their_noise_levels_are_kept_in_either_order(inside, tiny_model, ours, shown, sigma, acts):
    alone = layer_output(inside, ours(tiny_model), SLOTS[0], sigma)
    for both in orders(ours, shown, tiny_model, sigma_start=2.0, sigma_end=0.5):
        assert torch.equal(layer_output(inside, both, SLOTS[0], sigma), alone) is not acts


def test_sampling_with_both_is_the_same_in_either_order(tiny_model, cfg, draw, ours, shown):
    after, before = (draw(cfg(both), images=2) for both in orders(ours, shown, tiny_model))
    assert_same(after, before)
    assert (after - draw(cfg(ours(tiny_model)), images=2)).abs().max() > 0.01 * after.abs().max()


@pytest.mark.parametrize("branch", [0, 1])
def test_what_they_add_to_another_branch_of_the_graph_stays_there(inside, tiny_model, ours, shown, branch):
    both = orders(ours, shown, tiny_model)[branch]
    before = inside.predict(both)
    assert not torch.equal(inside.predict(shown(both, seed=6)), before)
    assert torch.equal(inside.predict(both), before)


def test_a_picture_that_ours_builds_upon_may_be_built_upon_elsewhere(inside, tiny_model, ours, shown):
    """Their additions reach every clone that shares a patch with theirs; ours keeps the patch as it was."""
    theirs = shown(tiny_model)
    both = ours(theirs)
    before = inside.predict(both)
    shown(theirs, seed=6)
    assert torch.equal(inside.predict(both), before)


def test_comfyui_loads_our_weights_with_the_model_in_either_order(tiny_model, tiny_adapter, ours, shown):
    for both in orders(ours, shown, tiny_model):
        assert set(both.model_patches_models()) == {tiny_adapter.cross_attention}
