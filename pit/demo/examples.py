"""The pictures that come with the pack, for templates to start from; all are drawn by `pit.demo.drawing`."""
from __future__ import annotations

from pathlib import Path

PART_SETS = Path(__file__).with_name("example_part_sets")
PICTURES = Path(__file__).with_name("example_pictures")
# What a list offers, in this order, with the files of each. Names are in saved workflows.
EXAMPLES: dict[str, tuple[Path, ...]] = {
    **{
        f"parts of {name}": tuple(PART_SETS / name / f"{part}.png" for part in parts)
        for name, parts in {
            "ember": ("horns", "tail", "wings"), "lagoon": ("arms", "eyes", "tail"),
            "moss": ("ears", "legs", "mouth"), "storm": ("arms", "horns", "wings"),
        }.items()
    },
    "creature": (PICTURES / "creature.png",),
    "another creature": (PICTURES / "another_creature.png",),
    "lantern": (PICTURES / "lantern.png",),
    "lantern and mushroom": (PICTURES / "lantern.png", PICTURES / "mushroom.png"),
    "balloon": (PICTURES / "balloon.png",),
    "spots": (PICTURES / "spots.png",),
    "meadow": (PICTURES / "meadow.png",),
    "meadow with a creature": (PICTURES / "meadow_with_a_creature.png",),
}
