"""Steering concepts: weighing parts, blending two concepts, picking from many, and showing all in a strip."""
from __future__ import annotations

from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.concepts.concepts import (
    Concepts,
    blend,
    check_same_kind,
    check_same_space,
    derived,
    picked,
)
from ...pit.images import labelled_sheet, to_pil, to_tensor
from ...pit.number_lists import amounts_in, numbers_in
from ...pit.piece_it_together.slots import Parts
from ..bridge.sockets import concepts_template
from .types import CATEGORY, PartsType

LONGEST_LABEL = 200  # letters, of which a picture has room for a few dozen


class PartWeight(io.ComfyNode):
    takes = {"parts": Parts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PartWeight",
            display_name="Part Weight",
            category=CATEGORY,
            description="More of one part, less of it, or anything but it. Chain nodes for several parts.",
            search_aliases=["part strength", "negative part", "not like this"],
            inputs=[
                PartsType.Input("parts", tooltip="The parts, one of which gets another weight."),
                io.Int.Input(
                    "part", default=1, min=1, max=64,
                    tooltip="Which part, counted from 1 as shown by Encode IP+ Parts, including a reference.",
                ),
                io.Float.Input(
                    "weight", default=1.0, min=-2.0, max=2.0, step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="1 leaves the part as it is, 0 leaves it out, 2 exaggerates it; below 0 steers "
                            "the concepts away from it.",
                ),
            ],
            outputs=[
                PartsType.Output(
                    display_name="parts",
                    tooltip="The parts with their new weight, for IP-Prior Sample or another Part Weight.",
                ),
            ],
        )

    @classmethod
    def execute(cls, parts: Parts, part: int, weight: float) -> io.NodeOutput:
        # People count from 1, slots from 0.
        return io.NodeOutput(parts.weighed(part - 1, weight))


class BlendConcepts(io.ComfyNode):
    takes = {"first": Concepts, "second": Concepts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        concepts = concepts_template()
        return io.Schema(
            node_id="PiT_BlendConcepts",
            display_name="Blend Concepts",
            category=CATEGORY,
            description="Makes concepts between two others, as close to either as you like.",
            search_aliases=[
                "interpolate", "mix tokens", "blend embeddings", "morph", "slerp", "mix", "merge", "hybrid",
                "crossbreed",
            ],
            inputs=[
                io.MatchType.Input(
                    "first", template=concepts,
                    tooltip="One concept, or as many as second has: IP+ tokens or image embeddings.",
                ),
                io.MatchType.Input(
                    "second", template=concepts, tooltip="One concept, or as many as first has.",
                ),
                io.String.Input(
                    "amounts", default="0.5",
                    tooltip="How far to go from first (0) to second (1), such as 0, 0.25, 0.5, 0.75, 1; each "
                            "number gives one concept per pair.",
                ),
                io.Combo.Input(
                    "mode", options=["linear", "spherical"], default="spherical",
                    tooltip="spherical keeps blends as strong as both ends; linear weakens them halfway.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    template=concepts,
                    display_name="tokens",
                    tooltip="The blends, one for each amount, for Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, first: Concepts, second: Concepts, amounts: str, mode: str) -> io.NodeOutput:
        check_same_kind(first, second)
        # In this order, so that concepts of two widths are reported with the names of both inputs.
        values = blend(first.values, second.values, amounts_in(amounts), mode == "spherical")
        check_same_space(first, second)
        return io.NodeOutput(derived([first, second], values, "Blend Concepts"))


class PickConcepts(io.ComfyNode):
    takes = {"tokens": Concepts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        concepts = concepts_template()
        return io.Schema(
            node_id="PiT_PickConcepts",
            display_name="Pick Concepts",
            category=CATEGORY,
            description="Picks concepts from many by number, without sampling them again.",
            search_aliases=["select tokens", "select embeddings", "choose", "tokens from batch"],
            inputs=[
                io.MatchType.Input(
                    "tokens", template=concepts,
                    tooltip="The concepts to pick from: IP+ tokens or image embeddings.",
                ),
                io.String.Input(
                    "numbers", default="1",
                    tooltip="Such as 1, 4, 7-9, counted from 1 and row by row, like pictures on a wall.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    template=concepts,
                    display_name="tokens",
                    tooltip="The picked ones, in the order of their numbers, for Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, tokens: Concepts, numbers: str) -> io.NodeOutput:
        return io.NodeOutput(picked(tokens, numbers_in(numbers)))


class LabelledStrip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LabelledStrip",
            display_name="Labelled Strip",
            category=CATEGORY,
            description="Puts pictures side by side, each with a label above it, and the original first.",
            search_aliases=["contact sheet", "comparison strip", "image grid", "grid", "compare"],
            inputs=[
                io.Image.Input("images", tooltip="The pictures, in order."),
                io.String.Input(
                    "labels", multiline=True, default="",
                    tooltip="One line per picture, as from IP+ Direction Edit; empty for no labels.",
                ),
                io.Int.Input(
                    "columns", default=0, min=0, max=256,
                    tooltip="How many pictures per row; 0 puts all of them in one row.",
                ),
                io.Image.Input("original", optional=True, tooltip="The unedited picture, which comes first."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="strip", tooltip="All pictures with their labels, for Save Image.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, images: Tensor, labels: str, columns: int, original: Tensor | None = None
    ) -> io.NodeOutput:
        # A newline at the end is no label, but an empty line in between leaves its picture without one.
        pictures, lines = to_pil(images), labels.rstrip("\n").split("\n") if labels.strip() else []
        if lines and len(lines) != len(pictures):
            raise ValueError(
                f"Labelled Strip expected one label for each of {len(pictures)} pictures, got {len(lines)} "
                "lines. Give one line per picture, or leave labels empty."
            )
        lines = lines or [""] * len(pictures)
        if original is not None:
            first = to_pil(original)
            pictures, lines = [*first, *pictures], ["original"] * len(first) + lines
        columns = min(columns or len(pictures), len(pictures))
        lines = [line[:LONGEST_LABEL] for line in lines]
        strip = to_tensor([labelled_sheet(pictures, lines, columns)])
        return io.NodeOutput(strip, ui=ui.PreviewImage(strip, cls=cls))
