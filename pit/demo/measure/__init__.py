"""How well the creature models keep parts, measured against the exact truth."""
from __future__ import annotations

# What can be measured alone, in order.
GROUPS = (
    "reader", "autoencoder", "embedding", "kept", "diverse", "scenes", "methods", "words", "speed",
)
