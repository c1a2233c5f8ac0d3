"""Finding a direction in IP+ space from two kinds of pictures."""
from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...pit.concepts.concepts import Concepts
from ...pit.concepts.direction_chart import separation_chart
from ...pit.concepts.directions import (
    CLIP_SPACE,
    EMBEDDING_SPACE,
    FOLDS,
    METHODS,
    TOKEN_SPACE,
    Direction,
    Separation,
    measured_direction,
)
from ...pit.concepts.editing import between
from ...pit.files.pictures import PictureError, list_pictures, open_picture
from ...pit.images import clip_pixel_values, on_white, to_pil, to_tensor
from ...pit.messages import quoted
from ..bridge.feedback import progress_bar, say
from ..bridge.folders import file_stamp
from ..bridge.picture_folders import input_folder, input_folders, offered_names
from ..bridge.sockets import DirectionType, IPAdapterType, concepts_template
from .encoding import PICTURES_AT_ONCE, encode_chunks, made_by, token_encoder
from .parts import CLIP_VISION_TOOLTIP, IP_ADAPTER_TOOLTIP
from .types import CATEGORY, ManagedIPAdapter

DIRECTIONS = f"{CATEGORY}/directions"
BATCHES, FROM_FOLDERS = "batches", "folders"
SPACES = {TOKEN_SPACE: "token space", CLIP_SPACE: "CLIP space", EMBEDDING_SPACE: "embedding space"}
ADVICE = "Put a folder of pictures of each kind there."


def chosen(folder: str) -> Path:
    return input_folder(folder, "Find IP+ Direction", ADVICE)


def folder_pictures(folder: Path) -> tuple[list[Image.Image], list[str]]:
    """The pictures in a folder, and what in it cannot be used."""
    paths, skipped = list_pictures(folder)
    pictures, problems = [], [f"{each.path.name}: {each.why}" for each in skipped]
    for path in paths:
        try:
            pictures.append(open_picture(path))
        except PictureError as error:
            problems.append(str(error))
    return pictures, problems


def class_pictures(source: dict[str, object]) -> tuple[list[list[Image.Image]], list[str]]:
    """The pictures of both kinds, and what could not be used. Raises ValueError for the same folder twice."""
    if source["pictures"] == BATCHES:
        return [[on_white(picture) for picture in to_pil(source[name])] for name in ("first", "second")], []
    if source["first_folder"] == source["second_folder"]:
        raise ValueError(
            f"Find IP+ Direction expected two different folders, got {quoted(source['first_folder'])} twice. "
            "Choose one folder for each kind."
        )
    found = [folder_pictures(chosen(source[name])) for name in ("first_folder", "second_folder")]
    return [pictures for pictures, _ in found], [problem for _, problems in found for problem in problems]


def pixel_chunks(pictures: Sequence[Image.Image], size: int) -> Iterator[Tensor]:
    """Pixel values, a few pictures at a time."""
    # Made as they are needed: the pixel values of a large folder would fill the memory.
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        yield clip_pixel_values(pictures[start:start + PICTURES_AT_ONCE], size)


def found_directions(
    clip_vision, ip_adapter: ManagedIPAdapter, classes: list[list[Image.Image]], method: str
) -> list[tuple[Direction, Separation]]:
    """The directions in token space and in CLIP space. Raises ValueError for a kind of fewer than two."""
    counts = [len(pictures) for pictures in classes]
    # The spread within each kind is part of the result, and one picture has none.
    if min(counts) < 2:
        raise ValueError(
            f"Find IP+ Direction expected at least 2 pictures of each kind, got {counts[0]} and {counts[1]}. "
            "Add more: 16 or more of each are better."
        )
    encoder, everything = token_encoder(clip_vision, ip_adapter), [*classes[0], *classes[1]]
    # One bar for everything: first the pictures that are encoded, then each fold of both spaces.
    done, steps = progress_bar(), itertools.count(len(everything))
    total = len(everything) + 2 * FOLDS
    tokens, features = encode_chunks(
        encoder, pixel_chunks(everything, encoder.size), total, done
    )
    source = "Find IP+ Direction"
    notes = made_by(source, clip_vision, ip_adapter)["notes"]
    found = []
    for space, values in ((TOKEN_SPACE, tokens), (CLIP_SPACE, features)):
        # Features come before the resampler: a direction of theirs holds for every IP-Adapter of the encoder.
        adapter = ip_adapter.stamp if space == TOKEN_SPACE else ""
        direction, separation = measured_direction(
            *values.split(counts), method, space, source, adapter, lambda: done(next(steps), total)
        )
        found.append((replace(direction, notes={**direction.notes, **notes}), separation))
    done(total, total)
    return found


def describe(direction: Direction, separation: Separation) -> str:
    """What there is to know about a direction, in one line."""
    return (
        f"{SPACES[direction.space]}: {separation.accuracy:.0%} of {direction.notes['pictures']} pictures are "
        f"on the correct side when left out; recommended amount {direction.recommended:.2f}; one standard "
        f"deviation is {direction.deviation:.2f}"
    )


class FindDirection(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        folders = offered_names(input_folders())
        return io.Schema(
            node_id="PiT_FindDirection",
            display_name="Find IP+ Direction",
            category=DIRECTIONS,
            description=(
                "Finds how pictures of one kind differ from those of another, as a direction for editing "
                "concepts, and shows how well it tells the two kinds apart."
            ),
            search_aliases=["slider", "edit direction", "concept slider", "attribute direction"],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                IPAdapterType.Input("ip_adapter", tooltip=IP_ADAPTER_TOOLTIP),
                io.DynamicCombo.Input(
                    "pictures", tooltip="Where the pictures of the two kinds come from.",
                    options=[
                        # First, because the page cannot start with an option that only has sockets.
                        io.DynamicCombo.Option(FROM_FOLDERS, [
                            io.Combo.Input(
                                "first_folder", options=folders,
                                tooltip="Folder in input, with pictures of what the direction leaves behind.",
                            ),
                            io.Combo.Input(
                                "second_folder", options=folders,
                                tooltip="Folder in input, with pictures of what the direction leads to.",
                            ),
                        ]),
                        io.DynamicCombo.Option(BATCHES, [
                            io.Image.Input("first", tooltip="Pictures of what the direction leaves behind."),
                            io.Image.Input("second", tooltip="Pictures of what the direction leads to."),
                        ]),
                    ],
                ),
                io.Combo.Input(
                    "method", options=list(METHODS), default=next(iter(METHODS)),
                    tooltip="shrinkage needs fewer pictures; difference of means is the published method.",
                ),
            ],
            outputs=[
                DirectionType.Output(
                    display_name="direction", tooltip="The direction in token space, for IP+ Direction Edit.",
                ),
                DirectionType.Output(
                    display_name="clip_direction",
                    tooltip="The direction in the space of CLIP, for IP+ Direction Edit of encoded pictures.",
                ),
                io.Image.Output(
                    display_name="chart",
                    tooltip="How well the direction tells the two kinds apart, as a picture.",
                ),
                io.String.Output(display_name="report", tooltip="The same in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, pictures: dict | None, **_: object) -> object:
        # Batches come by links, which ComfyUI follows itself; only files can change without its notice.
        if not pictures or pictures.get("pictures") != FROM_FOLDERS:
            return None
        folders = [pictures.get(name) for name in ("first_folder", "second_folder")]
        if None in folders:
            return None  # what comes over a link is not known yet
        paths = [path for folder in folders for path in list_pictures(chosen(folder))[0]]
        return [(str(path), file_stamp(path)) for path in paths]

    @classmethod
    def execute(
        cls, clip_vision, ip_adapter: ManagedIPAdapter, pictures: dict, method: str
    ) -> io.NodeOutput:
        classes, problems = class_pictures(pictures)
        found = found_directions(clip_vision, ip_adapter, classes, method)
        lines = [describe(*each) for each in found] + [f"left out: {each}" for each in problems]
        chart = to_tensor([separation_chart({SPACES[each.space]: at for each, at in found})])
        directions, report = [direction for direction, _ in found], "\n".join(lines)
        say(cls, report)
        return io.NodeOutput(*directions, chart, report, ui=ui.PreviewImage(chart, cls=cls))


class DirectionBetween(io.ComfyNode):
    takes = {"first": Concepts, "second": Concepts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        concepts = concepts_template()
        return io.Schema(
            node_id="PiT_DirectionBetween",
            display_name="Direction between Concepts",
            category=DIRECTIONS,
            description="Finds how concepts of one kind differ from those of another, for editing others.",
            search_aliases=["slider", "embedding direction", "direction from tokens", "attribute direction"],
            inputs=[
                io.MatchType.Input(
                    "first", template=concepts,
                    tooltip="Several of what the direction leaves behind: IP+ tokens or image embeddings.",
                ),
                io.MatchType.Input(
                    "second", template=concepts, tooltip="Several of what the direction leads to.",
                ),
                io.Combo.Input(
                    "method", options=list(METHODS), default=next(iter(METHODS)),
                    tooltip="shrinkage needs fewer concepts; difference of means is the published method.",
                ),
            ],
            outputs=[
                DirectionType.Output(
                    display_name="direction", tooltip="The direction, for IP+ Direction Edit.",
                ),
                io.Image.Output(
                    display_name="chart",
                    tooltip="How well the direction tells the two kinds apart, as a picture.",
                ),
                io.String.Output(display_name="report", tooltip="The same in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, first: Concepts, second: Concepts, method: str) -> io.NodeOutput:
        done, steps = progress_bar(), itertools.count()
        found = between(
            first, second, method, "Direction between Concepts", lambda: done(next(steps), FOLDS))
        done(FOLDS, FOLDS)
        direction, separation = found
        chart = to_tensor([separation_chart({SPACES[direction.space]: separation})])
        report = describe(*found)
        say(cls, report)
        return io.NodeOutput(direction, chart, report, ui=ui.PreviewImage(chart, cls=cls))
