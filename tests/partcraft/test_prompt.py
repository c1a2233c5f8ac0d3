"""Part words in prompts, as people write them and as the published parsers read them."""

import pytest

from pit.messages import ShortError
from pit.partcraft.prompt import Part, PartWord, Vocabulary, numbered, read_prompt, words_of
from pit.partcraft.published_prompts import convert_prompt, demo_prompt

BIRDS = Vocabulary(
    (Part("body", 4), Part("tail", 4), Part("head", 4), Part("", 0), Part("wing", 4),
     Part("background", 6, named=False)),
    ("Cardinal", "blue jay", "Black-footed albatross", "spotted catbird"),
)


def test_prompts_are_converted_as_published(golden):
    for case in golden.facts("partcraft_tiny_config")["convert_prompt"]:
        found = convert_prompt(case["prompt"], case["version"])
        assert found == (case["caption"], case["codes"], case["parts"]), case


def test_prompts_of_the_demo_are_converted_as_published(golden):
    classes = [f"class{number}" for number in range(200)]
    for case in golden.facts("partcraft_tiny_config")["process_text"]:
        assert demo_prompt(case["prompt"], case["mapping"], classes) == (case["result"], case["labels"]), case


@pytest.mark.parametrize("version, prompt, expected", [
    ("re", " <02:003>x ", ("<part>_2x", [3], [2])),
    ("v1", "a  0:1, b", ("a  <part>_0 , b", [1], [0])),
    ("v2", "<0:1>x, at 3:4", ("<part>_0 x, at 3:4", [1], [0])),
    ("v2", "a <head>: b", None), ("v2", "<0:>", None), ("v2", "<a:1>", None), ("v2", "<1:2:3>", None),
    ("v1", "at 12:30pm", None), ("v1", "see http://a:80", None), ("v1", "a: b", None), ("v1", "0:1,x", None),
    ("v3", "a", None),
])
def test_what_no_published_parser_can_read_is_refused(version, prompt, expected):
    if expected is not None:
        assert convert_prompt(prompt, version) == expected
        return
    with pytest.raises(ShortError, match="^Expected .* got .*"):
        convert_prompt(prompt, version)


@pytest.mark.parametrize("prompt, expected", [
    ("a <head:1> bird", ["a ", PartWord(2, (0,)), " bird"]),
    ("<head:4><wing:2>", [PartWord(2, (3,)), PartWord(4, (1,))]),
    ("<HEAD:cardinal>", [PartWord(2, (0,))]),
    ("(<wing:black footed_Albatross>:1.2), x", ["(", PartWord(4, (2,)), ":1.2), x"]),
    ("< head : 1 | blue-jay | 1 >", [PartWord(2, (0, 1, 0))]),
    ("<2:0> <2:3>", [PartWord(2, (0,)), " ", PartWord(2, (3,))]),
    ("<background:6>", [PartWord(5, (5,))]),
    # What is no part word stays text.
    ("ratio 3:4 of <lora:some:0.8> <|x|> a < b : c", ["ratio 3:4 of <lora:some:0.8> <|x|> a < b : c"]),
    ("", []), ("<head>", ["<head>"]),
])
def test_part_words_as_people_write_them(prompt, expected):
    assert read_prompt(prompt, BIRDS) == expected
    assert words_of(expected) == [piece for piece in expected if not isinstance(piece, str)]


@pytest.mark.parametrize("prompt, message", [
    ("<head:0>", "a number from 1 to 4 for the part head, got 0"),
    ("<head:5>", "a number from 1 to 4 for the part head, got 5"),
    ("<2:4>", "a number from 0 to 3 for the part head, got 4"),
    ("<head:1|9>", "a number from 1 to 4"),
    ("<background:7>", "a number from 1 to 6 for the part background"),
    ("<head:cardnal>", "got 'cardnal'. Did you mean Cardinal?"),
    ("<heed:1>", "got 'heed'. Did you mean head?"),
    ("<xyz:1>", "got 'xyz'. There are body, tail, head, wing, background."),
    ("<head:xyz>", "There are Cardinal, blue jay"),
    ("<background:cardinal>", "a code of the part background, got 'cardinal'. There are 1, 2, 3"),
    ("<3:1>", "a part that these part words have, got '3'"), ("<6:1>", "got '6'"), ("<head:|>", "got ''"),
    (f"<head:{'|'.join('1' * 17)}>", "at most 16 codes mixed"),
    ("<head:1>" * 501, "at most 500 part words in a prompt, got 501"),
    ("<head:" + "9" * 300 + ">", "got '9999"), ("x" * 100_001, "at most 100000 letters, got 100001"),
])
def test_what_is_no_part_word_is_told_with_what_is_near(prompt, message):
    with pytest.raises(ShortError) as caught:
        read_prompt(prompt, BIRDS)
    assert message in str(caught.value) and len(str(caught.value)) <= 1000


def test_the_word_that_is_wrong_is_named():
    with pytest.raises(ShortError, match="The word is '<head:9>'"):
        read_prompt("a <wing:1> and <head:9>", BIRDS)


def test_a_word_is_written_as_it_is_read():
    for word in (PartWord(2, (3,)), PartWord(5, (4, 0)), PartWord(4, (0, 1))):
        assert read_prompt(BIRDS.text(word), BIRDS) == [word]
    few = Vocabulary((Part("head", 3),), ("cat",))
    assert few.codes_of(0) == ("cat", "2", "3") and read_prompt("<head:3>", few) == [PartWord(0, (2,))]


def test_words_without_names_have_numbers():
    vocabulary = numbered(2, 3)
    assert read_prompt("<1:2> <part1:3>", vocabulary) == [PartWord(1, (2,)), " ", PartWord(1, (2,))]
    with pytest.raises(ShortError, match="There are part0, part1"):
        read_prompt("<head:1>", vocabulary)


@pytest.mark.parametrize("syntax, prompt, expected", [
    ("re", "a <2:1> b", ["a ", PartWord(2, (1,)), " b"]),
    ("v1", "a 2:1, b", ["a ", PartWord(2, (1,)), " , b"]),
    ("v2", "a <2:1>, b", ["a ", PartWord(2, (1,)), " , b"]), ("v2", "plain", ["plain"]), ("v1", "a", ["a"]),
])
def test_published_prompts_come_to_the_same_pieces(syntax, prompt, expected):
    assert read_prompt(prompt, BIRDS, syntax) == expected


@pytest.mark.parametrize("syntax, prompt, message", [
    ("re", "<2:4>", "from 0 to 3"), ("v1", "9:1", "a part that these part words have, got '9'"),
    ("v1", "2:-1", "plain numbers of parts and codes from 0"), ("v1", "-1:2", "plain numbers"),
    ("re", "<part>_1 <2:1>", "no <part>_ in the text"), ("re", "<2:1> <part>_2", "no <part>_ in the text"),
    ("v2", "<2:1> <+2:1>", "plain numbers"), ("?", "", "'re', 'v1' or 'v2'"),
])
def test_published_prompts_that_name_no_word_are_refused(syntax, prompt, message):
    with pytest.raises(ShortError, match=message):
        read_prompt(prompt, BIRDS, syntax)
