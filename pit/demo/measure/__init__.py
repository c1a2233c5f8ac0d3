"""How well the creature models keep parts, measured against the exact truth."""
from __future__ import annotations

# What can be measured alone, in order, of the chain from parts to pictures; and the systems beside it.
GROUPS = (
    "reader", "autoencoder", "embedding", "kept", "diverse", "scenes", "methods", "words", "speed",
)
SYSTEMS = ("pops", "object_insertion", "part_words", "parts2whole")
