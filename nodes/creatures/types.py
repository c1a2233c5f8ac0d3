"""The socket type of the creature domain."""
from __future__ import annotations

from comfy_api.latest import io

CreatureType = io.Custom("PIT_CREATURE")
"""Carries a `pit.demo.measure.trials.Trial`: a creature, and which of its parts are given."""
