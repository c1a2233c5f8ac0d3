"""The measures in words that explain themselves, by the names under which `--json` writes them."""
from __future__ import annotations

from .experiment import PART_COUNTS, SCENE_WEIGHTS

KINDS = {"free": "free mixture", "natural": "close to a species"}
DISTANCES = {
    "frechet": "Fréchet distance to renders, creatures drawn by the prior",
    "frechet of renders": "Fréchet distance to renders, other renders",
    "kernel": "kernel distance to renders, creatures drawn by the prior",
    "kernel of the ceiling": "kernel distance to renders, creatures drawn from true tokens",
}
TRUE_TOKENS = "attributes kept when drawn from true tokens"
LABELS: dict[str, str] = {
    "reader_accuracy": "attributes read correctly from fresh renders",
    "ceiling": f"{TRUE_TOKENS}, {KINDS['free']}",
    "ceiling_natural": f"{TRUE_TOKENS}, {KINDS['natural']}",
    "whole": "complete creatures, all",
    "diverse": "variety of what was not given, relative to the renderer",
} | {
    f"kept_{parts}_{kind}": f"{parts} {'part' if parts == 1 else 'parts'} given, {words}"
    for kind, words in KINDS.items() for parts in PART_COUNTS
} | {
    f"whole_{kind}": f"complete creatures, {words}" for kind, words in KINDS.items()
} | {
    f"scene_{weight}": f"scene as asked, adapter weight {weight}" for weight in SCENE_WEIGHTS
}
