"""The graphs that come with the pack, and their API twins."""

import json
from pathlib import Path

from dev import ROOT
from dev.templates import TITLES

WORKFLOWS = ROOT / "workflows"
NAMES = sorted(TITLES)
PUBLISHED = [name for name in NAMES if name.endswith(("_sdxl", "_kandinsky", "_sd15"))]
"""Those that need published models."""
PAIRS = {f"make_{kind}_pairs_sdxl": kind for kind in ("texture", "scene", "union")}
"""Those that make pictures for pOps operators, by what these learn."""


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def twin(name: str) -> dict:
    return read(WORKFLOWS / "api" / f"{name}.json")


def template(name: str) -> dict:
    """The graph for people."""
    return read(WORKFLOWS / f"{TITLES[name]}.json")
