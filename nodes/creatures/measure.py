"""Measuring rendered creatures against the exact truth."""
from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.charts import bars
from ...pit.demo.drawing.creature import SCENES
from ...pit.demo.measure.picture_table import measured_rows
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
from .types import CreatureType

ANY_SCENE = "any"


def check_size(pictures: Tensor) -> None:
    """Raise ValueError unless pictures `[N, 3, H, W]` have the size that the reader was trained on."""
    height, width = pictures.shape[2:]
    # Refused rather than resized: resampling would change the very details that are measured.
    if (height, width) != (PICTURE_SIZE, PICTURE_SIZE):
        raise ValueError(
            f"Measure Creatures expected pictures of {PICTURE_SIZE}x{PICTURE_SIZE} pixels, got "
            f"{width}x{height}. Set the empty latent to {PICTURE_SIZE}x{PICTURE_SIZE}, and connect the "
            "pictures directly from VAE Decode."
        )


def read_pictures(images: Tensor) -> Reading:
    """What the attribute reader sees in pictures of its size, on the CPU."""
    # By way of PIL, which rounds to the 8 bits of a saved picture and puts transparency on white.
    pictures = as_pictures(to_pil(images))
    check_size(pictures)
    # Built for each call: the file is small, and a node must not hold on to memory between runs.
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
                "Reads rendered creatures and measures how much of the given parts was kept, which creatures "
                "are whole, whether the scene is the one asked for, and how varied the rest is."
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
                    tooltip="The scene that the prompt asked for; any leaves the scene out of the table.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="table", tooltip="The measures as a picture, for Save Image."),
                io.Float.Output(
                    display_name="kept", tooltip="Share of the given parts that the creatures kept, 0 to 1.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, creature: Trial, scene: str) -> io.NodeOutput:
        reading = read_pictures(images)
        rows = measured_rows(reading, creature, None if scene == ANY_SCENE else scene)
        table = to_tensor([bars(f"Creatures measured: {len(reading.scenes)}", rows)])
        share = kept(reading, creature.targets).mean().item()
        return io.NodeOutput(table, share, ui=ui.PreviewImage(table, cls=cls))
