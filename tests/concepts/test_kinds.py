"""Image embeddings through the same functions as IP+ tokens: one vector each in place of sixteen."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from pit.concepts.concepts import (
    MOST_BYTES,
    average,
    blend,
    check_same_space,
    derived,
    difference_added,
    joined,
    picked,
)
from pit.concepts.directions import EMBEDDING_SPACE, Direction, combined, only_tokens, orthogonal
from pit.concepts.editing import between, check_moves, moved
from pit.concepts.token_files import read_direction, save_direction
from pit.concepts.tokens import Tokens
from pit.files.weights import WeightFileError, write_state
from pit.pops.embeddings import Embedding
from tests.golden import assert_equal
from tests.refusal import assert_refused

WIDTH = 12


def embedding(count: int, seed: int = 0, source: str = "a test", **facts) -> Embedding:
    values = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    negative = facts.pop("negative", torch.ones(1, WIDTH))
    return Embedding(values, negative, "an encoder", source=source, **facts)


def tokens(count: int, seed: int = 0, **facts) -> Tokens:
    values = torch.randn(count + 1, 16, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Tokens(values[1:], values[:1], source="tokens of a test", **facts)


def test_embeddings_are_picked_with_repetitions():
    three = embedding(3)
    found = picked(three, [3, 1, 3])
    assert torch.equal(found.values, three.values[[2, 0, 2]])
    assert found == replace(three, values=found.values)
    with pytest.raises(ValueError, match="numbers of concepts from 1 to 3, got 4"):
        picked(three, [4])
    with pytest.raises(ValueError, match=f"at most {MOST_BYTES // (4 * WIDTH)} concepts"):
        picked(three, (1 for _ in iter(int, 1)))


def test_batches_are_joined_with_what_any_of_them_knows():
    first, second = embedding(2, negative=None, source="one"), embedding(1, 1, source="two")
    found = joined([replace(first, encoder=""), second], "Batch")
    assert torch.equal(found.values, torch.cat([first.values, second.values]))
    assert torch.equal(found.negative, second.negative) and found.encoder == "an encoder"
    assert found.space == "raw" and found.source == "Batch"
    assert found.notes == {"made by": "Batch", "from 1": "one", "from 2": "two"}


@pytest.mark.parametrize("spherical", [True, False])
def test_numbers_are_those_of_sets_of_one_vector(spherical):
    first, second, third = (embedding(2, seed).values for seed in range(3))
    sets = [each[:, None] for each in (first, second, third)]
    amounts = (0.0, 0.3, 1.0)
    assert_equal(blend(first, second, amounts, spherical)[:, None], blend(*sets[:2], amounts, spherical))
    assert_equal(difference_added(first, second, third, 0.5)[:, None], difference_added(*sets, 0.5))
    for keep_length in (True, False):
        assert_equal(average(first, keep_length)[:, None], average(sets[0], keep_length))


def test_what_is_made_of_normalized_embeddings_is_normalized():
    both = [embedding(1, seed, space="normalized") for seed in range(2)]
    assert derived(both, both[0].values, "x").space == joined(both, "x").space == "normalized"


@pytest.mark.parametrize("other, message", [
    (tokens(1), "concepts of one kind, got image embeddings from a test and IP. tokens from tokens of a"),
    (embedding(1, space="normalized", source="b"), "in one space, got raw ones .*normalized .*from b"),
    (embedding(1, negative=-torch.ones(1, WIDTH), source="b"), "of one image encoder, got .* a test .* b "),
    (Embedding(torch.ones(1, 9), source="b"), "of one image encoder, got .* a test .* b "),
])
def test_what_does_not_lie_in_one_space_is_refused(other, message):
    for batches in ((embedding(1), other), (embedding(1), embedding(1, 1), other)):
        with pytest.raises(ValueError, match=message):
            check_same_space(*batches)
        with pytest.raises(ValueError, match=message):
            joined(batches, "x")


@pytest.fixture
def kinds() -> tuple[Embedding, Embedding]:
    """Two kinds of embeddings that differ in their first number."""
    second = embedding(20, 1, source="round")
    return embedding(20, source="square"), replace(second, values=second.values + 6 * torch.eye(WIDTH)[0])


def test_a_direction_is_found_between_embeddings(kinds):
    folds = []
    direction, separation = between(*kinds, "difference of means", "a finder", lambda: folds.append(1))
    means = [each.values.double().mean(0) for each in kinds]
    assert_equal(direction.values[0], means[1] - means[0])
    assert direction.space == EMBEDDING_SPACE and torch.equal(direction.negative, kinds[0].negative)
    assert separation.accuracy == 1 and direction.recommended > 0.5 and len(folds) == 5
    assert direction.notes["first"] == "square" and direction.notes["second"] == "round"


def test_a_direction_is_found_between_tokens():
    kinds = tokens(4, adapter="a"), tokens(4, 1, adapter="a")
    direction, _ = between(*kinds, "difference of means", "a finder")
    assert direction.space == "tokens" and direction.adapter == "a" and direction.negative is None
    assert_equal(direction.values, (kinds[1].values.double().mean(0) - kinds[0].values.double().mean(0)))


def test_kinds_that_do_not_fit_give_no_direction(kinds):
    normalized = [replace(each, space="normalized") for each in kinds]
    for pair, message in (
        ((kinds[0], tokens(4)), "concepts of one kind"),
        ((kinds[0], normalized[1]), "in one space"),
        (normalized, "raw embeddings for a direction, got normalized ones from square"),
        ((kinds[0], kinds[0]), "the same pictures in both"),
        ((kinds[0], picked(kinds[1], [1])), "at least 2 of each class"),
    ):
        with pytest.raises(ValueError, match=message):
            between(*pair, "shrinkage", "a finder")


def test_embeddings_move_along_a_direction(kinds):
    direction, _ = between(*kinds, "shrinkage", "a finder")
    two = picked(kinds[0], [1, 2])
    found = moved(two, direction, [-1.0, 0.0, 2.0], "an edit")
    expected = torch.cat([two.values + amount * direction.values for amount in (-1.0, 0.0, 2.0)])
    assert torch.equal(found.values, expected) and torch.equal(found.values[2:4], two.values)
    assert found.negative is two.negative and found.source == "an edit"


def test_a_direction_of_another_space_or_encoder_moves_nothing(kinds):
    direction, _ = between(*kinds, "shrinkage", "a finder")
    check_moves(direction, kinds[0])
    check_moves(replace(direction, negative=None), kinds[0])
    of_tokens, _ = between(tokens(4), tokens(4, 1), "shrinkage", "tokens")
    for concepts, given, message in (
        (kinds[0], of_tokens, "for image embeddings, as from square, got tokens in tokens space"),
        (tokens(1), direction, "for IP. tokens, as from tokens of a test, got a finder in embedding space"),
        (replace(kinds[0], space="normalized"), direction, "raw embeddings for a direction"),
        (kinds[0], replace(direction, negative=-direction.negative), "for the image encoder .* from square"),
    ):
        with pytest.raises(ValueError, match=message):
            check_moves(given, concepts)


def test_directions_of_embeddings_are_combined(kinds):
    direction, _ = between(*kinds, "shrinkage", "a finder")
    other = replace(direction, values=torch.ones(1, WIDTH), negative=None)
    assert torch.equal(combined(other, direction, 1.0, 2.0).values, 1 + 2 * direction.values)
    assert torch.equal(combined(other, direction, 1.0, 2.0).negative, direction.negative)
    assert (orthogonal(direction, other).values.sum()).abs() < 1e-4
    with pytest.raises(ValueError, match="two directions of one image encoder"):
        combined(direction, replace(other, negative=-direction.negative), 1.0, 1.0)
    with pytest.raises(ValueError, match="tokens from 1 to 1"):
        only_tokens(direction, [2])


def test_a_direction_of_embeddings_is_kept(kinds, tmp_path):
    direction, _ = between(*kinds, "shrinkage", "a finder")
    path = tmp_path / "a.safetensors"
    for known in (direction, replace(direction, negative=None)):
        save_direction(path, known)
        found = read_direction(path, "a")
        assert torch.equal(found.values, direction.values)
        assert (found.negative is None) == (known.negative is None)
        assert (found.space, found.deviation, found.recommended, found.notes) == (
            known.space, known.deviation, known.recommended, known.notes)
    save_direction(path, direction)
    assert torch.equal(read_direction(path, "a").negative, direction.negative)


@pytest.mark.parametrize("change, message", [
    ({"direction": torch.ones(2, WIDTH)}, "in embedding space to have 1 rows, got 2"),
    ({"direction": torch.ones(1, 0)}, "expected an edit direction"),
    ({"direction": torch.full((1, WIDTH), torch.nan)}, "finite numbers in direction"),
    ({"negative": torch.ones(1, 5)}, r"negative of the shape \[1, 12\].*got \[1, 5\]"),
    ({"negative": torch.full((1, WIDTH), torch.inf)}, "finite numbers in negative"),
    ({"negative": torch.ones(1, WIDTH, dtype=torch.long)}, "floating-point numbers in negative"),
    ({"more": torch.ones(1)}, "expected an edit direction"),
])
def test_a_damaged_direction_of_embeddings_is_refused(tmp_path, change, message):
    path, facts = tmp_path / "a.safetensors", {"piece_it_together": "direction", "space": "embedding"}
    state = {"direction": torch.ones(1, WIDTH), "negative": torch.ones(1, WIDTH)}
    write_state(path, state | change, facts)
    with pytest.raises(WeightFileError, match=message):
        read_direction(path, "a")


def test_a_bare_vector_is_no_direction(tmp_path):
    """Nothing tells what it is: it may be an embedding."""
    save_file({"direction": torch.ones(1, WIDTH)}, tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors")
    assert_refused(read_direction, tmp_path / "a.safetensors", "expected an edit direction", name="a")
    both = {"direction": torch.ones(4, WIDTH), "negative": torch.ones(1, WIDTH)}
    save_file(both, tmp_path / "a.safetensors")
    assert_refused(read_direction, tmp_path / "a.safetensors", "an edit direction", name="a")


def test_a_direction_says_of_which_space_it_is():
    of_tokens = Direction(torch.ones(16, WIDTH), "tokens", source="a")
    with pytest.raises(ValueError, match="directions in one space"):
        combined(of_tokens, Direction(torch.ones(1, WIDTH), EMBEDDING_SPACE, source="b"), 1.0, 1.0)
