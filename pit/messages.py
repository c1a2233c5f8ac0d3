"""Error messages of a bounded length, whatever they repeat of a file or of what somebody typed."""
from __future__ import annotations

LONGEST = 1000  # characters: what a person reads, and what the page of a node shows
_FIRST, _GAP = 600, " [...] "
_SHOWN = 100  # of one name or value


class ShortError(ValueError):
    """An error whose message is one printable line of at most 1,000 characters."""

    def __init__(self, message: str):
        super().__init__(shortened(message))


def shortened(message: str, longest: int = LONGEST) -> str:
    """A message in one printable line; a long one loses its middle, since what to do stands at its end."""
    # Cut before the characters are looked at: a message may repeat megabytes of a file.
    if len(message) > longest:
        first = longest * _FIRST // LONGEST
        message = f"{message[:first]}{_GAP}{message[first + len(_GAP) - longest:]}"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in message)


def quoted(value: object) -> str:
    """A value as Python writes it, cut to about 100 characters."""
    # Before `repr`, which would copy a long text only to cut it, and refuses very long numbers.
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of {value.bit_length()} bits"
    text = repr(value[:_SHOWN] if isinstance(value, str | bytes) else value)
    cut = len(text) > _SHOWN + 3 or isinstance(value, str | bytes) and len(value) > _SHOWN
    return f"{text[:_SHOWN]}..." if cut else text
