"""Parts of creatures and creatures of two kinds, drawn to try the models with."""
from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from ...pit.demo.drawing.creature import PARTS, SPECIES, creature_from_seed, with_parts
from ...pit.demo.drawing.draw import draw_creature, draw_label_map, draw_masks, label_picture, whole_view
from ...pit.demo.drawing.edits import EDITS, both_classes
from ...pit.demo.drawing.pose import FRONT, VIEWS, Pose
from ...pit.demo.measure.trials import Trial
from ...pit.demo.models.sizes import PICTURE_SIZE
from ...pit.images import to_tensor
from ..bridge.feedback import progress_bar
from ..piece_it_together.types import CATEGORY
from .types import CreatureType

MIXED = "mixed"
CHOSEN_FIRST = ("horns", "wings", "tail")


def pose_inputs() -> list[io.Input]:
    """How the whole creature stands. All optional, so that graphs without them go on running."""
    def scale(name: str, tooltip: str) -> io.Input:
        return io.Float.Input(
            name, default=0.0, min=-1.0, max=1.0, step=0.05, display_mode=io.NumberDisplay.slider,
            tooltip=tooltip, optional=True, advanced=True,
        )

    return [
        io.Combo.Input(
            "view", options=list(VIEWS), default=FRONT, optional=True, advanced=True,
            tooltip="From where the whole creature is seen; parts are always drawn from the front.",
        ),
        scale("raise_arms", "Arms of the whole creature: 1 = raised, -1 = hanging down."),
        scale("raise_wings", "Wings of the whole creature: 1 = raised, -1 = folded down."),
        scale("spread_legs", "Legs of the whole creature: 1 = apart, -1 = together."),
        scale("lean", "How far the whole creature leans: 1 = to the right, -1 = to the left."),
        io.Boolean.Input(
            "mirrored", default=False, optional=True, advanced=True,
            tooltip="Swap left and right of the whole creature.",
        ),
    ]


class CreatureParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureParts",
            display_name="Creature Parts",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description=(
                "Draws the chosen parts of a creature that has all of them, on white, one picture each."
            ),
            search_aliases=["demo parts", "horns", "wings", "tail", "example parts"],
            inputs=[
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Determines which creature the parts are taken from.",
                ),
                io.Combo.Input(
                    "species", options=[MIXED, *SPECIES], default=MIXED,
                    tooltip="The species of the creature; mixed chooses every part at random.",
                ),
                *(
                    io.Boolean.Input(part, default=part in CHOSEN_FIRST, tooltip=f"Draw the {part}.")
                    for part in PARTS
                ),
                *pose_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="parts", tooltip="The chosen parts on white, for Encode IP+ Parts.",
                ),
                CreatureType.Output(
                    display_name="creature", tooltip="Which creature it is, for Measure Creatures.",
                ),
                io.Image.Output(display_name="whole", tooltip="A picture of the whole creature."),
                io.Image.Output(
                    display_name="label_map", tooltip="The whole creature with a color for each part.",
                ),
                io.Mask.Output(
                    display_name="masks", tooltip="A mask of each part in the picture of the whole.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, seed: int, species: str, view: str = FRONT, raise_arms: float = 0.0, raise_wings: float = 0.0,
        spread_legs: float = 0.0, lean: float = 0.0, mirrored: bool = False, **wanted: bool,
    ) -> io.NodeOutput:
        chosen = tuple(part for part in PARTS if wanted[part])
        if not chosen:
            raise ValueError(
                "Creature Parts expected at least one part to draw, got none. Switch one of these on: "
                f"{', '.join(PARTS)}."
            )
        mixed = species == MIXED
        creature = creature_from_seed(seed, 0.0 if mixed else 1.0, None if mixed else species)
        pose = Pose(raise_arms, raise_wings, spread_legs, lean, mirrored, view)
        trial = Trial(replace(with_parts(creature, chosen, seed), pose=pose), chosen)
        whole = draw_creature(trial.creature, PICTURE_SIZE)
        found = label_picture(draw_label_map(trial.creature, PICTURE_SIZE))
        masks = torch.from_numpy(draw_masks(trial.creature, chosen, PICTURE_SIZE))
        parts = to_tensor(trial.part_pictures())
        return io.NodeOutput(parts, trial, to_tensor([whole]), to_tensor([found]), masks)


class CreatureKinds(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureKinds",
            display_name="Creature Kinds",
            category=CATEGORY,
            description="Draws creatures of two kinds that differ in one thing, to find a direction with.",
            search_aliases=["demo classes", "direction pictures"],
            inputs=[
                io.Combo.Input(
                    "difference", options=list(EDITS), default=next(iter(EDITS)),
                    tooltip="What the second kind has and the first lacks.",
                ),
                io.Int.Input("count", default=32, min=1, max=1024, tooltip="How many pictures of each kind."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Determines which creatures are drawn.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="first", tooltip="Creatures of one kind, for Find IP+ Direction.",
                ),
                io.Image.Output(
                    display_name="second", tooltip="Creatures of the other kind, for the same node.",
                ),
            ],
        )

    @classmethod
    def execute(cls, difference: str, count: int, seed: int) -> io.NodeOutput:
        done, kinds = progress_bar(), both_classes(difference, count, seed)
        pictures: tuple[list, list] = ([], [])
        for number, (kind, drawn) in enumerate(zip(kinds, pictures, strict=True)):
            for index, creature in enumerate(kind):
                drawn.append(whole_view(creature))
                done(number * count + index + 1, 2 * count)
        return io.NodeOutput(*map(to_tensor, pictures))
