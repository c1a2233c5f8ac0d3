"""The graphs that come with the pack, and their API twins."""

import json
from pathlib import Path

from dev import ROOT

WORKFLOWS = ROOT / "workflows"
NAMES = [
    "a_folder_of_part_sets", "blend_concepts", "blend_concepts_sdxl", "chain_operators_kandinsky",
    "chain_operators_sdxl",
    "character_sheet", "character_sheet_sdxl", "concept_in_a_scene", "concept_in_a_scene_sdxl",
    "creature_lab", "dress_a_figure_sd15", "edit_by_direction", "explore_concepts", "explore_concepts_sdxl",
    "find_a_direction", "find_the_parts_sd15", "generate_a_dataset", "insert_an_object_sd15",
    "insert_many_sd15", "make_scene_pairs_sdxl", "make_texture_pairs_sdxl", "make_union_pairs_sdxl",
    "part_words_sd15", "piece_it_together", "piece_it_together_sdxl",
    "put_it_in_a_scene_kandinsky", "put_it_in_a_scene_sdxl", "say_it_with_a_word_kandinsky",
    "say_it_with_a_word_sdxl", "texture_an_object_kandinsky", "texture_an_object_sdxl", "token_library",
    "train_part_words_sd15", "train_your_own_prior",
]
PUBLISHED = [name for name in NAMES if name.endswith(("_sdxl", "_kandinsky", "_sd15"))]
"""Those that need published models."""
PAIRS = {f"make_{kind}_pairs_sdxl": kind for kind in ("texture", "scene", "union")}
"""Those that make pictures for pOps operators, by what these learn."""


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def twin(name: str) -> dict:
    return read(WORKFLOWS / "api" / f"{name}.json")
