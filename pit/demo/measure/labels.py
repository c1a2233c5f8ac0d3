"""The measures in words that explain themselves, by the names under which `--json` writes them."""
from __future__ import annotations

from .experiment import PART_COUNTS, SCENE_WEIGHTS

KINDS = {"free": "free mixture", "natural": "close to a species"}
DISTANCES = {
    "frechet": "Fréchet distance to drawings, creatures rendered from the prior's tokens",
    "frechet of renders": "Fréchet distance to drawings, other drawings",
    "kernel": "kernel distance to drawings, creatures rendered from the prior's tokens",
    "kernel of the ceiling": "kernel distance to drawings, creatures rendered from true tokens",
}
TRUE_TOKENS = "attributes kept when rendered from true tokens"
LABELS: dict[str, str] = {
    "reader_accuracy": "attributes read correctly from fresh drawings",
    "ceiling": f"{TRUE_TOKENS}, {KINDS['free']}",
    "ceiling_natural": f"{TRUE_TOKENS}, {KINDS['natural']}",
    "whole": "complete creatures, all",
    "diverse": "variety of what was not given, relative to free mixtures",
} | {
    f"kept_{parts}_{kind}": f"{parts} {'part' if parts == 1 else 'parts'} given, {words}"
    for kind, words in KINDS.items() for parts in PART_COUNTS
} | {
    f"whole_{kind}": f"complete creatures, {words}" for kind, words in KINDS.items()
} | {
    f"scene_{weight}": f"scene as asked, adapter weight {weight}" for weight in SCENE_WEIGHTS
}
