"""Masks on the grids of layers; masked tokens folded into two; strengths; references of several pictures."""

import math

import pytest
import torch
from torch import Tensor

from pit.parts2whole.attention import ReferenceTokens, attend_with_references, keys_and_values
from pit.parts2whole.references import (
    Written,
    folded,
    log_of_two,
    masked,
    reading,
    seen_mask,
    token_grid,
    token_mask,
)
from pit.unet import multi_head_attention

HEADS, WIDTH, OWN, TOKENS = 4, 32, 12, 10
CLOSE = {"atol": 1e-6, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("size", "tokens", "grid"), [
    ((512, 512), 4096, (64, 64)), ((512, 512), 64, (8, 8)), ((768, 512), 6144, (96, 64)),
    ((72, 56), 63, (9, 7)), ((72, 56), 20, (5, 4)), ((72, 56), 6, (3, 2)), ((72, 56), 2, (2, 1)),
    ((8, 512), 8, (1, 8)),
])
def test_the_grid_follows_from_the_number_of_tokens(size, tokens, grid):
    assert token_grid(size, tokens) == grid


@pytest.mark.parametrize("size", [(512, 512), (768, 512), (72, 56), (64, 96), (1032, 584), (24, 520)])
@pytest.mark.parametrize("halvings", range(4))
def test_the_grid_is_the_published_one(size, halvings):
    rows, columns = (-(-side // (8 << halvings)) for side in size)
    # As there: the factor is estimated from the number of pixels, which is exact but for the thinnest grids.
    factor = 2 ** math.ceil(math.log2(math.prod(size) / (rows * columns)) / 2)
    expected = tuple(math.ceil(side / factor) for side in size)
    assert token_grid(size, rows * columns) == expected == (rows, columns)


def test_a_mask_that_no_unet_could_have_is_refused():
    with pytest.raises(ValueError, match="72x56 pixels divide into 60 tokens, got one of"):
        token_grid((56, 72), 60)


def test_a_mask_grows_by_one_token_to_every_side():
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, 0, 24:32, 40:48] = 1
    mask[1, 0, :8, :8] = 0.5
    first, second = token_mask(mask, 64).unflatten(1, (8, 8))
    expected = torch.zeros(8, 8)
    expected[2:5, 4:7] = 1
    assert torch.equal(first, expected)
    assert second.nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and second.max() == 0.5


def test_the_preview_of_a_mask_is_what_the_finest_layers_see():
    mask = torch.zeros(2, 1, 40, 56)
    mask[0, 0, 17, 25] = mask[1] = 1
    first, second = seen_mask(mask)
    expected = torch.zeros(40, 56)
    expected[8:32, 16:40] = 1
    # Nearest neighbors are looked up at the first pixel of each square, so that one pixel can be missed.
    assert not first.any() and (second == 1).all()
    mask[0, 0, 16, 24] = 1
    assert torch.equal(seen_mask(mask)[0, 0], expected)


def test_soft_edges_are_summed_and_clamped():
    assert token_mask(torch.full((1, 1, 64, 64), 0.2), 64).max() == 1
    assert token_mask(torch.full((1, 1, 64, 64), 0.2), 64)[0, 0] == pytest.approx(0.8)


def test_features_outside_of_the_mask_are_zeros_and_rounding_is_a_choice():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    features = torch.randn(1, 64, WIDTH)
    written, rounded = masked(features, mask), masked(features, mask, rounded=True)
    inside = written.mask[0] > 0
    assert torch.equal(written.features[0, inside], features[0, inside])
    assert not written.features[0, ~inside].any() and inside.sum() == 40
    assert torch.equal(rounded.features, written.features.half().float())
    assert rounded.features.dtype == torch.float32 and not torch.equal(rounded.features, written.features)


def given(pictures: int, masks: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values of a layer's own tokens, and masked features of its references."""
    own = (torch.randn(pictures, OWN, WIDTH) for _ in "qkv")
    return *own, torch.randn(pictures, masks.shape[1], WIDTH) * masks[..., None]


def attended(q: Tensor, k: Tensor, v: Tensor, references: ReferenceTokens) -> Tensor:
    to_k, to_v = (torch.linspace(-1, 1, WIDTH) * sign for sign in (1, -1))
    projected = keys_and_values(references, lambda x: x * to_k, lambda x: x * to_v)
    return attend_with_references(q, k, v, HEADS, projected, [True] * len(q))


def plainly(q: Tensor, k: Tensor, v: Tensor, features: Tensor) -> Tensor:
    """The published way: every token takes part, masked ones as zeros."""
    return attended(q, k, v, ReferenceTokens(features, None))


MASKS = {
    "half": [[1.0] * 5 + [0.0] * 5], "all": [[1.0] * TOKENS], "none": [[0.0] * TOKENS],
    "soft": [[0.0, 0.3, 1.0, 0.0, 0.7, 0.0, 0.0, 0.1, 0.0, 0.0]],
    "ragged": [[1.0] * 9 + [0.0], [0.0] * 9 + [1.0], [1.0] * TOKENS, [0.0] * TOKENS],
}


@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_folding_changes_no_number(masks):
    masks = torch.tensor(masks)
    q, k, v, features = given(len(masks), masks)
    tokens = folded(features, masks)
    torch.testing.assert_close(attended(q, k, v, tokens), plainly(q, k, v, features), **CLOSE)
    most = int((masks > 0).sum(1).max())
    assert tokens.tokens.shape[1] == most + 2 * int((masks == 0).any())


def test_references_without_a_mask_need_no_bias():
    assert folded(torch.randn(1, TOKENS, WIDTH), torch.ones(1, TOKENS)).bias is None


def two_references() -> tuple[tuple[Tensor, ...], Written]:
    mask = torch.tensor([[1.0, 1, 0, 0, 1], [0.0, 1, 1, 0, 0]])
    *own, features = given(1, mask.reshape(1, -1))
    return tuple(own), Written(features.reshape(2, 5, WIDTH), mask)


@pytest.mark.parametrize(("strengths", "repeated"), [
    ([1, 1], [0, 1]), ([2, 1], [0, 0, 1]), ([1, 3], [0, 1, 1, 1]), ([0, 1], [1]), ([2, 0], [0, 0]),
    ([0, 0], []),
])
def test_a_strength_counts_as_often_as_it_says(strengths, repeated):
    own, written = two_references()
    ours = attended(*own, reading({"block": written}, strengths)["block"])
    expected = plainly(*own, written.features[repeated].reshape(1, -1, WIDTH))
    torch.testing.assert_close(ours, expected, **CLOSE)


def test_strengths_can_differ_between_pictures():
    mask = torch.tensor([[1.0, 0, 1], [1.0, 1, 1], [0.0, 0, 1], [1.0, 0, 0]])
    features = torch.randn(4, 3, WIDTH) * mask[..., None]
    q, k, v = (torch.randn(2, OWN, WIDTH) for _ in "qkv")
    for strengths in ([[1.0, 0], [0, 1.0]], [[0.0, 0], [1.0, 1]], [[0.0, 0], [0.0, 0]]):
        given = torch.tensor(strengths)
        ours = attended(q, k, v, reading({"block": Written(features, mask)}, given, pictures=2)["block"])
        for row in range(2):
            own = (each[row:row + 1] for each in (q, k, v))
            kept = features[2 * row:2 * row + 2][given[row] > 0]
            expected = plainly(*own, kept.reshape(1, -1, WIDTH))
            torch.testing.assert_close(ours[row:row + 1], expected, **CLOSE)


def test_strengths_between_are_between():
    own, written = two_references()
    without, half, whole = (
        attended(*own, reading({"block": written}, [strength, 1.0])["block"]) for strength in (0.0, 0.5, 1.0)
    )
    assert (half - without).norm() < (whole - without).norm() and (half - whole).norm() > 0


@pytest.mark.parametrize("strengths", [[1.0], [1.0, -0.1], [1.0, float("nan")], [float("inf"), 1.0]])
def test_strengths_that_make_no_sense_are_refused(strengths):
    with pytest.raises(ValueError, match="trength"):
        reading({"block": two_references()[1]}, strengths)


def test_pictures_have_references_of_their_own():
    mask = torch.tensor([[1.0, 0, 1], [1.0, 1, 1], [0.0, 0, 1], [1.0, 0, 0]])
    features = torch.randn(4, 3, WIDTH) * mask[..., None]
    q, k, v = (torch.randn(2, OWN, WIDTH) for _ in "qkv")
    ours = attended(q, k, v, reading({"block": Written(features, mask)}, pictures=2)["block"])
    for row in range(2):
        own = (each[row:row + 1] for each in (q, k, v))
        expected = plainly(*own, features[2 * row:2 * row + 2].reshape(1, -1, WIDTH))
        torch.testing.assert_close(ours[row:row + 1], expected, **CLOSE)


def test_gradients_pass_through_the_folding():
    mask = torch.tensor([[1.0, 0, 0.5, 0, 1], [0.0, 0, 0, 1, 0]])
    q, k, v, features = given(2, mask)
    grads = []
    for attend in (lambda x: attended(q, k, v, folded(x, mask)), lambda x: plainly(q, k, v, x)):
        leaf = features.clone().requires_grad_(True)
        attend(leaf * (mask[..., None] > 0)).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, **CLOSE)


@pytest.mark.parametrize("reads", [
    [True, True, True, True], [False, False, True, True], [True, False, True, False], [False] * 4,
])
@pytest.mark.parametrize("sets", [1, 2])
def test_only_rows_that_read_attend_to_references(reads, sets):
    mask = torch.tensor([[1.0, 0, 1, 1], [0.0, 0, 1, 1]])[:sets]
    features = torch.randn(sets, 4, WIDTH) * mask[..., None]
    q, k, v = (torch.randn(4, OWN, WIDTH) for _ in "qkv")
    references = keys_and_values(folded(features, mask), torch.nn.Identity(), torch.nn.Identity())
    calls = []

    def recorded(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        calls.append(len(q))
        return multi_head_attention(q, k, v, heads, mask)

    ours = attend_with_references(q, k, v, HEADS, references, reads, recorded)
    assert sum(calls) == 4 and len(calls) == 1 + sum(a != b for a, b in zip(reads, reads[1:], strict=False))
    seen = 0
    for row, read in enumerate(reads):
        own = [each[row:row + 1] for each in (q, k, v)]
        if read:
            extra = features[seen % sets][None]
            own[1], own[2] = torch.cat([own[1], extra], 1), torch.cat([own[2], extra], 1)
            seen += 1
        torch.testing.assert_close(ours[row:row + 1], multi_head_attention(*own, HEADS), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_precision(dtype):
    mask = torch.tensor([[1.0] * 4 + [0.0] * 4000])
    q, k, v, features = (each.to(dtype) for each in given(1, mask))
    ours = attended(q, k, v, folded(features, mask))
    assert ours.dtype == dtype
    expected = plainly(*(each.float() for each in (q, k, v)), features.float())
    torch.testing.assert_close(ours.float(), expected, atol=0.02 * expected.abs().max().item(), rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_keeps_the_weight_of_thousands_of_masked_tokens(dtype):
    counts = torch.cat([torch.arange(1.0, 200), torch.logspace(2, 6, 4000), torch.tensor([0.5, 0.02])])
    found = log_of_two(counts[:, None]).to(dtype).float().exp().sum(1)
    error = (found / counts - 1).abs().max()
    assert error < (1e-5 if dtype == torch.float32 else 2e-3), error
    alone = (counts.log().bfloat16().float().exp() / counts - 1).abs().max()
    assert alone > 0.025  # what one token would have


def test_no_masked_tokens_count_as_none():
    assert log_of_two(torch.zeros(1, 1)).tolist() == [[-math.inf, -math.inf]]
