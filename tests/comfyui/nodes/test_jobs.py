"""A job for each reference: several Apply IP+ Tokens on one model, each with settings of its own."""

import pytest
import torch

from tests.comfyui.nodes.sampling import assert_same
from tests.comfyui.nodes.test_apply_tokens import ATTENTIONS

FIRST = "input_blocks.4.1.transformer_blocks.0.attn2"
RUNNING = [*ATTENTIONS[:6], *ATTENTIONS[-2:], *ATTENTIONS[6:-2]]  # the middle block before the output blocks


@pytest.fixture
def layers(inside, tiny_model):
    """What goes into `to_out` of every cross-attention in one model call, by the name of the layer."""
    def run(model, percent=0.5, images=1):
        seen, unet = {}, tiny_model.model.diffusion_model
        handles = [
            unet.get_submodule(name).to_out.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.setdefault(name, inputs[0].clone()))
            for name in ATTENTIONS
        ]
        try:
            sigma = tiny_model.get_model_object("model_sampling").percent_to_sigma(percent)
            inside.predict(model, images=images, sigma=sigma)
        finally:
            for handle in handles:
                handle.remove()
        return seen

    return run


@pytest.fixture
def weights(inside):
    """Runs Layer Weights."""
    return lambda *given: inside.nodes("layer_weights").MakeLayerWeights.execute(*given).args[0]


JOBS = [  # weight, start and end of three references
    (1.0, 0.0, 1.0), (0.4, 0.0, 0.4), (-0.7, 0.3, 1.0),
]


@pytest.mark.parametrize("percent", [0.1, 0.35, 0.9])
def test_every_reference_adds_its_own_between_its_start_and_end(
    inside, layers, tiny_model, tiny_adapter, percent
):
    """The sum of the attentions of several adapters, written by hand."""
    adapters = [tiny_adapter, inside.ip_adapter(), tiny_adapter]
    text, model = layers(tiny_model)[FIRST], tiny_model
    expected = text.clone()
    for seed, (adapter, (weight, start, end)) in enumerate(zip(adapters, JOBS, strict=True)):
        tokens = inside.tokens(1, seed)
        model = inside.apply(model, adapter, tokens, weight, start, end)
        if start < percent < end:
            expected += weight * (layers(inside.apply(tiny_model, adapter, tokens))[FIRST] - text)
    torch.testing.assert_close(layers(model, percent)[FIRST], expected, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_nodes_does_not_matter(inside, draw, cfg, tiny_model, tiny_adapter, weights):
    given = [
        (inside.tokens(2, 1), {"weight": 0.5, "end": 0.6}),
        (inside.tokens(1, 2), {"start": 0.2, "layer_weights": weights("style")}),
        (inside.tokens(2, 3), {"negative": "same tokens", "mask": torch.eye(8)[None]}),
    ]
    pictures = []
    for order in (given, given[::-1]):
        model = tiny_model
        for tokens, settings in order:
            model = inside.apply(model, tiny_adapter, tokens, **settings)
        pictures.append(draw(cfg(model), images=2, steps=4))
    assert_same(*pictures)


def test_a_reference_of_weight_zero_or_whose_time_is_over_changes_nothing(
    inside, layers, tiny_model, tiny_adapter
):
    one = inside.apply(tiny_model, tiny_adapter, inside.tokens(1))
    more = inside.apply(one, tiny_adapter, inside.tokens(1, 2), weight=0.0)
    more = inside.apply(more, tiny_adapter, inside.tokens(1, 3), end=0.4)
    expected, found = layers(one), layers(more)
    assert all(torch.equal(found[name], expected[name]) for name in ATTENTIONS)


# Layer weights ------------------------------------------------------------------------------------------


def test_all_layers_alike_are_as_no_layer_weights(draw, cfg, patched, weights):
    assert torch.equal(draw(cfg(patched(1, layer_weights=weights("all")))), draw(cfg(patched(1))))


@pytest.mark.parametrize(
    ("preset", "block"), [("style", "output_blocks.1"), ("composition", "input_blocks.8")])
def test_a_preset_leaves_all_before_its_block_alone(layers, tiny_model, patched, weights, preset, block):
    plain, found = layers(tiny_model), layers(patched(1, layer_weights=weights(preset)))
    first = next(number for number, name in enumerate(RUNNING) if name.startswith(f"{block}."))
    for name in RUNNING[:first]:
        assert torch.equal(found[name], plain[name])
    assert (found[RUNNING[first]] - plain[RUNNING[first]]).abs().max() > 1e-3


def test_a_table_scales_each_layer_by_its_number(layers, tiny_model, patched, weights):
    plain, full = layers(tiny_model)[FIRST], layers(patched(1))[FIRST]
    found = layers(patched(1, weight=0.8, layer_weights=weights("style", "input_4: 0.5")))[FIRST]
    torch.testing.assert_close(found, plain + 0.4 * (full - plain), rtol=1e-4, atol=1e-5)


def test_the_numbers_of_all_blocks_are_those_of_comfyui(inside, layers, tiny_model, patched, weights):
    """One block alone at a time: it is the first one that changes."""
    plain = layers(tiny_model)
    for name in RUNNING:
        parts = name.split(".")
        block = "middle_0" if parts[0] == "middle_block" else f"{parts[0].removesuffix('_blocks')}_{parts[1]}"
        own = f"{block}.{parts[-2]}"
        silent = {f"{each}: 0" for each in (
            "input_4", "input_5", "input_7", "input_8", "middle_0", *(f"output_{n}" for n in range(6)))}
        found = layers(patched(1, layer_weights=weights("all", "\n".join([*sorted(silent), f"{own}: 1"]))))
        assert next(each for each in RUNNING if not torch.equal(found[each], plain[each])) == name


def test_blocks_that_the_model_lacks_are_refused_with_those_that_it_has(patched, weights):
    with pytest.raises(ValueError, match=r"got output_7\..*the model has input_4, .*middle_0, output_0"):
        patched(1, layer_weights=weights("all", "output_7: 1"))


def test_a_preset_that_does_not_know_the_model_is_refused(inside, shipped, weights):
    model, adapter = shipped[0], shipped[4]
    tokens = inside.tokens(1, width=adapter.token_dim)
    with pytest.raises(ValueError, match="blocks of SDXL or Stable Diffusion 1.5 for the preset 'style'"):
        inside.apply(model, adapter, tokens, layer_weights=weights("style"))
    inside.apply(model, adapter, tokens, layer_weights=weights("strong middle"))
