"""Whole pictures as data: a creature, things beside it, a scene, and each of them alone."""
from __future__ import annotations

import random
from dataclasses import replace

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...pit.demo.drawing.canvas import Color
from ...pit.demo.drawing.captions import caption
from ...pit.demo.drawing.composition import (
    Composition,
    compose,
    draw_composition,
    draw_map,
    draw_thing_masks,
)
from ...pit.demo.drawing.creature import COLOR_NAMES
from ...pit.demo.drawing.draw import label_picture
from ...pit.demo.drawing.scenes import SCENE, SCENE_NAMES
from ...pit.demo.drawing.things import THINGS, Thing, draw_thing, sample_thing
from ...pit.demo.measure.trials import Trial
from ...pit.demo.models.sizes import PICTURE_SIZE
from ...pit.images import to_tensor
from ..piece_it_together.types import CATEGORY
from .types import CreatureType

ANY, NONE, MIXED, PLAIN = "any", "none", "mixed", "plain"
NO_THING = "Creature Scene drew no thing, so there is none to use. Choose a first_thing."


def thing_inputs(which: str, default: str) -> list[io.Input]:
    """What a thing is, and its color."""
    return [
        io.Combo.Input(
            f"{which}_thing", options=[NONE, ANY, *THINGS], default=default,
            tooltip="What stands there; any leaves it to the seed.",
        ),
        io.Combo.Input(
            f"{which}_color", options=[ANY, *COLOR_NAMES], default=ANY,
            tooltip=f"Color of the {which} thing; any leaves it to the seed.",
        ),
    ]


class CreatureScene(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureScene",
            display_name="Creature Scene",
            category=CATEGORY,
            description=(
                "Draws a scene with things and a creature, the same without the things, and each thing "
                "alone: exact data to insert, to combine and to measure."
            ),
            search_aliases=["demo scene", "things", "triplets", "object insertion data"],
            inputs=[
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Determines what is left to chance, and places and shades in any case.",
                ),
                io.Combo.Input(
                    "scene", options=[*SCENE_NAMES, ANY, MIXED, PLAIN], default="meadow",
                    tooltip=(
                        "What is behind: one of the scenes, any of them, the sky of one mixed with the "
                        "ground of another, or a plain color."
                    ),
                ),
                *thing_inputs("first", ANY),
                *thing_inputs("second", NONE),
                CreatureType.Input(
                    "creature", optional=True,
                    tooltip="Who stands there, posed as in Creature Parts. Without it, things stand alone.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="picture", tooltip="The scene with everything in it."),
                io.Image.Output(
                    display_name="without_things",
                    tooltip="The same scene without the things, for Insert Object.",
                ),
                io.Image.Output(
                    display_name="things", tooltip="Each thing alone on white, for Encode Object.",
                ),
                io.Mask.Output(display_name="thing_masks", tooltip="A mask of each thing in the scene."),
                io.Image.Output(
                    display_name="label_map",
                    tooltip="What is at each place of the scene, one color for each part and thing.",
                ),
                io.String.Output(display_name="caption", tooltip="The scene in words, for CLIP Text Encode."),
            ],
        )

    @classmethod
    def execute(
        cls, seed: int, scene: str, first_thing: str, first_color: str, second_thing: str, second_color: str,
        creature: Trial | None = None,
    ) -> io.NodeOutput:
        wanted = ((first_thing, first_color), (second_thing, second_color))
        # Each thing has a generator of its own, so that one does not change with the other.
        things = [
            chosen_thing(kind, color, random.Random(f"{seed}/thing/{number}"))
            for number, (kind, color) in enumerate(wanted) if kind != NONE
        ]
        name, ground = chosen_scene(scene, random.Random(f"{seed}/scene"))
        composition = compose(
            creature.creature if creature else None, things, scene=name, ground=ground,
            rng=random.Random(f"{seed}/places"),
        )
        return io.NodeOutput(
            drawn(composition), drawn(replace(composition, things=())), *things_alone(composition),
            to_tensor([label_picture(draw_map(composition, PICTURE_SIZE))]),
            caption(composition, random.Random(f"{seed}/caption")),
        )


def chosen_thing(kind: str, color: str, rng: random.Random) -> Thing:
    """A thing of this kind and color, each of which may be left to chance."""
    return sample_thing(rng, None if kind == ANY else kind, None if color == ANY else color)


def chosen_scene(scene: str, rng: random.Random) -> tuple[str, Color | None]:
    """The name of a scene, and the color of a plain ground in its place."""
    if scene == PLAIN:
        return "white", tuple(rng.randrange(256) for _ in range(3))
    if scene == MIXED:
        return "_".join(rng.sample(list(SCENE), 2)), None
    return (rng.choice(list(SCENE)) if scene == ANY else scene), None


def drawn(composition: Composition) -> Tensor:
    """A whole picture, `[1, H, W, 3]`."""
    return to_tensor([draw_composition(composition, PICTURE_SIZE)])


def things_alone(composition: Composition) -> tuple[Tensor | ExecutionBlocker, Tensor | ExecutionBlocker]:
    """Each thing on white, `[N, H, W, 3]`, and where it stands, `[N, H, W]`; neither if there is none."""
    if not composition.things:
        # A picture in its place would be inserted or encoded without a word.
        return ExecutionBlocker(NO_THING), ExecutionBlocker(NO_THING)
    masks = draw_thing_masks(composition, PICTURE_SIZE)
    alone = [draw_thing(thing, PICTURE_SIZE) for thing, _ in composition.things]
    return to_tensor(alone), torch.from_numpy(masks)
