"""Scenes behind a creature that the shipped models have never seen, with words that they have never read.

What an IP-LoRA is to teach them.
"""
from __future__ import annotations

SCENE_WORDS = {
    "snow": " in the snow",
    "desert": " in the desert",
    "forest": " in the forest",
    "sea": " in the sea",
}
