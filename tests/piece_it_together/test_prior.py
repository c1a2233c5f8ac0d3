"""The IP-Prior against the published network, against a plain one at other sizes, and its own promises."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from pit.flow.guidance import seeded_noise
from pit.piece_it_together.prior import IPPrior, feed_forward_width, rope_table, time_embedding
from tests.golden import assert_equal
from tests.piece_it_together.random_prior import SIZES, random_prior

X, PARTS = (seeded_noise(seed, 2, tokens, SIZES["embedding_dim"]) for seed, tokens in ((1, 16), (3, 48)))
T = torch.tensor([0.83, 0.21])


@pytest.fixture
def io(golden) -> dict[str, Tensor]:
    return golden.below("pit_tiny_io", "dit.")


@pytest.fixture(scope="module")
def prior() -> IPPrior:
    return random_prior()


@pytest.fixture(scope="module")
def velocity(prior) -> Tensor:
    return prior(X, T, PARTS)


def reference_velocity(prior: IPPrior, heads: int, x: Tensor, t: Tensor, parts: Tensor) -> Tensor:
    """The published network over again: in float64, head by head, with rotations as complex numbers."""
    w = {key: value.double() for key, value in prior.state_dict().items()}

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def norm(value: Tensor, name: str | None = None, eps: float = 1e-5) -> Tensor:
        value = value - value.mean(-1, keepdim=True)
        value = value / (value.square().mean(-1, keepdim=True) + eps).sqrt()
        return value if name is None else value * w[f"{name}.weight"] + w[f"{name}.bias"]

    def silu(value: Tensor) -> Tensor:
        return value / (1 + (-value).exp())

    h = linear("x_embedder", torch.cat([x, parts], dim=1).double())
    length, head_dim = h.shape[1], h.shape[2] // heads
    angles = torch.outer(t.double(), 10000.0 ** (-torch.arange(128).double() / 128))
    time = torch.cat([angles.cos(), angles.sin()], dim=1)
    time = silu(linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", time))))
    turns = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, head_dim, 2).double() / head_dim))
    turns = torch.polar(torch.ones_like(turns), turns)

    def turn(value: Tensor) -> Tensor:
        pairs = torch.complex(value[..., 0::2], value[..., 1::2]) * turns
        return torch.stack([pairs.real, pairs.imag], dim=-1).reshape(value.shape)

    def attention(name: str, value: Tensor) -> Tensor:
        q = norm(linear(f"{name}.wq", value), f"{name}.q_norm")
        k = norm(linear(f"{name}.wk", value), f"{name}.k_norm")
        v = linear(f"{name}.wv", value)
        outputs = []
        for head in range(heads):
            span = slice(head * head_dim, (head + 1) * head_dim)
            scores = turn(q[..., span]) @ turn(k[..., span]).transpose(1, 2) / head_dim**0.5
            outputs.append(scores.softmax(-1) @ v[..., span])
        return linear(f"{name}.wo", torch.cat(outputs, dim=-1))

    for layer in (f"layers.{index}" for index in range(len(prior.layers))):
        moves = linear(f"{layer}.adaLN_modulation.1", time)[:, None].chunk(6, dim=-1)
        value = norm(h, f"{layer}.attention_norm") * (1 + moves[1]) + moves[0]
        h = h + moves[2] * attention(f"{layer}.attention", value)
        value = norm(h, f"{layer}.ffn_norm") * (1 + moves[4]) + moves[3]
        gated = silu(linear(f"{layer}.feed_forward.w1", value)) * linear(f"{layer}.feed_forward.w3", value)
        h = h + moves[5] * linear(f"{layer}.feed_forward.w2", gated)
    shift, scale = linear("final_layer.adaLN_modulation.1", time)[:, None].chunk(2, dim=-1)
    return linear("final_layer.linear", norm(h, eps=1e-6) * (1 + scale) + shift)[:, : x.shape[1]]


@torch.no_grad()
@pytest.mark.golden_keys("pit_tiny_io", r"dit\.out(\d+|_mixed)")
def test_velocity_equals_the_published_one(golden_prior, io, key):
    expected = key.removeprefix("dit.")
    assert_equal(golden_prior(io["x"], io[expected.replace("out", "t")], io["cond"]), io[expected])


@torch.no_grad()
def test_velocity_with_one_part_equals_the_published_one(golden_prior, io):
    part = io["cond"][:, : io["x"].shape[1]]
    assert_equal(golden_prior(io["x"], io["t_mixed"], part), io["out_one_part"])


def stage(prior: IPPrior, name: str) -> nn.Module:
    """The module behind a name such as x_embedder, layer0 (a whole block) and layer0_attention."""
    layer, _, inner = name.partition("_")
    if not layer.startswith("layer"):
        return getattr(prior, name)
    block = prior.layers[int(layer.removeprefix("layer"))]
    return {"": block, "attention": block.attention, "ffn": block.feed_forward}[inner]


@torch.no_grad()
@pytest.mark.golden_keys("pit_tiny_io", r"dit\.mid\..+")
def test_every_stage_equals_the_published_one(golden_prior, io, key):
    seen = []
    stage(golden_prior, key.removeprefix("dit.mid.")).register_forward_hook(
        lambda _, __, output: seen.append(output)
    )
    golden_prior(io["x"], io["t_mixed"], io["cond"])
    (output,), published = seen, io[key.removeprefix("dit.")]
    noisy = io["x"].shape[1]
    if published.ndim == 3 and output.shape[1] == noisy:
        # The published network works out the tokens of the parts to the end, and drops them afterwards.
        published = published[:, :noisy]
    assert_equal(output, published)


def test_rotations_equal_the_published_ones(io):
    table = io["rope_cos_sin"]
    assert_equal(rope_table(len(table), 2 * table.shape[1]), table)


def test_time_embedding_equals_the_published_one(io):
    assert_equal(time_embedding(io["t_mixed"]), io["timestep_embedding_256"])


@pytest.mark.parametrize(
    "sizes, parts, count",
    [
        ({"embedding_dim": 40, "hidden_dim": 96, "num_layers": 3, "num_heads": 6}, 5, 16),
        ({"embedding_dim": 24, "hidden_dim": 128, "num_layers": 1, "num_heads": 1}, 1, 16),
        ({"embedding_dim": 64, "hidden_dim": 120, "num_layers": 2, "num_heads": 60}, 2, 16),
        ({"embedding_dim": 16, "hidden_dim": 1152, "num_layers": 1, "num_heads": 18}, 2, 4),
        ({"embedding_dim": 32, "hidden_dim": 64, "num_layers": 2, "num_heads": 4, "feed_forward_dim": 80},
         9, 16),
    ],
)
def test_velocity_at_other_sizes_equals_a_plain_reference(sizes, parts, count):
    prior = random_prior(**sizes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, count, sizes["embedding_dim"], generator=generator)
    cond = torch.randn(2, count * parts, sizes["embedding_dim"], generator=generator)
    t = torch.tensor([0.83, 0.21])
    expected = reference_velocity(prior, sizes["num_heads"], x, t, cond)
    assert_equal(prior(x, t, cond), expected.float())


@pytest.mark.parametrize("layers", [0, 1])
def test_quiet_tokens_show_that_each_norm_has_its_published_epsilon(layers):
    prior = random_prior(embedding_dim=24, hidden_dim=32, num_layers=layers, num_heads=2)
    prior.x_embedder.bias.zero_()
    x, parts = 0.003 * torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([0.5])
    assert_equal(prior(x, t, parts), reference_velocity(prior, 2, x, t, parts).float())


@pytest.mark.parametrize("name", ["layers4", "layers8_default"])
def test_keys_and_shapes_are_the_published_ones(golden, name):
    published = golden.facts("pit_prior_full_keys")[name]
    sizes = published["config"]
    prior = IPPrior(
        sizes["embedding_dim"], sizes["hidden_dim"], sizes["n_layers"], sizes["n_heads"], device="meta"
    )
    assert {key: list(value.shape) for key, value in prior.state_dict().items()} == published["keys"]
    assert len(prior.state_dict()) == published["num_tensors"]
    assert sum(value.numel() for value in prior.parameters()) == published["num_params"]


@pytest.mark.parametrize("hidden, width", [(64, 256), (96, 256), (97, 512), (2048, 5632), (3072, 8192)])
def test_feed_forward_width_is_two_thirds_of_four_widths_rounded_up(hidden, width):
    assert feed_forward_width(hidden) == width


def test_the_order_of_the_parts_matters(prior, velocity):
    swapped = torch.cat([PARTS[:, 16:32], PARTS[:, :16], PARTS[:, 32:]], dim=1)
    assert (prior(X, T, swapped) - velocity).abs().max() > 0.01 * velocity.abs().max()


def test_concepts_of_a_batch_do_not_mix(prior, velocity):
    assert_equal(prior(X[1:], T[1:], PARTS[1:]), velocity[1:])


def test_training_starts_without_output():
    prior = random_prior(embedding_dim=24, hidden_dim=32, num_layers=1, num_heads=2)
    prior.reset_parameters()
    assert not prior(torch.randn(1, 16, 24), torch.ones(1), torch.randn(1, 32, 24)).any()
    assert not prior.x_embedder.bias.any() and prior.layers[0].adaLN_modulation[1].weight.any()


def test_half_precision_follows_float32(prior, velocity):
    half = IPPrior(**SIZES, dtype=torch.bfloat16)
    half.load_state_dict(prior.state_dict())
    with torch.no_grad():
        rough = half(X.bfloat16(), T, PARTS.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - velocity).norm() < 0.03 * velocity.norm()


@pytest.mark.parametrize("hidden, heads", [(64, 5), (64, 64), (30, 2)])
def test_heads_that_cannot_share_the_width_are_refused(hidden, heads):
    with pytest.raises(ValueError, match=f"splits into {heads} heads of even width, got {hidden}"):
        IPPrior(48, hidden, 1, heads, device="meta")


def test_every_weight_is_made_by_the_given_operations(prior, velocity):
    class Linear(nn.Linear):
        pass

    class LayerNorm(nn.LayerNorm):
        pass

    model = IPPrior(**SIZES, operations=SimpleNamespace(Linear=Linear, LayerNorm=LayerNorm))
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.LayerNorm)]
    assert sum(type(layer) is Linear for layer in layers) == 3 + 8 * 2 + 2
    assert sum(type(layer) is LayerNorm for layer in layers) == 4 * 2 + 1
    assert len(layers) == 30
    owned = {id(weight) for layer in layers for weight in layer.parameters()}
    assert owned == {id(weight) for weight in model.parameters()}
    model.load_state_dict(prior.state_dict())
    with torch.no_grad():
        assert_equal(model(X, T, PARTS), velocity)
