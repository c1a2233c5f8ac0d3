"""Pictures of all species in a folder of ComfyUI's input, to find parts in and to train part words on."""
from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io, ui

from ...pit.demo.drawing.creature import SPECIES
from ...pit.demo.drawing.draw import draw_creature
from ...pit.demo.models.sizes import PICTURE_SIZE
from ...pit.demo.species import species_creatures, write_species
from ...pit.images import to_tensor
from ..bridge.feedback import progress_bar
from ..bridge.folders import own_folder
from ..bridge.outputs import Outputs
from ..piece_it_together.datasets import TRAINING

WRITTEN = Outputs()


class CreatureSpecies(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureSpecies",
            display_name="Creature Species",
            category=TRAINING,
            description=(
                f"Draws creatures of all {len(SPECIES)} species into input, in a folder for each species: "
                "pictures to find parts in and to train part words on."
            ),
            search_aliases=["demo pictures", "part words pictures", "species folder"],
            is_output_node=True,
            inputs=[
                io.Int.Input("count", default=32, min=1, max=1000, tooltip="How many of each species."),
                # Without a control that changes it after each run: other seeds add other creatures.
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=False,
                    tooltip="Determines which creatures are drawn.",
                ),
                io.String.Input(
                    "name", default="creature_species", tooltip="The folder is input/NAME; it is extended.",
                ),
            ],
            outputs=[
                io.Combo.Output(
                    display_name="folder", tooltip="The folder, for Find Parts and Train PartCraft.",
                ),
                io.Image.Output(display_name="images", tooltip="The first creature of each species."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, name: object, **_: object) -> int:
        return WRITTEN.fingerprint(species_folder(name)) if isinstance(name, str) else 0

    @classmethod
    def execute(cls, count: int, seed: int, name: str) -> io.NodeOutput:
        folder = species_folder(name)
        write_species(folder, count, seed, progress_bar())
        WRITTEN.keep(folder)
        shown = to_tensor([draw_creature(each, PICTURE_SIZE) for each in species_creatures(1, seed)])
        return io.NodeOutput(folder.name, shown, ui=ui.PreviewImage(shown, cls=cls))


def species_folder(name: str) -> Path:
    """The folder of this name in ComfyUI's input folder; errors as in `own_folder`."""
    return own_folder(folder_paths.get_input_directory(), name)
