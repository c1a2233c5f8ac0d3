"""The three prompt parsers of the published code (github.com/kamwoh/partcraft), and that of its demo.

They differ in what they take for a part word: "re" takes `<2:16>` anywhere, "v1" takes every word with a
colon, and "v2" takes words that begin with `<2:16>`.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..messages import ShortError, quoted

NUMBERED = re.compile(r"<(\d+):(\d+)>")
NAMED = re.compile(r"<([^:>]+):(\d+)>")
DEMO_CLASSES = 200  # to which the demo limits the numbers, also those of 120 dogs


class Converted(NamedTuple):
    """A prompt as the published code reads it.

    Attributes:
        caption: the prompt with `<part>_2` in the place of each word.
        codes, parts: of the words in their order; None where the parser has found no reason to look.
    """

    caption: str
    codes: list[int] | None
    parts: list[int] | None


def convert_prompt(prompt: str, version: str) -> Converted:
    """What a parser of the published code, "re", "v1" or "v2", reads in a prompt.

    Raises:
        ShortError: a word that the parser takes for a part word is none; or there is no such parser.
    """
    if version not in ("re", "v1", "v2"):
        raise ShortError(f"Expected a parser named 're', 'v1' or 'v2', got {quoted(version)}. Choose one.")
    if version == "re":
        return _by_pattern(prompt)
    if ":" not in prompt:
        return Converted(prompt, None, None)
    read = _colon_word if version == "v1" else _bracket_word
    words, codes, parts = [], [], []
    for word in prompt.replace(".", "").strip().split(" "):
        found = read(word) if ":" in word else None
        if found is None:
            words.append(word)
            continue
        part, code, rest = found
        words += [f"<part>_{part}", rest] if rest else [f"<part>_{part}"]
        parts.append(_number(part, word))
        codes.append(code)
    return Converted(" ".join(words).strip(), codes, parts)


def _by_pattern(prompt: str) -> Converted:
    found = NUMBERED.findall(prompt)
    if not found:
        return Converted(prompt.strip(), None, None)
    # The published code writes the number that it has read, so that 02 becomes 2.
    caption = NUMBERED.sub(lambda match: f"<part>_{_number(match[1], match[0])}", prompt)
    codes, parts = ([_number(pair[place], "<{}:{}>".format(*pair)) for pair in found] for place in (1, 0))
    return Converted(caption.strip(), codes, parts)


def _colon_word(word: str) -> tuple[str, int, str]:
    part, code = _halves(word.strip(), word)
    comma = "," in code
    return part, _number(code[:-1] if comma else code, word), "," if comma else ""


def _bracket_word(word: str) -> tuple[str, int, str] | None:
    if word[0] != "<" or ">" not in word:
        return None
    part, code = _halves(word[1:].strip(), word)
    comma = code.endswith(",")
    code, _, rest = (code[:-1] if comma else code).partition(">")
    return part, abs(_number(code, word)), rest + ("," if comma else "")


def _halves(text: str, word: str) -> Sequence[str]:
    halves = text.split(":")
    if len(halves) != 2:
        raise _no_word(word)
    return halves


def _number(text: str, word: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise _no_word(word) from None


def _no_word(word: str) -> ShortError:
    return ShortError(
        f"Expected the numbers of a part and a code, such as 2:16, got {quoted(word)}. This parser takes "
        "every such word for a part word; write it without a colon, or choose another parser."
    )


def demo_prompt(prompt: str, parts: Mapping[str, int], classes: Sequence[str]) -> tuple[str, list[str]]:
    """A prompt of the published demo, `<head:17>`, as one for "re", `<2:16>`, and what its words are called.

    Numbers count from 1 and are limited to 1 to 200, as in the demo, without a word about it.

    Raises:
        ShortError: there is no such part, or no such class.
    """
    labels: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        name, number = match[1], min(max(_number(match[2], match[0]), 1), DEMO_CLASSES)
        if name not in parts or number > len(classes):
            raise ShortError(
                f"Expected a part of {', '.join(parts)} and a number from 1 to {len(classes)}, got "
                f"{quoted(match[0])}. Name another one."
            )
        labels.append(f"{name}: {classes[number - 1]}")
        return f"<{parts[name]}:{number - 1}>"

    return NAMED.sub(numbered, prompt), labels
