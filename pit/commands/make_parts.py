"""`python -m pit make-parts`: a folder of pictures becomes a dataset of targets and parts."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..files.lock import only_process
from ..files.pictures import (
    PictureError,
    Skipped,
    describe_skipped,
    file_name,
    list_pictures,
    open_picture,
    save_picture,
)
from ..files.whole import clean_leftovers
from ..piece_it_together.training.dataset import dataset_sheet, describe, read_dataset
from ..piece_it_together.training.make_parts import make_parts, read_masks, save_concept
from ..piece_it_together.training.part_rules import DEFAULT_RULES, PartRules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("source", type=Path, help="folder of pictures, each a target; sub-folders are left alone")
    add("output", type=Path, help="the dataset's folder; concepts of the same name are replaced")
    add("--masks", type=Path,
        help="folder of masks: NAME/*.png with one part in white each, or NAME.png with one color per part; "
        "without it, parts are looked for, which needs plain ground")
    add("--minimum", type=float, default=DEFAULT_RULES.smallest,
        help="smallest share of the picture (default: %(default)s)")
    add("--maximum", type=float, default=DEFAULT_RULES.largest,
        help="largest share of the picture (default: %(default)s)")
    add("--limit", type=int, default=DEFAULT_RULES.most,
        help="most parts of a target (default: %(default)s)")
    add("--drop-largest", action="store_true", help="leave out the largest mask (the whole object)")
    add("--drop-border", action="store_true", help="leave out masks that touch the picture's border")


def run(args: argparse.Namespace) -> int:
    """Make the dataset, its report and its contact sheet; returns the exit code."""
    try:
        rules = PartRules(args.minimum, args.maximum, args.limit, args.drop_largest, args.drop_border)
        skipped = make_dataset(args.source, args.output, args.masks, rules)
        for line in describe_skipped(skipped, args.source):
            print(line)
        dataset = read_dataset(args.output)
        save_picture(args.output / "sheet.png", dataset_sheet(dataset))
    except (OSError, ValueError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(describe(dataset))
    print(f"written: {args.output / 'sheet.png'}")
    return 0


def make_dataset(
    source: Path, output: Path, masks: Path | None = None, rules: PartRules = DEFAULT_RULES
) -> list[Skipped]:
    """Write every picture in `source` that has parts as a concept to `output`; returns what was skipped.

    Raises FileNotFoundError if a folder is missing, ValueError if there is no picture or none has parts,
    OSError if `output` cannot be written, InUseError if another process writes there, and ModuleNotFoundError
    if parts are to be found without masks and scikit-image is not installed.
    """
    from tqdm import tqdm

    for folder in (source, masks):
        if folder is not None and not folder.is_dir():
            raise FileNotFoundError(f"Expected a folder, got none at {folder}.")
    pictures, skipped = list_pictures(source)
    if not pictures:
        raise ValueError(f"Expected pictures (.jpg, .jpeg, .png, .webp) in {source}, got none.")
    with only_process(output):
        clean_leftovers(output / "target")
        reasons = {
            path: _make_concept(path, output, masks, rules)
            for path in tqdm(pictures, desc="pictures", mininterval=1)
        }
    skipped += [Skipped(path, why) for path, why in reasons.items() if why]
    if all(reasons.values()):
        report = "; ".join(describe_skipped(skipped, source))
        raise ValueError(f"Expected a picture with parts in {source}, got none. {report}")
    return skipped


def _make_concept(path: Path, output: Path, masks: Path | None, rules: PartRules) -> str | None:
    """Why there is none, or None when it is written."""
    try:
        target = open_picture(path)
    except PictureError:
        return "unreadable, or of more than 80 megapixels"
    try:
        file_name(path.stem)
        found = None if masks is None else read_masks(masks, path.stem, rules.smallest)
        parts = make_parts(target, found, rules)
    except FileNotFoundError:
        return "no masks of its name"
    except ValueError as error:
        return str(error)
    if not parts:
        return "no area that can be a part"
    save_concept(output, path.stem, target, parts)
    return None
