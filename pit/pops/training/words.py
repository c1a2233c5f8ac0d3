"""The words that the mode "instruct" learns: adjectives and kinds of pictures.

The published trainer draws from 62 and 41 of them; these are others of the same kinds. A dataset may bring
its own in `adjectives.txt` and `art_types.txt`, one on a line.
"""
from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from ...files.whole import read_small

ADJECTIVE_SHARE = 0.5
ADJECTIVES_FILE, ART_TYPES_FILE = "adjectives.txt", "art_types.txt"
LONGEST = 60  # characters of a word: operators learn single words or a few
MOST_WORDS = 10_000

ADJECTIVES = (
    "shiny, enormous, aged, tiny, rusty, furry, fluffy, melting, broken, burning, frozen, glowing, wet, "
    "dusty, muddy, mossy, cracked, polished, transparent, golden, wooden, metallic, plastic, inflated, "
    "deflated, crumpled, torn, stitched, knitted, woven, spiky, smooth, rough, slimy, sticky, feathered, "
    "scaly, striped, spotted, colorful, pale, dark, bright, futuristic, ancient, elegant, cute, scary, "
    "angry, happy, sad, sleepy, fat, thin, tall, short, heavy, fragile, royal, magical, robotic, abandoned"
)
ART_TYPES = (
    "sketch, pencil drawing, charcoal drawing, ink drawing, line drawing, oil painting, watercolor painting, "
    "acrylic painting, fresco, mosaic, engraving, etching, woodcut, linocut, lithograph, screen print, "
    "poster, comic, cartoon, manga, caricature, pixel art, low poly rendering, clay model, wax figure, "
    "marble statue, bronze statue, wood carving, origami, paper collage, embroidery, tapestry, stained glass "
    "window, graffiti, icon, logo, blueprint, x-ray, hologram, neon sign, sand sculpture"
)


@dataclass(frozen=True)
class Said:
    """A word that an operator hears, and the sentence that its result is to be near."""

    word: str
    sentence: str


@dataclass(frozen=True)
class WordBank:
    """The words of a dataset."""

    adjectives: tuple[str, ...] = tuple(ADJECTIVES.split(", "))
    art_types: tuple[str, ...] = tuple(ART_TYPES.split(", "))

    @property
    def all(self) -> tuple[str, ...]:
        """Each word once."""
        return tuple(dict.fromkeys(self.adjectives + self.art_types))

    def draw(self, shown: str, rng: random.Random) -> Said:
        """A word for a picture of what `shown` says, and the published sentence."""
        if rng.random() < ADJECTIVE_SHARE:
            word = rng.choice(self.adjectives)
            return Said(word, f"A {word} {shown}")
        word = rng.choice(self.art_types)
        return Said(word, f"A {word} of a {shown}")


def read_word_bank(folder: Path) -> WordBank:
    """The words of a dataset: its own, or ours for a file that it does not have.

    Raises:
        ValueError: a file without words, with too many, or with longer ones than operators learn.
    """
    ours = WordBank()
    return WordBank(
        read_words(folder / ADJECTIVES_FILE, ours.adjectives),
        read_words(folder / ART_TYPES_FILE, ours.art_types),
    )


def read_words(path: Path, default: tuple[str, ...]) -> tuple[str, ...]:
    """The lines of a file; the default if there is none. Raises ValueError as in `read_word_bank`."""
    if not path.is_file():
        return default
    try:
        lines = read_small(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected words in UTF-8, got an error ({error}). Save it so.") from error
    words = tuple(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))
    if not 1 <= len(words) <= MOST_WORDS:
        raise ValueError(f"{path}: expected 1 to {MOST_WORDS:,} words, one on a line, got {len(words):,}.")
    longest = max(words, key=len)
    if len(longest) > LONGEST:
        raise ValueError(
            f"{path}: expected words of at most {LONGEST} characters, got {longest[:LONGEST]!r}... Write "
            "less."
        )
    return words
