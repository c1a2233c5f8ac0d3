"""Drawn creatures as a dataset to train on."""
from __future__ import annotations

from comfy_api.latest import io

from ...pit.demo.datasets import write_creature_dataset
from ...pit.piece_it_together.training.dataset import read_dataset
from ..bridge.feedback import progress_bar
from ..piece_it_together.datasets import (
    NAME_TOOLTIP,
    TRAINING,
    dataset_fingerprint,
    dataset_folder,
    dataset_outputs,
    shown,
)


class CreatureDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_CreatureDataset",
            display_name="Creature Dataset",
            category=TRAINING,
            description="Draws creatures and their parts as a dataset: an endless source, with no model.",
            search_aliases=["demo dataset", "synthetic dataset"],
            is_output_node=True,
            inputs=[
                io.Int.Input("count", default=200, min=1, max=100_000, tooltip="How many creatures to draw."),
                io.Float.Input(
                    "coherence", default=0.3, min=0.0, max=1.0, step=0.05,
                    tooltip="1 draws pure species; 0 chooses every attribute at random.",
                ),
                # Without a control that changes it after each run: other seeds add other creatures, so the
                # dataset would grow every time that the graph is queued.
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=False,
                    tooltip="Determines which creatures are drawn.",
                ),
                io.String.Input("name", default="creatures", tooltip=NAME_TOOLTIP),
            ],
            outputs=dataset_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, name: object, **_: object) -> int:
        return dataset_fingerprint(name)

    @classmethod
    def execute(cls, count: int, coherence: float, seed: int, name: str) -> io.NodeOutput:
        folder = dataset_folder(name)
        write_creature_dataset(folder, count, seed, coherence, progress_bar())
        return shown(read_dataset(folder), cls)
