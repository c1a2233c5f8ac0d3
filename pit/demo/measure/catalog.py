"""Every measure by the name under which `--json` writes it: what it is in words, its unit and its bar."""
from __future__ import annotations

from ..training.data import KINDS, WITH_THINGS
from .autoencoder import GROUNDS, MIXED, PLAIN, TURNED
from .plan import PART_COUNTS, SCENE_WEIGHTS
from .units import DECIBELS, LEVELS, RATE, SHARE, Unit


def key(measure: str, of: str) -> str:
    """The name of a measure of one of several things: "autoencoder_psnr_with_things"."""
    return f"{measure}_{of.replace(' ', '_')}"


PSNR, GROUND, DRAWN = "autoencoder_psnr", "autoencoder_ground", "drawn"
# The least that measures have to reach, or the most where less is better.
BARS: dict[str, float] = {
    "reader_accuracy": 0.97,
    **{key(PSNR, kind): 25.0 for kind in KINDS},
    "autoencoder_attributes": 0.995,
    "autoencoder_white": 2.0,
    **{key(GROUND, ground): 8.0 for ground in GROUNDS},
    "embedding_attributes": 0.97,
    "embedding_kept": 0.90,
    "ceiling": 0.98,
    "ear_color": 0.92,
    "kept_2_free": 0.97,
    "kept_5_free": 0.94,
    "whole": 0.99,
    "diverse": 0.80,
    "scene_1.0": 0.95,
    "scene_0.7": 0.80,
    "words_attributes": 0.85,
    "words_things": 0.85,
    **{key(DRAWN, kind): 150.0 for kind in KINDS},
}
NATURAL_SHARE_OF_CEILING = 0.93  # the bar of "kept_2_natural", which depends on another measure
MOST_SECONDS = 10.0  # for eight concepts

COHERENCES = {"free": "free mixture", "natural": "close to a species"}
DISTANCES = {
    "frechet": "Fréchet distance to drawings, creatures rendered from the prior's tokens",
    "frechet of renders": "Fréchet distance to drawings, other drawings",
    "kernel": "kernel distance to drawings, creatures rendered from the prior's tokens",
    "kernel of the ceiling": "kernel distance to drawings, creatures rendered from true tokens",
}
# What is measured attribute by attribute.
COLUMNS = {
    "reader": "read from drawings",
    "autoencoder": "through the autoencoder",
    "embedding": "off the embedding by a linear layer",
    "tokens": "rendered from true tokens",
    "words": "as in the caption",
}
# Beside the attributes.
ROWS = {
    "things": "things", "kind of thing": "kinds of things", "color of thing": "colors of things",
    "number of things": "how many things there are", "no thing": "that there is no thing",
    "whole": "complete or flawed",
}
SHOWN = {
    "alone": "creatures alone", "with things": "creatures beside things", "posed": "posed creatures",
    "things": "things alone", "empty": "empty scenes",
}
GROUND_WORDS = {MIXED: "mixed scenes", PLAIN: "plain colors", TURNED: "scenes of other hues"}
READ_OFF = "attributes read off the pooled embedding by a linear layer"
TRUE_TOKENS = "attributes kept when rendered from true tokens"
LABELS: dict[str, str] = {
    "reader_accuracy": "attributes, things and scenes read correctly from fresh drawings",
    "reader_maps": "label maps of fresh drawings, mean intersection over union",
} | {
    key(PSNR, kind): f"signal to noise, {words}" for kind, words in SHOWN.items()
} | {
    "autoencoder_attributes": "attributes of free mixtures found",
    "autoencoder_white": "distance of white grounds from white",
} | {
    key(GROUND, ground): f"shift of the colors of sky and ground, {GROUND_WORDS.get(ground, ground)}"
    for ground in GROUNDS
} | {
    "embedding_attributes": READ_OFF,
    key("embedding_attributes", WITH_THINGS): f"{READ_OFF}, {SHOWN[WITH_THINGS]}",
    "embedding_kept": "attributes kept when drawn from the embedding, over those from true tokens",
    "embedding_whole": "complete creatures, drawn from the embedding",
    "embedding_white": "distance of white borders from white, drawn from the embedding",
    "ceiling": f"{TRUE_TOKENS}, {COHERENCES['free']}",
    "ceiling_natural": f"{TRUE_TOKENS}, {COHERENCES['natural']}",
    "ear_color": "color of ears found when rendered from true tokens",
    "tokens_whole": "complete creatures, rendered from true tokens",
    "tokens_white": "distance of white borders from white, rendered from true tokens",
} | {
    f"kept_{parts}_{coherence}": f"{parts} {'part' if parts == 1 else 'parts'} given, {words}"
    for coherence, words in COHERENCES.items() for parts in PART_COUNTS
} | {
    "whole": "complete creatures, all",
} | {
    f"whole_{coherence}": f"complete creatures, {words}" for coherence, words in COHERENCES.items()
} | {
    "diverse": "variety of what was not given, relative to free mixtures",
} | {
    f"scene_{weight}": f"scene as asked, adapter weight {weight}" for weight in SCENE_WEIGHTS
} | {
    "words_attributes": "attributes as in the caption, SD 1.5's structure",
    "words_things": "kind and color of things as in the caption, SD 1.5's structure",
    "words_whole": "complete creatures, SD 1.5's structure",
} | {
    key(DRAWN, kind): f"drawings, {words}" for kind, words in SHOWN.items()
}
UNITS: dict[str, Unit] = {
    **{key(PSNR, kind): DECIBELS for kind in KINDS},
    **{key(GROUND, ground): LEVELS for ground in GROUNDS},
    **{name: LEVELS for name in ("autoencoder_white", "embedding_white", "tokens_white")},
    **{key(DRAWN, kind): RATE for kind in KINDS},
}


def unit_of(name: str) -> Unit:
    """The unit of a measure."""
    return UNITS.get(name, SHARE)
