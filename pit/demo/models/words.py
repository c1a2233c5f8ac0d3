"""CLIP's token ids of the words that captions are made of, so that training needs no tokenizer files.

A test compares them with ComfyUI's own tokenizer.
"""
from __future__ import annotations

START, END = 49406, 49407

WORDS: dict[str, tuple[int, ...]] = {
    "a": (320,), "and": (537,), "antennae": (35517, 19374), "antlers": (47720,), "arms": (5706,), "at":
    (536,), "bat": (6575,), "beak": (36498,), "blue": (1746,), "bolt": (13131,), "boxy": (2774, 344),
    "buck": (11433,), "bunny": (9258,), "butterfly": (9738,), "claw": (19106,), "cone": (10266,),
    "creature": (14317,), "curl": (24306,), "cyclops": (18122, 814), "dragonfly": (32824,), "ears":
    (9861,), "eyes": (3095,), "fangs": (14269, 338), "feather": (17871,), "fin": (10663,), "fish":
    (2759,), "flame": (13484,), "flipper": (2472, 2440), "floppy": (38267,), "fluffy": (17054,), "ghost":
    (7108,), "green": (1901,), "grey": (5046,), "horns": (22109,), "in": (530,), "lava": (16765,), "leaf":
    (7232,), "legs": (7072,), "meadow": (17195,), "mouth": (4932,), "night": (930,), "on": (525,), "open":
    (1488,), "orange": (4287,), "paw": (16016,), "pear": (18820,), "pincer": (2629, 1925), "pink":
    (3360,), "pointy": (9074, 744), "purple": (5496,), "ram": (2007,), "red": (736,), "round": (2522,),
    "sky": (2390,), "sleepy": (14497,), "slit": (47011,), "smile": (3490,), "spade": (32562,), "sparkle":
    (18287,), "spider": (7622,), "sprout": (35863,), "stub": (858, 321), "tail": (4132,), "tall": (7771,),
    "tentacle": (18505, 6504), "the": (518,), "triple": (7673,), "unicorn": (15660,), "wings": (5178,),
    "with": (593,), "yellow": (4481,), "zigzag": (15950, 29346),
}


def token_ids(text: str, length: int, padding: int) -> list[int]:
    """The ids of a caption, as CLIP's tokenizer gives them: start, words, end, padding.

    Args:
        padding: the padding id of the encoder: the end token for SDXL's first text encoder, 0 for its second.
    Raises:
        KeyError: a word that is not in `WORDS`.
        ValueError: the text is longer than `length`.
    """
    ids = [START, *(token for word in text.split() for token in WORDS[word]), END]
    if len(ids) > length:
        raise ValueError(f"Expected a caption of at most {length} tokens, got {len(ids)}: {text}")
    return ids + [padding] * (length - len(ids))
