"""Part words in prompts: `<head:17>`, `<head:cardinal>`, and mixtures such as `<head:17|cardinal>`."""
from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..messages import ShortError, quoted
from .published_prompts import convert_prompt

# Neither a smiley with a colon far behind it nor `<lora:name:1>` of other tools, which has two colons.
WORD = re.compile(r"<([^<>:|\n]{1,60}):([^<>:\n]{1,400})>")
PLACEHOLDER = re.compile(r"<part>_(\d{1,18})")
OWN_SYNTAX = "words"
SYNTAXES = (OWN_SYNTAX, "re", "v1", "v2")  # the last three as published
MOST_LETTERS = 100_000
MOST_MIXED = 16
MOST_WORDS = 500  # in a prompt
SHOWN = 6
DIGITS = re.compile(r"\d{1,18}")


class PartWord(NamedTuple):
    """A part, and whose it is: one code, or several for an even mixture."""

    part: int
    codes: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """What a part is called and how many codes it has.

    Attributes:
        named: whether its codes are the classes of the vocabulary, not numbers of clusters.
    """

    name: str
    count: int
    named: bool = True


@dataclass(frozen=True)
class Vocabulary:
    """The names of part words.

    Attributes:
        parts: in the order of their numbers; those of count 0 have no words.
        classes: the names of the codes, in their order; none where nobody has named them.
    """

    parts: tuple[Part, ...]
    classes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The names of the parts that have words."""
        return [part.name for part in self.parts if part.count]

    def codes_of(self, part: int) -> tuple[str, ...]:
        """What stands for each code of a part in a word: a class, or a number from 1."""
        known = self.parts[part]
        named = self.classes[:known.count] if known.named else ()
        return (*named, *(str(number + 1) for number in range(len(named), known.count)))

    def text(self, word: PartWord) -> str:
        """A word as people write it."""
        names = self.codes_of(word.part)
        return f"<{self.parts[word.part].name}:{'|'.join(names[code] for code in word.codes)}>"

    def part_number(self, name: str) -> int:
        """The number of a part by its name or number. Raises ShortError, with near ones, if there is none."""
        return self._part(name.strip(), DIGITS.fullmatch(name.strip()) is not None)

    def word(self, part: str, codes: str) -> PartWord:
        """The word in `<part:codes>`.

        A part that is named counts its codes from 1, as the published demo does; one that is given by its
        number counts them from 0, as the published prompts do.

        Raises:
            ShortError: there is no such part or code; names those that are near.
        """
        by_number = DIGITS.fullmatch(part.strip()) is not None
        number = self.part_number(part)
        items = codes.split("|")
        if len(items) > MOST_MIXED:
            raise ShortError(
                f"Expected at most {MOST_MIXED} codes mixed in a part word, got {len(items)}. Mix fewer."
            )
        return PartWord(number, tuple(self._code(number, item.strip(), 1 - by_number) for item in items))

    def _part(self, name: str, by_number: bool) -> int:
        keys = {_key(part.name): number for number, part in enumerate(self.parts) if part.count}
        number = int(name) if by_number else keys.get(_key(name), -1)
        if not 0 <= number < len(self.parts) or not self.parts[number].count:
            raise ShortError(
                f"Expected a part that these part words have, got {quoted(name)}. "
                f"{near(name, self.names())}"
            )
        return number

    def _code(self, part: int, text: str, first: int) -> int:
        known = self.parts[part]
        if DIGITS.fullmatch(text):
            code = int(text) - first
            if not 0 <= code < known.count:
                raise ShortError(
                    f"Expected a number from {first} to {known.count - 1 + first} for the part {known.name}, "
                    f"got {text}. Choose one of its {known.count} codes."
                )
            return code
        names = self.codes_of(part)
        keys = {_key(name): code for code, name in reversed(list(enumerate(names)))}
        if _key(text) not in keys:
            raise ShortError(
                f"Expected a code of the part {known.name}, got {quoted(text)}. {near(text, names)}"
            )
        return keys[_key(text)]


def numbered(parts: int, codes: int) -> Vocabulary:
    """The vocabulary of part words whose names nobody knows: part0, part1 and so on."""
    return Vocabulary(tuple(Part(f"part{number}", codes, named=False) for number in range(parts)))


def near(name: str, names: Sequence[str]) -> str:
    """A sentence that names what may have been meant."""
    keys = {_key(each): each for each in names}
    found = difflib.get_close_matches(_key(name)[:60], keys, 3)
    if found:
        return f"Did you mean {' or '.join(keys[each] for each in found)}?"
    if not names:
        return "There is none."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"There are {', '.join(names[:SHOWN])}{more}."


def _key(name: str) -> str:
    """A name without what people write in different ways."""
    return " ".join(re.split(r"[\s_-]+", name.casefold())).strip()


def read_prompt(text: str, vocabulary: Vocabulary, syntax: str = OWN_SYNTAX) -> list[str | PartWord]:
    """A prompt as pieces of text and part words, in its order.

    Args:
        syntax: "words" for `<head:17>`, `<head:cardinal|blue jay>` and `<2:16>`; or a parser as published.
    Raises:
        ShortError: a part word that there is not; names the word, and those that are near.
    """
    if len(text) > MOST_LETTERS:
        raise ShortError(f"Expected a prompt of at most {MOST_LETTERS} letters, got {len(text)}. Shorten it.")
    pieces = _own(text, vocabulary) if syntax == OWN_SYNTAX else _published(text, vocabulary, syntax)
    return [piece for piece in pieces if piece != ""]


def _own(text: str, vocabulary: Vocabulary) -> Iterator[str | PartWord]:
    # The pattern has two groups, so that every third piece is text.
    pieces = WORD.split(text)
    if len(pieces) > 3 * MOST_WORDS + 1:
        raise ShortError(
            f"Expected at most {MOST_WORDS} part words in a prompt, got {len(pieces) // 3}. Remove some."
        )
    yield pieces[0]
    for part, codes, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        try:
            yield vocabulary.word(part, codes)
        except ShortError as error:
            raise ShortError(f"{error} The word is {quoted(f'<{part}:{codes}>')}.") from None
        yield rest


def _published(text: str, vocabulary: Vocabulary, version: str) -> Iterator[str | PartWord]:
    found = convert_prompt(text, version)
    if not found.codes:
        yield found.caption
        return
    words = list(zip(found.parts or (), found.codes, strict=True))
    pieces = PLACEHOLDER.split(found.caption)
    # A prompt may hold the placeholder as text, and numbers such as -1 in the place of a part.
    if [int(part) for part in pieces[1::2]] != [part for part, _ in words] or min(found.codes) < 0:
        raise ShortError(
            "Expected plain numbers of parts and codes from 0, and no <part>_ in the text, got "
            f"{quoted(text)}. Write each part word as <2:16>."
        )
    yield pieces[0]
    for (part, code), rest in zip(words, pieces[2::2], strict=True):
        yield vocabulary.word(str(part), str(code))
        yield rest


def words_of(pieces: Sequence[str | PartWord]) -> list[PartWord]:
    """The part words of a prompt, in its order."""
    return [piece for piece in pieces if isinstance(piece, PartWord)]
