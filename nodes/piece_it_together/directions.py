"""Using directions in IP+ space: editing concepts with them, combining them, saving and loading them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comfy_api.latest import io

from ...pit.concepts.concepts import C, Concepts, derived
from ...pit.concepts.directions import (
    CLIP_SPACE,
    Direction,
    apply_amounts,
    combined,
    only_tokens,
    orthogonal,
    raw_amounts,
)
from ...pit.concepts.editing import check_moves, moved
from ...pit.concepts.token_files import read_direction, save_direction
from ...pit.number_lists import edit_amounts_in, numbers_in
from ..bridge.feedback import as_lines, told
from ..bridge.folders import ModelFiles
from ..bridge.keeping import kept
from ..bridge.loaders import FileNode
from ..bridge.sockets import DirectionType, IPAdapterType, concepts_template
from .apply_tokens import check_adapter
from .encoding import resample
from .find_direction import DIRECTIONS
from .types import ManagedIPAdapter

FILES = ModelFiles("ip_direction")
RAW, DEVIATIONS, RECOMMENDED = "raw", "standard deviations", "recommended"
SUM, WITHOUT = "sum", "first without second"


def in_unit(direction: Direction, amounts: Sequence[float], unit: str) -> Sequence[float]:
    """Amounts as multiples of the direction. Raises ValueError if it does not record what the unit needs."""
    if unit == DEVIATIONS:
        return raw_amounts(direction, amounts)
    if unit == RAW:
        return amounts
    if direction.recommended is None:
        raise ValueError(
            f"IP+ Direction Edit expected a direction with a recommended amount, got {direction.source}, "
            f"which has none. Set unit to {RAW}, or find the direction with Find IP+ Direction."
        )
    return [amount * direction.recommended for amount in amounts]


def edited(
    tokens: C, direction: Direction, amounts: Sequence[float], ip_adapter: ManagedIPAdapter | None
) -> C:
    """The concepts at every amount. Raises ValueError if the direction does not fit them or needs more."""
    check_moves(direction, tokens)
    if direction.space != CLIP_SPACE:
        return moved(tokens, direction, amounts, "IP+ Direction Edit")
    if tokens.features is None:
        raise ValueError(
            f"IP+ Direction Edit expected tokens with image features, because {direction.source} is in CLIP "
            f"space, before the resampler; got tokens without features from {tokens.source}. Connect Encode "
            "IP+ Image, or use a direction in token space."
        )
    if ip_adapter is None:
        raise ValueError(
            f"IP+ Direction Edit expected an ip_adapter, because {direction.source} is in CLIP space; got "
            "none. To turn the edited features into tokens, connect the ip_adapter."
        )
    check_adapter(tokens, ip_adapter)
    # The resampler is not linear, so each amount needs a pass of its own.
    features = apply_amounts(tokens.features, direction.values, amounts)
    done = derived([tokens], resample(ip_adapter, features), "IP+ Direction Edit")
    # The edited features stay with the tokens, so that a second edit in CLIP space starts from this one.
    return replace(done, features=features)


class DirectionEdit(io.ComfyNode):
    takes = {"tokens": Concepts, "direction": Direction}

    @classmethod
    def define_schema(cls) -> io.Schema:
        concepts = concepts_template()
        return io.Schema(
            node_id="PiT_DirectionEdit",
            display_name="IP+ Direction Edit",
            category=DIRECTIONS,
            description="Moves concepts along a direction by one or more amounts, for a strip of pictures.",
            search_aliases=[
                "slider", "edit tokens", "edit embeddings", "attribute edit", "older", "attribute slider",
                "stronger",
            ],
            inputs=[
                io.MatchType.Input(
                    "tokens", template=concepts,
                    tooltip="The concepts to edit, one or several: IP+ tokens or image embeddings.",
                ),
                DirectionType.Input("direction", tooltip="Where to move: found, loaded or combined."),
                io.String.Input(
                    "amounts", default="-1, -0.5, 0, 0.5, 1",
                    tooltip="How far to move, such as -1, 0, 1 or -1 to 1 in 5; each amount gives one "
                            "picture for each concept.",
                ),
                io.Combo.Input(
                    "unit", options=[RAW, DEVIATIONS, RECOMMENDED], default=RAW,
                    tooltip="What an amount of 1 means: the direction itself, one standard deviation of the "
                            "pictures of a kind, or the amount that Find IP+ Direction recommends.",
                ),
                io.String.Input(
                    "only_tokens", default="", optional=True, advanced=True,
                    tooltip="Numbers of the tokens to edit, such as 1-8; empty edits all of them.",
                ),
                IPAdapterType.Input(
                    "ip_adapter", optional=True,
                    tooltip="Only for directions in CLIP space: turns edited image features into tokens.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    template=concepts,
                    display_name="tokens",
                    tooltip="The edited concepts, one for each amount, for Apply IP+ Tokens.",
                ),
                io.String.Output(display_name="labels", tooltip="The amount of each, for Labelled Strip."),
            ],
        )

    @classmethod
    def execute(
        cls, tokens: Concepts, direction: Direction, amounts: str, unit: str, only_tokens: str = "",
        ip_adapter: ManagedIPAdapter | None = None,
    ) -> io.NodeOutput:
        if only_tokens.strip():
            direction = chosen_tokens(direction, only_tokens)
        given = edit_amounts_in(amounts)
        done = edited(tokens, direction, in_unit(direction, given, unit), ip_adapter)
        # In the order of the batch: all concepts at the first amount, then all at the second.
        labels = "\n".join(f"{amount:g}" for amount in given for _ in range(len(tokens.values)))
        return io.NodeOutput(done, labels)


def chosen_tokens(direction: Direction, text: str) -> Direction:
    """The direction at some tokens only. Raises ValueError for text that is not a list of token numbers."""
    return only_tokens(direction, numbers_in(text))


class CombineDirections(io.ComfyNode):
    takes = {"first": Direction, "second": Direction}

    @classmethod
    def define_schema(cls) -> io.Schema:
        def weight(name: str) -> io.Input:
            return io.Float.Input(
                name, default=1.0, min=-10.0, max=10.0, step=0.05,
                tooltip="How much of this direction goes into the sum.",
            )

        return io.Schema(
            node_id="PiT_CombineDirections",
            display_name="Combine IP+ Directions",
            category=DIRECTIONS,
            description="Two directions at once, or one without the other: muscular, but in the same color.",
            search_aliases=["orthogonalize", "add directions", "mix sliders"],
            inputs=[
                DirectionType.Input("first", tooltip="The direction to start from."),
                DirectionType.Input("second", tooltip="The direction to add to it, or to remove from it."),
                io.DynamicCombo.Input(
                    "mode", tooltip="The sum of both, or the first with all of the second removed.",
                    options=[
                        io.DynamicCombo.Option(SUM, [weight("weight_first"), weight("weight_second")]),
                        io.DynamicCombo.Option(WITHOUT, []),
                    ],
                ),
            ],
            outputs=[
                DirectionType.Output(
                    display_name="direction", tooltip="The combined direction, for IP+ Direction Edit.",
                ),
            ],
        )

    @classmethod
    def execute(cls, first: Direction, second: Direction, mode: dict) -> io.NodeOutput:
        if mode["mode"] == WITHOUT:
            return io.NodeOutput(orthogonal(first, second))
        return io.NodeOutput(combined(first, second, mode["weight_first"], mode["weight_second"]))


class LoadDirection(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadDirection",
            display_name="Load IP+ Direction",
            category=DIRECTIONS,
            description="Loads a direction: one that was saved here, or a published .pt of either space.",
            search_aliases=["load slider", "ip_direction", "clip_direction"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/ip_directions, .safetensors or .pt, or one that comes with "
                            "the creature models.",
                ),
            ],
            outputs=[
                DirectionType.Output(
                    display_name="direction", tooltip="The direction, for IP+ Direction Edit.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        direction = read_direction(FILES.path(file), file)
        facts = {"space": direction.space, "shape": list(direction.values.shape), **direction.notes}
        # Published files are bare tensors, for which neither of these was measured.
        for name in ("deviation", "recommended"):
            if getattr(direction, name) is not None:
                facts[name] = round(getattr(direction, name), 4)
        return io.NodeOutput(direction, ui=told(cls, as_lines(facts)))


class SaveDirection(io.ComfyNode):
    takes = {"direction": Direction}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SaveDirection",
            display_name="Save IP+ Direction",
            category=DIRECTIONS,
            description="Saves a direction and how it was found, for Load IP+ Direction.",
            search_aliases=["save slider"],
            is_output_node=True,
            inputs=[
                DirectionType.Input("direction", tooltip="The direction to save."),
                io.String.Input(
                    "name", default="my_direction",
                    tooltip="The file is models/ip_directions/NAME.safetensors; one of that name is "
                            "overwritten.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, direction: Direction, name: str) -> io.NodeOutput:
        return kept(cls, FILES, name, lambda path: save_direction(path, direction))
