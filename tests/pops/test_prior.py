"""The prior against the published network, against diffusers' own at other sizes, and its own promises."""

import pytest
import torch
from diffusers import PriorTransformer as PublishedPrior
from torch import Tensor

from pit.pops.prior import PriorTransformer
from tests.golden import Golden, assert_equal, relative_error
from tests.pops.tiny import HEADS, LAYERS, WIDTH, random_operator

KEYS = "pops_full_keys"


def seeded(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def golden_prior(golden: Golden) -> PriorTransformer:
    """The network of the golden data, with its weights."""
    sizes = golden.facts("pops_tiny_config")["prior"]
    heads, head_dim = sizes["num_attention_heads"], sizes["attention_head_dim"]
    prior = PriorTransformer(
        sizes["embedding_dim"], heads * head_dim, sizes["num_layers"], heads,
        num_slots=sizes["num_embeddings"],
    )
    prior.load_state_dict(golden.tensors("pops_tiny_state"))
    return prior.eval()


def reference(ours: PriorTransformer, heads: int = HEADS) -> PublishedPrior:
    """diffusers' network with the same weights."""
    hidden, slots = ours.prd_embedding.shape[-1], ours.num_slots
    published = PublishedPrior(
        heads, hidden // heads, len(ours.transformer_blocks), ours.embedding_dim, slots,
        additional_embeddings=4,
    )
    published.load_state_dict(ours.state_dict())
    return published.eval()


@torch.no_grad()
def answer(published: PublishedPrior, x: Tensor, t: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
    """What the published network says, with all of its slots."""
    unused = published.config.num_embeddings - condition.shape[1]
    padded = torch.nn.functional.pad(condition, (0, 0, 0, unused))
    mask = torch.nn.functional.pad(mask, (0, unused))
    return published(x, t, torch.zeros_like(x), padded, mask).predicted_image_embedding


@torch.no_grad()
@pytest.mark.golden_keys("pops_tiny_io", r"fwd\.(?!generic).*\.pred")
def test_the_prediction_is_the_published_one_in_every_mode(golden, key):
    prior, io = golden_prior(golden), golden.below("pops_tiny_io", key.removesuffix("pred"))
    x, t, hidden, pred = (io[name] for name in ("x", "t", "hidden", "pred"))
    assert_equal(prior(x, t, hidden), pred)
    # And with all slots, those that are not used masked, as published.
    slots = torch.nn.functional.pad(hidden, (0, 0, 0, prior.num_slots - hidden.shape[1]))
    mask = torch.arange(prior.num_slots) < hidden.shape[1]
    assert_equal(prior(x, t, slots, mask.expand(len(x), -1)), pred)
    prepared = prior.prepared(hidden, t.tolist())
    for row, time in enumerate(t.tolist()):
        assert_equal(prepared(x, time)[row], pred[row])


@torch.no_grad()
@pytest.mark.golden_keys("pops_tiny_io", r"fwd\.generic\.pred_t\d+(_nomask)?")
def test_the_prediction_is_the_published_one_with_ragged_masks_and_an_extra_embedding(golden, key):
    prior, io = golden_prior(golden), golden.below("pops_tiny_io", "fwd.generic.")
    t = torch.tensor(int("".join(filter(str.isdigit, key))))
    unmasked = key.endswith("_nomask")
    mask = None if unmasked else io["mask"]
    found = prior(io["x"], t, io["seq"], mask, proj=io["proj"], causal=not unmasked)
    assert_equal(found, io[key.removeprefix("fwd.generic.")])


def test_the_keys_are_the_published_ones(golden):
    facts = golden.facts(KEYS)
    sizes = facts["config"]
    heads = sizes["num_attention_heads"]
    prior = PriorTransformer(
        sizes["embedding_dim"], heads * sizes["attention_head_dim"], sizes["num_layers"], heads,
        num_slots=sizes["num_embeddings"], device="meta",
    )
    found = {key: list(value.shape) for key, value in prior.state_dict().items()}
    assert found == facts["prior"]
    assert sum(value.numel() for value in prior.state_dict().values()) == facts["params"]["prior"]
    assert facts["operator_checkpoint_missing"] == ["clip_mean", "clip_std"]
    # The sizes by default are the published ones.
    default = PriorTransformer(device="meta").state_dict()
    assert {key: list(value.shape) for key, value in default.items()} == facts["prior"]


@torch.no_grad()
@pytest.mark.parametrize("heads, layers, width", [(HEADS, LAYERS, WIDTH), (2, 1, 40), (8, 4, 17)])
def test_other_sizes_give_what_diffusers_gives(heads, layers, width):
    prior = random_operator(3, width, layers, heads)
    x, condition, t = seeded(1, 3, width), seeded(2, 3, 5, width), torch.tensor([999, 437, 0])
    mask = torch.ones(3, 5, dtype=torch.bool)
    theirs = answer(reference(prior, heads), x, t, condition, mask)
    assert_equal(prior(x, t, condition), theirs)
    prepared = prior.prepared(condition, t.tolist())
    assert all(relative_error(prepared(x, int(t[row]))[row], theirs[row]) < 1e-5 for row in range(3))


@torch.no_grad()
def test_conditions_of_different_lengths_give_in_one_batch_what_each_gives_alone():
    prior, lengths = random_operator(), (1, 6, 3, 0)
    x, condition = seeded(1, 4, WIDTH), seeded(2, 4, 9, WIDTH)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    theirs = answer(reference(prior), x, torch.tensor([500]).expand(4), condition, mask)
    assert_equal(prior(x, torch.tensor(500), condition, mask), theirs)
    prepared = prior.prepared(condition, [999, 500], mask)
    assert_equal(prepared(x, 500), theirs)
    for row, length in enumerate(lengths[:3]):
        alone = prior(x[row:row + 1], torch.tensor(500), condition[row:row + 1, :length])
        assert_equal(alone[0], theirs[row])


@torch.no_grad()
def test_a_mask_with_gaps_hides_what_it_says():
    prior, x, condition = random_operator(), seeded(1, 2, WIDTH), seeded(2, 2, 5, WIDTH)
    mask = torch.tensor([[False, True, False, True, True], [True, False, False, False, True]])
    theirs = answer(reference(prior), x, torch.tensor([7, 8]), condition, mask)
    assert_equal(prior(x, torch.tensor([7, 8]), condition, mask), theirs)
    assert_equal(prior.prepared(condition, [7, 8], mask)(x, 7)[0], theirs[0])


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8])
def test_a_mask_may_come_in_numbers(dtype):
    prior, x, condition = random_operator(), seeded(1, 2, WIDTH), seeded(2, 2, 5, WIDTH)
    mask, t = torch.arange(5) < torch.tensor([[4], [2]]), torch.tensor([7, 8])
    assert torch.equal(prior(x, t, condition, mask.to(dtype)), prior(x, t, condition, mask))
    found = prior.prepared(condition, [7], mask.to(dtype))(x, 7)
    assert torch.equal(found, prior.prepared(condition, [7], mask)(x, 7))


@torch.no_grad()
def test_a_prepared_prior_reads_the_weights_of_condition_and_times_once():
    prior, calls = random_operator(), []
    prior.encoder_hidden_states_proj.register_forward_hook(lambda *_: calls.append("condition"))
    prior.time_embedding.register_forward_hook(lambda *_: calls.append("times"))
    prior.transformer_blocks[0].attn1.to_q.register_forward_hook(lambda _, x, __: calls.append(x[0].shape[1]))
    prepared = prior.prepared(seeded(2, 1, 2, WIDTH), [900, 500, 100])
    for t in (900, 500, 100):
        prepared(seeded(1, 1, WIDTH), t)
    # Two slots, the extra embedding and three times; then the noisy embedding and the prediction.
    assert calls == ["condition", "times", 6, 2, 2, 2]


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
def test_rows_that_share_a_condition_share_the_work(masked):
    prior, seen = random_operator(), []
    prior.encoder_hidden_states_proj.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    condition = seeded(2, 2, 3, WIDTH)[[0, 1, 0, 0, 1]]
    # The same tokens with another length are another condition.
    mask = torch.arange(3) < torch.tensor([[3], [3], [3], [2], [3]]) if masked else None
    x, t = seeded(1, 5, WIDTH), torch.tensor(300)
    found = prior.prepared(condition, [300], mask)(x, 300)
    assert seen == [3 if masked else 2]
    assert_equal(found, prior(x, t, condition, mask))


@torch.no_grad()
def test_linear_layers_are_given_whole_tensors():
    """For slices of bfloat16, torch copies the weights of a layer for every row."""
    prior, sliced = random_operator(), []

    def look(module: torch.nn.Linear, inputs: tuple[Tensor]) -> None:
        sliced.extend([] if inputs[0].is_contiguous() or inputs[0].ndim < 3 else [inputs[0].shape])

    for module in prior.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(look)
    condition, x = seeded(2, 8, 2, WIDTH), seeded(1, 8, WIDTH)
    prior.prepared(condition, [300])(x, 300)
    prior(x, torch.tensor(300), condition)
    assert sliced == []


@torch.no_grad()
def test_every_token_of_the_condition_matters_and_its_order_does():
    prior, x, t = random_operator(), seeded(1, 1, WIDTH), torch.tensor([300])
    condition = seeded(2, 1, 3, WIDTH)
    found = prior(x, t, condition)
    for slot in range(3):
        changed = condition.clone()
        changed[:, slot] += 1
        assert relative_error(prior(x, t, changed), found) > 1e-3
    assert relative_error(prior(x, t, condition.flip(1)), found) > 1e-3


@pytest.mark.parametrize("shape", [(1, 78, WIDTH), (1, 0, WIDTH), (1, 2, WIDTH + 1), (2, WIDTH)])
def test_a_condition_that_does_not_fit_is_refused(shape):
    prior, x, t = random_operator(), torch.zeros(1, WIDTH), torch.tensor([1])
    for use in (lambda condition: prior(x, t, condition), lambda condition: prior.prepared(condition, [1])):
        with pytest.raises(ValueError, match=r"Expected a condition of the shape \[B, n, 24\] with 1 to 77"):
            use(torch.zeros(shape))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"Expected a mask of the shape \[2, 3\]"):
        random_operator().prepared(torch.zeros(2, 3, WIDTH), [1], torch.ones(1, 3, dtype=torch.bool))


def test_a_width_that_does_not_split_into_heads_is_refused():
    with pytest.raises(ValueError, match="splits into 5 heads, got 32"):
        PriorTransformer(8, 32, 1, 5)


@torch.no_grad()
def test_raw_and_normalized_are_inverse_whatever_type_the_weights_have():
    prior, raw = random_operator(), seeded(1, 2, WIDTH)
    assert_equal(prior.raw(prior.normalized(raw)), raw)
    assert_equal(prior.normalized(raw), (raw - prior.clip_mean) / prior.clip_std)
    assert prior.bfloat16().normalized(raw.bfloat16()).dtype == torch.float32
