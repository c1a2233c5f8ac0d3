"""Apply IP+ Tokens on a real, tiny SDXL."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.comfyui.nodes.published import key_value_state

ATTENTIONS = [
    f"{block}.1.transformer_blocks.{index}.attn2"
    for block, depth in [
        ("input_blocks.4", 1), ("input_blocks.5", 1), ("input_blocks.7", 2), ("input_blocks.8", 2),
        ("output_blocks.0", 2), ("output_blocks.1", 2), ("output_blocks.2", 2),
        ("output_blocks.3", 1), ("output_blocks.4", 1), ("output_blocks.5", 1), ("middle_block", 2),
    ]
    for index in range(depth)
]


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def ip_adapter(inside):
    return inside.ip_adapter()


def heads(tensor):
    return tensor.unflatten(-1, (-1, 64)).transpose(1, 2)


def attend(q, k, v):
    """Attention by the book."""
    q, k, v = heads(q), heads(k), heads(v)
    return ((q @ k.transpose(-1, -2) / 8).softmax(-1) @ v).transpose(1, 2).flatten(-2)


def with_tokens_by_hand(model, tokens, weight):
    """A copy of the model whose cross-attention modules compute the decoupled attention themselves."""
    model = copy.deepcopy(model.model.diffusion_model)
    weights = key_value_state()
    for number, name in enumerate(ATTENTIONS):
        layer = model.get_submodule(name)
        k, v = (tokens @ weights[f"{2 * number + 1}.to_{kind}_ip.weight"].T for kind in "kv")

        def forward(x, context, layer=layer, k=k, v=v, **_):
            q = layer.to_q(x)
            text = attend(q, layer.to_k(context), layer.to_v(context))
            return layer.to_out(text + weight * attend(q, k, v))

        layer.forward = forward
    return model


def test_the_patch_equals_decoupled_attention_written_by_hand(inside, model, ip_adapter):
    tokens = inside.tokens(2)
    by_row = torch.cat([tokens.values, tokens.uncond, tokens.uncond])
    by_hand = with_tokens_by_hand(model, by_row, 0.6)
    with torch.inference_mode():
        expected = by_hand(*inside.unet_inputs(2, (0, 1)))
    found = inside.predict(inside.apply(model, ip_adapter, tokens, 0.6), images=2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (inside.predict(model, images=2) - expected).abs().max() > 0.1


def test_weight_zero_is_exactly_the_model_without_tokens(inside, model, ip_adapter):
    patched = inside.apply(model, ip_adapter, inside.tokens(1), weight=0.0)
    assert torch.equal(inside.predict(patched), inside.predict(model))


def test_the_model_that_went_in_stays_as_it_was(inside, model, ip_adapter):
    before, options = inside.predict(model), copy.deepcopy(model.model_options)
    inside.apply(model, ip_adapter, inside.tokens(1))
    assert model.model_options == options
    assert torch.equal(inside.predict(model), before)


def test_the_negative_branch_sees_the_grey_picture_or_the_same_tokens(inside, model, ip_adapter):
    tokens = inside.tokens(1)
    grey = inside.predict(inside.apply(model, ip_adapter, tokens), branches=(1, 0))
    same = inside.predict(inside.apply(model, ip_adapter, tokens, negative="same tokens"), branches=(1, 0))
    of_grey = inside.concepts("tokens").Tokens(tokens.uncond, tokens.uncond, source="a grey picture")
    only_grey = inside.predict(inside.apply(model, ip_adapter, of_grey), branches=(1, 0))
    assert torch.equal(grey[1], same[1])
    assert torch.equal(grey[0], only_grey[0])
    assert not torch.equal(grey[0], same[0])


@pytest.mark.parametrize("branches", [(0, 1), (1, 0), (0,), (1,), (0, 0, 1)])
def test_each_concept_goes_to_its_own_image(inside, model, ip_adapter, branches):
    tokens = inside.tokens(3)
    together = inside.predict(inside.apply(model, ip_adapter, tokens), images=3, branches=branches)
    rows = together.unflatten(0, (len(branches), 3))
    for number in range(3):
        one = inside.concepts("tokens").Tokens(tokens.values[number:number + 1], tokens.uncond, source="one")
        alone = inside.predict(inside.apply(model, ip_adapter, one), images=3, branches=branches)
        torch.testing.assert_close(rows[:, number], alone.unflatten(0, (len(branches), 3))[:, number])


def test_a_latent_batch_of_a_multiple_repeats_the_concepts(inside, model, ip_adapter):
    tokens = inside.tokens(2)
    twice = inside.concepts("tokens").Tokens(tokens.values.repeat(2, 1, 1), tokens.uncond, source="twice")
    assert torch.equal(
        inside.predict(inside.apply(model, ip_adapter, tokens), images=4),
        inside.predict(inside.apply(model, ip_adapter, twice), images=4),
    )


def test_tokens_act_only_between_start_and_end(inside, model, ip_adapter):
    sigma_at = model.get_model_object("model_sampling").percent_to_sigma
    patched = inside.apply(model, ip_adapter, inside.tokens(1), start=0.25, end=0.75)
    for percent, acts in [(0.05, False), (0.3, True), (0.7, True), (0.95, False)]:
        plain = inside.predict(model, sigma=sigma_at(percent))
        assert torch.equal(inside.predict(patched, sigma=sigma_at(percent)), plain) == (not acts)


class NoReadback(TorchDispatchMode):
    """Fails where a tensor's value is read back to Python, which on a GPU waits for all work before it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten._local_scalar_dense.default, "a value was read back"
        return func(*args, **(kwargs or {}))


def test_no_value_is_read_back_from_the_gpu(inside, model, ip_adapter):
    patched = inside.apply(model, ip_adapter, inside.tokens(1), weight=0.5, start=0.1, end=0.9)
    with NoReadback():
        inside.predict(patched)


def test_the_patched_model_compiles_into_one_graph_that_serves_every_call(inside, model, ip_adapter):
    """Compiled as ComfyUI's own node does it, which ignores all changes of the options."""
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    def without_options(guards):
        return ["transformer_options" not in guard.name for guard in guards]

    first = inside.apply(model, ip_adapter, inside.tokens(1), end=0.5)
    second = inside.apply(model, ip_adapter, inside.tokens(1, seed=1), weight=0.3, negative="same tokens")
    calls = [(first, (0, 1), 5.0), (first, (1, 0), 5.0), (first, (0, 1), 0.1), (second, (0, 1), 5.0)]
    expected = [inside.predict(patched, 1, *call) for patched, *call in calls]
    unet = model.model.diffusion_model
    torch._dynamo.reset()
    options = {"guard_filter_fn": without_options}
    unet.forward = torch.compile(unet.forward, backend=backend, fullgraph=True, options=options)
    try:
        found = [inside.predict(patched, 1, *call) for patched, *call in calls]
    finally:
        del unet.forward
    assert len(graphs) == 1
    torch.testing.assert_close(found, expected)


def test_a_model_in_half_precision_stays_in_it(inside, ip_adapter):
    model = inside.tiny.tiny_sdxl(dtype=torch.bfloat16)
    dtypes = []
    patched = inside.apply(model, ip_adapter, inside.tokens(1))
    attention = patched.model.diffusion_model.get_submodule(ATTENTIONS[0])
    attention.to_out.register_forward_pre_hook(lambda _, inputs: dtypes.append(inputs[0].dtype))
    latents, times, context, adm = (tensor.bfloat16() for tensor in inside.unet_inputs(1, (0,)))
    options = inside.transformer_options(patched, latents, (0,))
    with torch.inference_mode():
        out = patched.model.diffusion_model(latents, times, context, adm, transformer_options=options)
    assert dtypes == [torch.bfloat16]
    assert out.isfinite().all()


def test_an_adapter_for_another_model_is_refused_with_both_shapes(inside, ip_adapter):
    other = inside.tiny.tiny_sdxl()
    other.model.diffusion_model.output_blocks[5] = torch.nn.Sequential()
    with pytest.raises(ValueError, match=r"17 cross-attention layers.*\[64, 128\].*got one with 16"):
        inside.apply(other, ip_adapter, inside.tokens(1))
    other.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="got one with 0 cross-attention layers"):
        inside.apply(other, ip_adapter, inside.tokens(1))


def test_tokens_of_another_width_are_refused_with_both_widths_and_their_source(inside, model, ip_adapter):
    with pytest.raises(ValueError, match=r"ip_adapter.* width 96, got width 48 from the tokens of a test"):
        inside.apply(model, ip_adapter, inside.tokens(1, width=48))
