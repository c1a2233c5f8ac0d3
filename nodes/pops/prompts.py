"""Prompts and file names for pictures that operators learn from."""
from __future__ import annotations

import os
from collections.abc import Mapping

import folder_paths
from comfy_api.latest import io

from ...pit.pops.training.prompts import PairWords, lines_of_words, pair_prompts
from ..bridge.folders import own_folder
from .train import DATASETS
from .types import CATEGORY


def lines_input(name: str, tooltip: str) -> io.Input:
    return io.String.Input(
        name, default="", multiline=True, tooltip=f"{tooltip}, one on each line; nothing uses our own words.",
    )


def prompt_outputs() -> list[io.Output]:
    return [
        io.String.Output(display_name="prompt", tooltip="Of the picture."),
        io.String.Output(display_name="first", tooltip="The thing that SAM3 is to find."),
        io.String.Output(
            display_name="second", is_output_list=True,
            tooltip="The other thing; or the prompt of the empty scene, or those of all variants.",
        ),
        io.Int.Output(display_name="seed", tooltip="For the picture."),
        io.Int.Output(display_name="seeds", is_output_list=True, tooltip="One for each of second."),
        io.String.Output(display_name="picture_name", tooltip="The filename_prefix of the picture."),
        io.String.Output(
            display_name="first_name", tooltip="The filename_prefix of the mask, or of the first cut-out.",
        ),
        io.String.Output(
            display_name="second_name",
            tooltip="The filename_prefix of the empty scene, the variants or the second cut-out.",
        ),
    ]


class OperatorPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_OperatorPrompts",
            display_name="pOps Dataset Prompts",
            category=CATEGORY,
            description=(
                "Writes the prompts of one example that a pOps operator learns from, and the names by which "
                "its pictures are read."
            ),
            search_aliases=["texture pairs", "scene pairs", "union pairs", "random prompts"],
            inputs=[
                io.DynamicCombo.Input(
                    "kind", tooltip="What the operator is to learn.",
                    options=[
                        io.DynamicCombo.Option("texture", [
                            io.Int.Input(
                                "variants", default=5, min=1, max=64,
                                tooltip="Pictures of the same object in other materials; 5 as published.",
                            ),
                            lines_input("materials", "Materials"),
                        ]),
                        io.DynamicCombo.Option("scene", []),
                        io.DynamicCombo.Option("union", []),
                    ],
                ),
                io.String.Input(
                    "folder", default="my_pairs",
                    tooltip=f"The folder in output/{DATASETS}, which Train pOps Operator offers.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Decides the words, and is part of the names: each seed makes another example.",
                ),
                lines_input("things", "Things to show"),
                lines_input("places", "Places, such as 'on a beach'"),
            ],
            outputs=prompt_outputs(),
        )

    @classmethod
    def execute(
        cls, kind: Mapping[str, str | int], folder: str, seed: int, things: str, places: str
    ) -> io.NodeOutput:
        ours = PairWords()
        words = PairWords(
            lines_of_words(things, ours.things), lines_of_words(places, ours.places),
            lines_of_words(kind.get("materials", ""), ours.materials), kind.get("variants", ours.variants),
        )
        pair = pair_prompts(kind["kind"], seed, words)
        # Save Image takes prefixes below ComfyUI's output; the name of a folder may not lead elsewhere.
        safe = own_folder(os.path.join(folder_paths.get_output_directory(), DATASETS), folder).name
        names = [f"{DATASETS}/{safe}/{name}" for name in pair.names]
        return io.NodeOutput(pair.prompt, pair.first, list(pair.second), seed, list(pair.seeds), *names)
