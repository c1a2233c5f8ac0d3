import math

import pytest

from pit.number_lists import amounts_in, numbers_in


@pytest.mark.parametrize("text, amounts", [
    ("0.5", [0.5]), ("0, 0.25,1", [0.0, 0.25, 1.0]), (" 1 ,\n 1e-1, .5 ", [1.0, 0.1, 0.5]), ("-0", [0.0]),
])
def test_amounts_are_read_in_their_order(text, amounts):
    assert amounts_in(text) == amounts


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_is_no_list_of_amounts(text):
    with pytest.raises(ValueError, match="'0, 0.5, 1', found nothing"):
        amounts_in(text)


@pytest.mark.parametrize("text, item", [("half", "half"), ("0, ,1", ""), ("0.5,", ""), ("0.5 1", "0.5 1")])
def test_text_is_no_amount(text, item):
    with pytest.raises(ValueError) as error:
        amounts_in(text)
    assert f"found {item!r} in {text!r}" in str(error.value)


@pytest.mark.parametrize("amount", ["-0.1", "1.01", "nan", "inf", "-inf", str(math.pi)])
def test_amounts_lie_between_zero_and_one(amount):
    with pytest.raises(ValueError, match=f"between 0 .* and 1 .*, found {amount}"):
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
def test_nothing_is_no_list_of_numbers(text):
    with pytest.raises(ValueError, match="'1, 4, 7-9', found nothing"):
        list(numbers_in(text))


@pytest.mark.parametrize("text, item", [
    ("one", "one"), ("1,,2", ""), ("1, 2,", ""), ("-3", "-3"), ("1.5", "1.5"), ("1-", "1-"), ("1 2", "1 2"),
    ("1-2-3", "1-2-3"),
])
def test_text_is_no_number(text, item):
    with pytest.raises(ValueError) as error:
        list(numbers_in(text))
    assert f"found {item!r} in {text!r}" in str(error.value)


def test_a_range_may_not_run_backwards():
    with pytest.raises(ValueError, match="'9-7' runs backwards; write '7-9'"):
        list(numbers_in("1, 9-7"))
