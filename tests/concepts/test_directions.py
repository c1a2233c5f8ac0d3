"""Directions: found as published, applied, restricted, and combined."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pit.concepts.directions import (
    CLIP_SPACE,
    METHODS,
    TOKEN_SPACE,
    Direction,
    apply_amounts,
    apply_direction,
    combined,
    find_direction,
    only_tokens,
    orthogonal,
    raw_amounts,
    shrunken_direction,
)

PUBLISHED = [(16, 2048), (257, 1280)]


def drawn(count: int, seed: int, shape: tuple[int, int] = (16, 8)) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def direction(seed: int, space: str = TOKEN_SPACE, shape: tuple[int, int] = (16, 8), **known) -> Direction:
    return Direction(drawn(1, seed, shape)[0], space, source=f"number {seed}", **known)


def assert_close(ours: Tensor, reference: Tensor, tolerance: float = 1e-6) -> None:
    assert ours.shape == reference.shape
    assert (ours.double() - reference).abs().max() <= tolerance * max(1.0, reference.abs().max().item())


# Found --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(16, 8), *PUBLISHED])
def test_the_published_direction_is_the_difference_of_means(shape, dtype):
    a, b = drawn(3, 1, shape).to(dtype), (2 * drawn(5, 2, shape)).to(dtype)
    found = find_direction(a, b)
    assert found.dtype == torch.float32
    assert_close(found, b.double().mean(dim=0) - a.double().mean(dim=0))


def test_one_picture_of_each_class_is_enough_for_a_difference():
    a, b = drawn(1, 1), drawn(1, 2)
    assert_close(find_direction(a, b), b[0].double() - a[0].double())
    assert torch.equal(shrunken_direction(a, b), find_direction(a, b))


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_class_is_refused(method):
    with pytest.raises(ValueError, match="at least 1 of each .* got no picture in the first class"):
        METHODS[method](drawn(0, 1), drawn(3, 2))
    with pytest.raises(ValueError, match="got no picture in the second class"):
        METHODS[method](drawn(3, 1), drawn(0, 2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", [(16, 6), (8, 16)])
def test_classes_of_different_shapes_are_refused(method, other):
    shapes = rf"\[16, 8\] and \[{other[0]}, {other[1]}\]"
    with pytest.raises(ValueError, match=f"of one shape, got {shapes}"):
        METHODS[method](drawn(2, 1), drawn(2, 2, other))


# Applied ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [-2.5, 0.0, 0.3, 4.0])
@pytest.mark.parametrize("shape", [(16, 8), *PUBLISHED])
def test_an_edit_is_the_published_sum(shape, amount):
    tokens, along = drawn(2, 1, shape), drawn(1, 2, shape)[0]
    assert_close(apply_direction(tokens, along, amount), tokens.double() + amount * along.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_edit_keeps_the_type_of_the_tokens(dtype):
    tokens, along = drawn(2, 1).to(dtype), drawn(1, 2)[0]
    edited = apply_direction(tokens, along, 0.5)
    assert edited.dtype == dtype
    assert_close(edited, tokens.double() + 0.5 * along.double(), 2 * torch.finfo(dtype).eps)


def test_a_direction_in_half_precision_moves_float_tokens_exactly():
    tokens, along = drawn(2, 1), drawn(1, 2)[0].half()
    assert_close(apply_direction(tokens, along, 1.5), tokens.double() + 1.5 * along.double())


def test_an_amount_for_each_set_may_be_given():
    tokens, along = drawn(3, 1), drawn(1, 2)[0]
    amounts = torch.tensor([0.0, 1.0, -2.0])
    edited = apply_direction(tokens, along, amounts[:, None, None])
    for row, amount in enumerate(amounts.tolist()):
        assert torch.equal(edited[row], apply_direction(tokens[row:row + 1], along, amount)[0])


def test_the_way_there_and_back_ends_at_the_start():
    tokens, along = drawn(3, 1), drawn(1, 2)[0]
    there = apply_direction(tokens, along, 1.25)
    assert not torch.allclose(there, tokens, atol=0.1)
    assert_close(apply_direction(there, along, -1.25), tokens.double())


def test_all_sets_at_one_amount_come_before_the_next_amount():
    tokens, along = drawn(3, 1), drawn(1, 2)[0]
    edited = apply_amounts(tokens, along, [0.0, 1.0, -0.5])
    assert edited.shape == (9, 16, 8)
    assert torch.equal(edited[:3], tokens)
    assert torch.equal(edited[3:6], apply_direction(tokens, along, 1.0))
    assert torch.equal(edited[7], apply_direction(tokens[1:2], along, -0.5)[0])


@pytest.mark.parametrize("shape", [(16, 6), (257, 8)])
def test_a_direction_of_another_shape_is_refused(shape):
    found = rf"\[{shape[0]}, {shape[1]}\]"
    with pytest.raises(ValueError, match=rf"of the shape \[16, 8\], .* got the shape {found}"):
        apply_direction(drawn(2, 1), drawn(1, 2, shape)[0], 1.0)


def test_amounts_in_deviations_become_multiples_of_the_direction():
    assert raw_amounts(direction(1, deviation=0.25), [-2.0, 0.0, 1.0]) == [-0.5, 0.0, 0.25]


def test_amounts_in_deviations_want_a_direction_that_knows_its_own():
    with pytest.raises(ValueError, match="number 1, which does not say how far .* Give raw amounts, or find"):
        raw_amounts(direction(1), [1.0])


# Restricted ---------------------------------------------------------------------------------------------


def test_only_the_wanted_tokens_move():
    whole = direction(1, deviation=0.5, recommended=2.0, adapter="a" * 16)
    some = only_tokens(whole, [1, 4, 16, 4])
    kept, others = [0, 3, 15], [row for row in range(16) if row not in (0, 3, 15)]
    assert torch.equal(some.values[kept], whole.values[kept])
    assert not some.values[others].any() and whole.values[others].any()
    assert (some.space, some.deviation, some.recommended, some.adapter) == (TOKEN_SPACE, 0.5, 2.0, "a" * 16)


@pytest.mark.parametrize("number", [0, -1, 17])
def test_a_token_that_is_not_there_is_refused(number):
    with pytest.raises(ValueError, match=f"tokens from 1 to 16, .*, got {number}"):
        only_tokens(direction(1), [1, number])


def test_a_token_too_high_ends_an_endless_list():
    def numbers():
        yield 1
        yield 99
        pytest.fail("it went on after a token that is not there")

    with pytest.raises(ValueError, match="got 99"):
        only_tokens(direction(1), numbers())


# Combined -----------------------------------------------------------------------------------------------


def test_a_combination_is_the_weighed_sum_and_says_so():
    first, second = direction(1, adapter="b" * 16, deviation=1.0), direction(2)
    both = combined(first, second, 0.5, -2.0)
    assert_close(both.values, 0.5 * first.values.double() - 2.0 * second.values.double())
    assert both.source == "Combine IP+ Directions (0.5 x first + -2 x second)"
    assert both.notes["first"] == "number 1" and both.notes["second"] == "number 2"
    assert (both.space, both.deviation, both.recommended) == (TOKEN_SPACE, None, None)
    assert both.adapter == combined(second, first, 1.0, 1.0).adapter == "b" * 16


def test_what_is_left_of_a_direction_is_orthogonal_to_the_other():
    first, second = direction(1, CLIP_SPACE, (9, 5)), direction(2, CLIP_SPACE, (9, 5))
    left = orthogonal(first, second)
    a, b = left.values.flatten().double(), second.values.flatten().double()
    assert abs(a @ b) <= 1e-6 * a.norm() * b.norm()
    assert abs(first.values.flatten().double() @ b) > 1e-2 * a.norm() * b.norm()
    removed = first.values.flatten().double() - a
    assert_close(removed, (removed @ b) / (b @ b) * b)
    assert left.space == CLIP_SPACE and left.notes["made of"] == "first without second"


def test_what_is_orthogonal_already_stays():
    first, second = torch.zeros(16, 8), torch.zeros(16, 8)
    first[0, 0], second[3, 2] = 2.0, 5.0
    for other in (second, torch.zeros(16, 8)):
        one, two = (Direction(each, TOKEN_SPACE, source="a test") for each in (first, other))
        left = orthogonal(one, two)
        assert torch.equal(left.values, first)


@pytest.mark.parametrize("factor", [1.0, -3.0, 1e-3])
def test_of_parallel_directions_nothing_is_left(factor):
    first = direction(1)
    second = Direction(factor * first.values, TOKEN_SPACE, source="its double")
    with pytest.raises(ValueError, match="number 1 and its double, of which nothing is left"):
        orthogonal(first, second)


@pytest.mark.parametrize("combine", [orthogonal, lambda first, second: combined(first, second, 1.0, 1.0)])
def test_directions_of_different_adapters_are_refused(combine):
    first, second = (Direction(drawn(1, seed)[0], TOKEN_SPACE, source=name, adapter=name * 16)
                     for seed, name in enumerate("ab"))
    with pytest.raises(ValueError, match="one IP-Adapter, got a and b, found with a+ and b+"):
        combine(first, second)


@pytest.mark.parametrize("combine", [orthogonal, lambda first, second: combined(first, second, 1.0, 1.0)])
@pytest.mark.parametrize("other", [
    direction(2, CLIP_SPACE), direction(2, CLIP_SPACE, (257, 4)), direction(2, TOKEN_SPACE, (16, 6)),
])
def test_directions_of_different_spaces_are_refused(combine, other):
    with pytest.raises(ValueError) as caught:
        combine(direction(1), other)
    message = str(caught.value)
    assert message.startswith("Expected two directions in one space, got number 1 in tokens space")
    assert f"number 2 in {other.space} space with the shape {list(other.values.shape)}" in message
