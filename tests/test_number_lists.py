"""Lists of numbers as people type them, and what is refused."""

import math

import pytest

from pit.number_lists import amounts_in, edit_amounts_in, numbers_in


@pytest.mark.parametrize("text, amounts", [
    ("0.5", [0.5]), ("0, 0.25,1", [0.0, 0.25, 1.0]), (" 1 ,\n 1e-1, .5 ", [1.0, 0.1, 0.5]), ("-0", [0.0]),
])
def test_amounts_are_read_in_their_order(text, amounts):
    assert amounts_in(text) == amounts


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_is_not_a_list_of_amounts(text):
    with pytest.raises(ValueError, match="'0, 0.5, 1', got nothing"):
        amounts_in(text)


@pytest.mark.parametrize("text, item", [("half", "half"), ("0, ,1", ""), ("0.5,", ""), ("0.5 1", "0.5 1")])
def test_text_is_not_an_amount(text, item):
    with pytest.raises(ValueError) as error:
        amounts_in(text)
    assert f"got {item!r} in {text!r}" in str(error.value)


@pytest.mark.parametrize("amount", ["-0.1", "1.01", "nan", "inf", "-inf", str(math.pi)])
def test_amounts_lie_between_zero_and_one(amount):
    with pytest.raises(ValueError, match=f"between 0 .* and 1 .*, got {amount}"):
        amounts_in(f"0.5, {amount}")


@pytest.mark.parametrize("text, numbers", [
    ("1", [1]), ("1, 4, 7-9", [1, 4, 7, 8, 9]), (" 3 - 3,2 ,\n2", [3, 2, 2]), ("0", [0]), ("016", [16]),
])
def test_numbers_and_ranges_are_counted_out(text, numbers):
    assert list(numbers_in(text)) == numbers


def test_a_range_is_counted_only_as_far_as_it_is_asked():
    numbers = numbers_in("1-999999999999")
    assert [next(numbers) for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_is_not_a_list_of_numbers(text):
    with pytest.raises(ValueError, match="'1, 4, 7-9', got nothing"):
        list(numbers_in(text))


@pytest.mark.parametrize("text, item", [
    ("one", "one"), ("1,,2", ""), ("1, 2,", ""), ("-3", "-3"), ("1.5", "1.5"), ("1-", "1-"), ("1 2", "1 2"),
    ("1-2-3", "1-2-3"),
])
def test_text_is_not_a_number(text, item):
    with pytest.raises(ValueError) as error:
        list(numbers_in(text))
    assert f"got {item!r} in {text!r}" in str(error.value)


def test_a_range_may_not_run_backwards():
    with pytest.raises(ValueError, match="counts up, such as '7-9', got '9-7'"):
        list(numbers_in("1, 9-7"))


@pytest.mark.parametrize("text, amounts", [
    ("0.5", [0.5]), ("-1, -0.5,0 , .5,\n1", [-1.0, -0.5, 0.0, 0.5, 1.0]), ("1000, -1e3", [1000.0, -1000.0]),
    ("-1 to 1 in 5", [-1.0, -0.5, 0.0, 0.5, 1.0]), ("2  to  -2 in 2", [2.0, -2.0]),
    ("0, 1 to 3 in 3, -7", [0.0, 1.0, 2.0, 3.0, -7.0]), ("0 to 1 in 2, 1 to 0 in 2", [0.0, 1.0, 1.0, 0.0]),
    ("3 to 3 in 3", [3.0, 3.0, 3.0]),
])
def test_amounts_of_an_edit_are_read_in_their_order(text, amounts):
    assert edit_amounts_in(text) == amounts


@pytest.mark.parametrize("first, last", [
    (-1.0, 0.1), (0.1, 0.7), (-0.3, 2.2), (7.7, -1000.0), (1e-9, 1000.0),
])
def test_even_steps_begin_and_end_exactly_where_they_are_asked_to(first, last):
    for count in (2, 3, 7, 49, 256):
        amounts = edit_amounts_in(f"{first} to {last} in {count}")
        assert len(amounts) == count and (amounts[0], amounts[-1]) == (first, last)
        pace = (last - first) / (count - 1)
        for before, after in zip(amounts, amounts[1:], strict=False):
            assert after - before == pytest.approx(pace, rel=1e-6)


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_is_not_a_list_of_amounts_of_an_edit(text):
    with pytest.raises(ValueError, match="'-1, -0.5, 0, 0.5, 1', got nothing"):
        edit_amounts_in(text)


@pytest.mark.parametrize("text, item", [
    ("a bit", "a bit"), ("0, ,1", ""), ("1,", ""), ("1 2", "1 2"), ("nan", "nan"), ("1, inf", "inf"),
    ("-inf", "-inf"), ("1000.1", "1000.1"), ("-1001", "-1001"), ("1 to 2", "1 to 2"),
    ("low to 1 in 3", "low"), ("0 to high in 3", "high"), ("0 to nan in 3", "nan"),
    ("0 to 2000 in 3", "2000"),
    ("0 to 1 in many", "0 to 1 in many"), ("0 to 1 in -3", "0 to 1 in -3"),
    ("0 to 1 in 2.5", "0 to 1 in 2.5"), ("0 to 1 in 99999", "0 to 1 in 99999"), ("0to1in3", "0to1in3"),
])
def test_text_is_not_an_amount_of_an_edit(text, item):
    with pytest.raises(ValueError) as error:
        edit_amounts_in(text)
    assert "such as '-1, 0, 1' or '-1 to 1 in 5', none beyond 1000" in str(error.value)
    assert f"got {item!r} in {text!r}" in str(error.value)


@pytest.mark.parametrize("count", [0, 1, 257, 9999])
def test_even_steps_are_two_to_256(count):
    with pytest.raises(ValueError, match=f"from 2 to 256, got {count} in '0 to 1 in {count}'"):
        edit_amounts_in(f"0 to 1 in {count}")


@pytest.mark.parametrize("text", [",".join(["1"] * 257), "0 to 1 in 256, 2", "0 to 1 in 129, 0 to 1 in 128"])
def test_more_than_256_amounts_are_refused(text):
    with pytest.raises(ValueError, match="Expected at most 256 amounts at once, got 257"):
        edit_amounts_in(text)
    assert len(edit_amounts_in("0 to 1 in 128, 0 to 1 in 128")) == 256
