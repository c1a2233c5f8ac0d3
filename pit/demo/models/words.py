"""CLIP's token ids of the words that captions are made of, so that training needs no tokenizer files.

A test compares them with ComfyUI's own tokenizer.
"""
from __future__ import annotations

START, END = 49406, 49407

WORDS: dict[str, tuple[int, ...]] = {
    "a": (320,), "above": (4348,), "alone": (4702,), "also": (1446,), "an": (550,), "and": (537,),
    "animal": (4668,), "animals": (4995,), "another": (1380,), "antennae": (35517, 19374), "antler":
    (1103, 1803), "antlers": (47720,), "apart": (7803,), "are": (631,), "arm": (4793,), "arms": (5706,),
    "as": (601,), "at": (536,), "away": (1520,), "back": (893,), "background": (5994,), "ball": (1069,),
    "balloon": (13634,), "bat": (6575,), "beach": (2117,), "beak": (36498,), "before": (1348,), "behind":
    (2403,), "being": (1265,), "beings": (17998,), "belly": (10404,), "beside": (13519,), "between":
    (1957,), "big": (1205,), "black": (1449,), "blue": (1746,), "body": (1774,), "bolt": (13131,),
    "book": (1116,), "both": (2212,), "boxy": (2774, 344), "brown": (2866,), "buck": (11433,), "bunny":
    (9258,), "but": (767,), "butterfly": (9738,), "by": (638,), "candy": (6417,), "cave": (9654,),
    "claw": (19106,), "close": (2660,), "closed": (4552,), "color": (3140,), "colored": (11775,), "cone":
    (10266,), "covered": (5603,), "creature": (14317,), "creatures": (13938,), "crystal": (6517,), "cup":
    (1937,), "curl": (24306,), "cute": (2242,), "cyclops": (18122, 814), "desert": (7301,), "down":
    (1136,), "dragonfly": (32824,), "drawing": (3610,), "each": (2416,), "ear": (8373,), "ears": (9861,),
    "else": (3344,), "empty": (7893,), "eye": (3272,), "eyes": (3095,), "face": (1710,), "facing":
    (7619,), "fangs": (14269, 338), "feather": (17871,), "fin": (10663,), "fish": (2759,), "flame":
    (13484,), "flipper": (2472, 2440), "floppy": (38267,), "fluffy": (17054,), "folded": (25233,),
    "forest": (4167,), "forward": (2342,), "friendly": (4681,), "from": (633,), "front": (2184,), "full":
    (1476,), "funny": (3789,), "ghost": (7108,), "gray": (7048,), "green": (1901,), "grey": (5046,),
    "ground": (2461,), "has": (791,), "having": (1977,), "head": (1375,), "holding": (5050,), "holds":
    (7286,), "horn": (9607,), "horns": (22109,), "illustration": (6052,), "in": (530,), "into": (1095,),
    "is": (533,), "it": (585,), "its": (902,), "jumping": (11476,), "key": (1458,), "land": (973,),
    "landscape": (5727,), "lantern": (17185,), "large": (3638,), "lava": (16765,), "leaf": (7232,),
    "leaning": (24411,), "left": (1823,), "leg": (4924,), "legs": (7072,), "little": (1274,), "looking":
    (1312,), "lowered": (34968,), "meadow": (17195,), "mirrored": (48500, 736), "monster": (6060,),
    "monsters": (11546,), "mouth": (4932,), "mushroom": (13011,), "near": (2252,), "next": (1131,),
    "night": (930,), "no": (871,), "not": (783,), "nothing": (2586,), "object": (14115,), "objects":
    (13770,), "of": (539,), "on": (525,), "one": (637,), "only": (1033,), "onto": (3141,), "open":
    (1488,), "or": (541,), "orange": (4287,), "over": (962,), "part": (1551,), "parts": (5149,),
    "pattern": (7447,), "paw": (16016,), "pear": (18820,), "photo": (1125,), "picture": (1674,),
    "pincer": (2629, 1925), "pink": (3360,), "place": (1445,), "plain": (10709,), "pointy": (9074, 744),
    "pose": (4230,), "purple": (5496,), "raised": (6027,), "ram": (2007,), "red": (736,), "right":
    (1155,), "round": (2522,), "scales": (22891,), "scaly": (10859, 344), "scene": (3562,), "sea":
    (2102,), "seen": (2041,), "shiny": (12190,), "shown": (8506,), "shows": (2665,), "side": (1145,),
    "skin": (3575,), "sky": (2390,), "sleepy": (14497,), "slit": (47011,), "small": (2442,), "smile":
    (3490,), "snow": (2583,), "something": (2006,), "spade": (32562,), "sparkle": (18287,), "spider":
    (7622,), "spots": (7670,), "spotted": (4533,), "spread": (5284,), "sprout": (35863,), "standing":
    (2862,), "stands": (6446,), "star": (1565,), "strange": (7288,), "striped": (22192,), "stripes":
    (14239,), "stub": (858, 321), "swamp": (16595,), "tail": (4132,), "tall": (7771,), "tentacle":
    (18505, 6504), "that": (682,), "the": (518,), "there": (997,), "thing": (946,), "things": (1739,),
    "tilted": (6124, 775), "tiny": (5591,), "to": (531,), "together": (1952,), "top": (1253,), "toy":
    (5988,), "triple": (7673,), "turned": (3771,), "two": (1237,), "umbrella": (17143,), "under":
    (1798,), "unicorn": (15660,), "up": (705,), "upright": (29818,), "very": (1070,), "view": (1093,),
    "views": (2758,), "walking": (3941,), "which": (1448,), "white": (1579,), "whole": (2954,), "wing":
    (1340,), "wings": (5178,), "with": (593,), "without": (2193,), "yellow": (4481,), "zigzag": (15950,
    29346),
}

# All ids that captions are made of; 0 is what SDXL's second encoder pads with. The rows in the weight files
# have this order.
KNOWN_IDS = tuple(sorted({START, END, 0, *(token for ids in WORDS.values() for token in ids)}))


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
