"""Many sets of parts at once, out of a folder with a subfolder for each."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comfy_api.latest import io
from torch import Tensor

from ...pit.demo.examples import PART_SETS
from ...pit.files.pictures import PictureError, describe_skipped
from ...pit.images import to_tensor
from ...pit.piece_it_together.part_sets import PartSet, open_parts, read_part_sets, some_sets
from ..bridge.feedback import as_lines, progress_bar, told
from ..bridge.folders import file_stamp
from ..bridge.picture_folders import input_folder, input_folders, offered_names, why_no_folder
from .types import CATEGORY

SHIPPED = "examples of the pack"
ADVICE = "Put a folder there with a subfolder of part pictures for each set."


def sets_folder(choice: str) -> Path:
    """The folder of one of the choices. Raises FileNotFoundError, with advice, for anything else."""
    return PART_SETS if choice == SHIPPED else input_folder(choice, "Load Part Sets", ADVICE)


class LoadPartSets(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadPartSets",
            display_name="Load Part Sets",
            category=CATEGORY,
            description=(
                "Reads a folder in which each subfolder is one set of parts: one run makes a concept of each."
            ),
            search_aliases=["batch folder", "folder of parts", "load images from folder", "many parts"],
            inputs=[
                io.Combo.Input(
                    "folder", options=[SHIPPED, *offered_names(input_folders())],
                    tooltip="A folder in input with a subfolder of part pictures for each set.",
                ),
                io.Int.Input(
                    "first", default=1, min=1, max=1_000_000,
                    tooltip="The first set of this run, counted from 1 in the order of their names.",
                ),
                io.Int.Input(
                    "most", default=100, min=1, max=500,
                    tooltip="At most this many sets in one run; for more, raise first and run again.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="parts", is_output_list=True,
                    tooltip="The pictures of each set as a batch: what follows runs once for each set.",
                ),
                io.String.Output(
                    display_name="name", is_output_list=True,
                    tooltip="The name of each set, for filename_prefix of Save Image.",
                ),
                io.String.Output(display_name="report", tooltip="How many sets, and what was left out."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, **_: object) -> object:
        if folder is None:
            return None
        # Of the files, not of the folder: its time does not change with pictures in its subfolders.
        sets, _skipped = read_part_sets(sets_folder(folder))
        return [(each.name, [(str(path), file_stamp(path)) for path in each.pictures]) for each in sets]

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        return why_no_folder(folder, sets_folder) or True

    @classmethod
    def execute(cls, folder: str, first: int, most: int) -> io.NodeOutput:
        place = sets_folder(folder)
        sets, skipped = read_part_sets(place)
        chosen = some_sets(sets, first, most)
        opened, left_out = opened_sets(chosen)
        if not opened:
            raise PictureError(f"{next(iter(left_out.values()))} None of the sets can be used.")
        report = [f"{len(opened)} of {len(sets)} sets", *describe_skipped(skipped, place)]
        text = "\n".join(report + ([as_lines(left_out)] if left_out else []))
        return io.NodeOutput(list(opened.values()), list(opened), text, ui=told(cls, text))


def opened_sets(sets: Sequence[PartSet]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The pictures `[N, H, W, 3]` of each set by its name, and why other sets are left out."""
    found, left_out, done = {}, {}, progress_bar()
    for number, each in enumerate(sets, 1):
        # A set without one of its parts would become another concept; one of a thousand must not end the run.
        try:
            found[each.name] = to_tensor(open_parts(each.pictures))
        except PictureError as error:
            left_out[f"left out: {each.name}"] = str(error)
        done(number, len(sets))
    return found, left_out
