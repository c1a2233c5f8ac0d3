"""The parts of a collection of pictures, found by themselves."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import comfy.model_management
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...pit.files.known import first_of
from ...pit.files.pictures import PictureError, open_picture, pictures_below
from ...pit.images import is_plain, labelled_sheet, to_pil, to_tensor
from ...pit.messages import LONGEST, ShortError
from ...pit.partcraft.discovery import (
    CODES,
    PARTS,
    SAMPLE,
    SEED,
    Discovery,
    PartClusters,
    caption,
    discover,
    find_parts,
    usual_codes,
)
from ...pit.partcraft.kmeans import STARTS
from ...pit.partcraft.previews import colored_parts, legend_picture
from ..bridge.dino import check_dino
from ..bridge.feedback import progress_bar, say
from ..bridge.folders import file_stamp
from ..bridge.picture_folders import input_folder, input_folders, offered_names
from .dino import reader, whole_features
from .types import CATEGORY, CLIP_VISION_TOOLTIP, PartClustersType

FROM_FOLDER, BATCH = "folder", "batch"
AUTOMATIC, FIRST, SECOND = "automatic", "first cluster", "second cluster"
FRONTS = {AUTOMATIC: None, FIRST: 0, SECOND: 1}
ADVICE = "Put a folder of pictures there; 100 or more of one kind of thing are best."
TOLD_EVERY, USUAL_STEPS = 20, 200
SHOWN, COLUMNS, SIDE = 11, 4, 256  # pictures on the sheet, beside the legend


class Collection(NamedTuple):
    """Pictures that are opened when they are needed: their names, how to open one, what was left out."""

    names: list[str]
    open: Callable[[int], Image.Image]
    problems: list[str]


def of_folder(choice: str) -> Collection:
    """The pictures in a folder of input and in the folders directly in it."""
    folder = input_folder(choice, "Find Parts", ADVICE)
    paths, problems = pictures_below(folder)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return usable(Collection(names, lambda number: open_picture(paths[number]), problems))


def of_batch(images: Tensor) -> Collection:
    """The pictures of a batch."""
    names = [str(number) for number in range(len(images))]
    return usable(Collection(names, lambda number: to_pil(images[number])[0], []))


def usable(collection: Collection) -> Collection:
    """Those that open and show something. Raises ShortError if there are fewer than two."""
    done, problems, good = progress_bar(), list(collection.problems), []
    # All of them first: a damaged one among thousands must not end a search that has run for an hour.
    for number, name in enumerate(collection.names):
        why = why_not(collection, number)
        if why is None:
            good.append(number)
        else:
            problems.append(f"{name}: {why}")
        done(number + 1, len(collection.names))
    if len(good) < 2:
        raise ShortError(
            f"Find Parts expected pictures to compare, got {len(good)} that can be used. {ADVICE} Left out: "
            f"{first_of(problems) or 'none'}."
        )
    names = [collection.names[number] for number in good]
    return Collection(names, lambda number: collection.open(good[number]), problems)


def why_not(collection: Collection, number: int) -> str | None:
    """Why no parts can be found in a picture; None if they can."""
    try:
        plain = is_plain(collection.open(number))
    except PictureError as error:
        return str(error)
    return "of one color, so that there are no parts to find" if plain else None


def found_parts(
    clip_vision, collection: Collection, parts: int, codes: int, seed: int, front: str, start: str,
    tell: Callable[[str], None],
) -> Discovery:
    """The parts of a collection; errors as in `discover`.

    Args:
        tell: called now and then with how far the search is.
    """
    count, done, steps, searches = len(collection.names), progress_bar(), 0, 0
    total = 2 * count + 1

    def move() -> None:
        # Nobody knows how long a search takes: half of the bar is for it, of which each step takes a share of
        # what is left.
        done(steps + count * searches // (searches + USUAL_STEPS), total)

    def seen(number: int) -> None:
        nonlocal steps
        steps += number
        move()

    def searched() -> None:
        nonlocal searches
        comfy.model_management.throw_exception_if_processing_interrupted()
        searches += 1
        move()
        if searches % TOLD_EVERY == 0:
            tell(f"looking for clusters: step {searches}")

    found = discover(
        reader(clip_vision, collection.open, seen), count, parts, codes or usual_codes(count), seed=seed,
        foreground=FRONTS[front], device=comfy.model_management.get_torch_device(), start=start,
        on_iteration=searched,
    )
    done(total, total)
    return found


def sheet_of(clip_vision, clusters: PartClusters, collection: Collection) -> Image.Image:
    """The first pictures with their parts in colors, and the names of the colors."""
    tiles = []
    for number in range(min(SHOWN, len(collection.names))):
        comfy.model_management.throw_exception_if_processing_interrupted()
        picture = collection.open(number)
        picture.thumbnail((SIDE, SIDE))
        found = find_parts(whole_features(clip_vision, picture), clusters)
        tiles.append(colored_parts(picture, found.labels[0], clusters.background_part))
    names = [part.name or f"part{number}" for number, part in enumerate(clusters.vocabulary.parts)]
    labels = [collection.names[number][-24:] for number in range(len(tiles))]
    key = legend_picture(names, SIDE, SIDE, clusters.background_part)
    return labelled_sheet([*tiles, key], [*labels, "parts"], COLUMNS)


def reported(found: Discovery, collection: Collection) -> str:
    """What there is to know about a discovery, in lines."""
    clusters, count = found.clusters, len(collection.names)
    names = [f"{part.name} ({part.count} codes)" for part in clusters.vocabulary.parts]
    lines = [f"{count} pictures, {len(names)} parts: {', '.join(names)}", *found.notes]
    if count < SAMPLE:
        lines.insert(1, f"Found on {count} pictures, which is few: parts become reliable with {SAMPLE}.")
    lines += [f"left out: {problem}" for problem in collection.problems]
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else f"{text[:LONGEST - 4]}\n..."


def captions(found: Discovery, names: Sequence[str]) -> str:
    """The codes of each picture as published, in lines."""
    return "\n".join(
        f"{name} {caption(codes, found.clusters.absent)}"
        for name, codes in zip(names, found.codes.tolist(), strict=True)
    )


class FindParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_FindParts",
            display_name="Find Parts",
            category=CATEGORY,
            description=(
                "Finds the parts that pictures of one kind of thing share, such as head and wing, and the "
                "codes of each, without labels; shows them in colors."
            ),
            search_aliases=[
                "part discovery", "k-means", "dino clusters", "unsupervised parts", "segment parts",
                "segmentation",
            ],
            has_intermediate_output=True,
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                io.DynamicCombo.Input(
                    "pictures", tooltip="Where the pictures come from.",
                    options=[
                        # First, because the page cannot start with an option that only has sockets.
                        io.DynamicCombo.Option(FROM_FOLDER, [
                            io.Combo.Input(
                                "folder", options=offered_names(input_folders()),
                                tooltip="Folder in input; pictures in the folders directly in it count, too.",
                            ),
                        ]),
                        io.DynamicCombo.Option(BATCH, [
                            io.Image.Input("images", tooltip="The pictures, as a batch."),
                        ]),
                    ],
                ),
                *settings(),
            ],
            outputs=[
                PartClustersType.Output(
                    display_name="clusters", tooltip="For Save Part Clusters, Label Parts and training.",
                ),
                io.Image.Output(
                    display_name="sheet", tooltip="The first pictures with their parts in colors.",
                ),
                io.String.Output(
                    display_name="codes", tooltip="The codes of each picture, a line each, as published.",
                ),
                io.String.Output(display_name="report", tooltip="What was found, and what to know about it."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, pictures: dict | None, **_: object) -> object:
        # Batches come by links, which ComfyUI follows itself; only files can change without its notice.
        if not pictures or pictures.get("pictures") != FROM_FOLDER or pictures.get("folder") is None:
            return None
        paths, _ = pictures_below(input_folder(pictures["folder"], "Find Parts", ADVICE))
        return [(str(path), file_stamp(path)) for path in paths]

    @classmethod
    def execute(
        cls, clip_vision, pictures: dict, parts: int, codes: int, seed: int, foreground: str = AUTOMATIC,
        start: str = "published",
    ) -> io.NodeOutput:
        check_dino("Find Parts", clip_vision)
        chosen = pictures["pictures"] == FROM_FOLDER
        collection = of_folder(pictures["folder"]) if chosen else of_batch(pictures["images"])
        found = found_parts(
            clip_vision, collection, parts, codes, seed, foreground, start, partial(say, cls)
        )
        sheet = to_tensor([sheet_of(clip_vision, found.clusters, collection)])
        report = reported(found, collection)
        say(cls, report)
        text = captions(found, collection.names)
        return io.NodeOutput(found.clusters, sheet, text, report, ui=ui.PreviewImage(sheet, cls=cls))


def settings() -> list[io.Input]:
    """How the parts are searched for."""
    return [
        io.Int.Input(
            "parts", default=PARTS, min=2, max=64,
            tooltip="How many parts there are, with the background; 8 as published.",
        ),
        io.Int.Input(
            "codes", default=0, min=0, max=4096,
            tooltip=f"How many codes each part has; {CODES} as published. 0 takes one for every four "
                    f"pictures, {CODES} at most.",
        ),
        io.Int.Input(
            "seed", default=SEED, min=0, max=0xffffffff,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Chooses the pictures to find parts on, and where each search begins.",
        ),
        io.Combo.Input(
            "foreground", options=list(FRONTS), default=AUTOMATIC, optional=True, advanced=True,
            tooltip="Which of the two kinds of places is the thing: the one that is rarer at the border, or "
                    "chosen by hand if the sheet shows them exchanged.",
        ),
        io.Combo.Input(
            "start", options=list(STARTS), default="published", optional=True, advanced=True,
            tooltip="How each search begins: at random places as published, or spread over all of them.",
        ),
    ]


