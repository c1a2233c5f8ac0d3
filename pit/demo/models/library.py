"""Directions, concepts and other small files of the creature models that come with the pack."""
from __future__ import annotations

from pathlib import Path

from ..drawing.edits import EDITS

FOLDER = Path(__file__).parents[1] / "weights"
OPTIMIZER = "creature_embedding_optimizer.safetensors"
SCENES_LORA, SHEET_LORA = (f"creature_{name}_lora.safetensors" for name in ("scenes", "sheet"))
CONCEPTS = ("ember", "tide", "bloom", "storm")  # each is a pure member of this species


def library_file(kind: str, name: str, folder: Path = FOLDER) -> Path:
    """The file of an edit's direction or of a concept's tokens; `kind` is "direction" or "tokens"."""
    slug = name.replace("'", "").replace(" ", "_")
    return folder / f"creature_{kind}_{slug}.safetensors"


DIRECTION_FILES = {f"creature models: {name}": library_file("direction", name) for name in EDITS}
TOKEN_FILES = {f"creature models: {name}": library_file("tokens", name) for name in CONCEPTS}
LORA_FILES = {
    "creature models: scenes": FOLDER / SCENES_LORA,
    "creature models: character sheet": FOLDER / SHEET_LORA,
}
OPTIMIZER_FILES = {"creature models: things": FOLDER / OPTIMIZER}
