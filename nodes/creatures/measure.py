"""Measuring drawn creatures against the exact truth."""
from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.demo.drawing.creature import SCENES
from ...pit.demo.measure.picture_table import draw_table, measured_rows
from ...pit.demo.measure.scores import joined, kept
from ...pit.demo.measure.trials import Trial
from ...pit.demo.models.reader import CreatureReader, Reading, as_pictures
from ...pit.demo.models.sizes import PICTURE_SIZE
from ...pit.demo.models.weights import READER, read_weights
from ...pit.images import to_pil, to_tensor
from ..bridge.feedback import progress_bar
from ..bridge.memory import managed
from ..piece_it_together.encoding import PICTURES_AT_ONCE
from ..piece_it_together.types import CATEGORY
from .models import CreatureType

ANY_SCENE = "any"


def check_size(pictures: Tensor) -> None:
    """Raise ValueError if pictures `[N, 3, H, W]` are not of the size that the reader looks at."""
    height, width = pictures.shape[2:]
    if (height, width) != (PICTURE_SIZE, PICTURE_SIZE):
        raise ValueError(
            f"Measure Creatures reads pictures of {PICTURE_SIZE}x{PICTURE_SIZE} pixels, found "
            f"{width}x{height}. Set the empty latent to {PICTURE_SIZE}x{PICTURE_SIZE}, and connect the "
            "pictures as VAE Decode gives them."
        )


def read_pictures(images: Tensor) -> Reading:
    """What the attribute reader sees in pictures of its size, on the CPU."""
    pictures = as_pictures(to_pil(images))
    check_size(pictures)
    reader = managed(CreatureReader, read_weights(READER))
    comfy.model_management.load_models_gpu([reader])
    done, readings, chunks = progress_bar(), [], pictures.split(PICTURES_AT_ONCE)
    for chunk in chunks:
        readings.append(reader.model.read(chunk.to(reader.load_device)))
        done(len(readings), len(chunks))
    return joined(readings)


class MeasureCreatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_MeasureCreatures",
            display_name="Measure Creatures",
            category=CATEGORY,
            description=(
                "Reads drawn creatures and counts what was kept of the given parts, which creatures are "
                "whole, whether the scene is as asked, and how varied the rest is."
            ),
            search_aliases=["creature measures", "evaluate creatures", "attribute table"],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images", tooltip=f"Creatures to measure, {PICTURE_SIZE}x{PICTURE_SIZE} pixels each.",
                ),
                CreatureType.Input(
                    "creature", tooltip="The creature whose parts were given, from Creature Parts.",
                ),
                io.Combo.Input(
                    "scene", options=[ANY_SCENE, *SCENES], default=ANY_SCENE,
                    tooltip="The scene that the prompt asked for; any leaves it out of the table.",
                ),
            ],
            outputs=[io.Image.Output(display_name="table"), io.Float.Output(display_name="kept")],
        )

    @classmethod
    def execute(cls, images: Tensor, creature: Trial, scene: str) -> io.NodeOutput:
        reading = read_pictures(images)
        rows = measured_rows(reading, creature, None if scene == ANY_SCENE else scene)
        table = to_tensor([draw_table(f"Creatures measured: {len(reading.scenes)}", rows)])
        share = kept(reading, creature.targets).mean().item()
        return io.NodeOutput(table, share, ui=ui.PreviewImage(table, cls=cls))
