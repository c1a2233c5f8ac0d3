"""`python -m pit demo-measure`: measure how well the creature models keep parts."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..demo.measure import GROUPS, SYSTEMS

if TYPE_CHECKING:
    from PIL import Image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer samples and wider intervals: minutes on two CPU cores")
    add("--only", choices=GROUPS + SYSTEMS, action="append", metavar="GROUP",
        help="take only the measures of this group (can be given more than once); the default is, in order: "
        f"{', '.join(GROUPS)}; only on demand come those of another system: {', '.join(SYSTEMS)}")
    add("--json", type=Path, metavar="FILE",
        help="also write every number to this file, but for those of other systems")
    add("--against", type=Path, metavar="FILE", help="also print what changed since the run that wrote FILE")
    add("--picture", type=Path, metavar="FILE", default=Path("demo-measure.png"),
        help="where to save the sheet of parts and concepts, unless --only leaves out kept; the sheet of "
        "another system gets its name, too (default: %(default)s)")
    add("--seed", type=int, default=0, help="decides which creatures are asked for (default: %(default)s)")
    add("--threads", type=int, default=None, help="CPU threads (default: torch's own)")


def run(arguments: argparse.Namespace) -> int:
    """Take the measures and print the tables; return the exit code."""
    # Here rather than above: `python -m pit demo-measure --help` must not wait for torch.
    import torch
    from tqdm import tqdm

    from ..demo.measure import plan as plans
    from ..demo.measure.changes import changes_table, read_numbers
    from ..demo.measure.experiment import run_measures
    from ..demo.measure.report import as_json, concept_sheet
    from ..demo.measure.suite import Laboratory
    from ..demo.measure.systems import SYSTEM_MEASURES
    from ..demo.measure.tables import tables
    from ..demo.measure.trials import check_seed
    from ..demo.models.chain import CreatureChain
    from ..demo.models.reader import load_reader
    from ..files.weights import WeightFileError
    from ..files.whole import write_whole

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    plan, groups = plans.QUICK if arguments.quick else plans.FULL, arguments.only or GROUPS
    systems = {name: each for name, each in SYSTEM_MEASURES.items() if name in groups}
    # Before the work, which takes long: a typing error in a file name must not cost its results.
    try:
        check_seed(arguments.seed)
        check_folders(arguments.picture, arguments.json)
        earlier = read_numbers(arguments.against) if arguments.against else None
        chain, reader = CreatureChain(), load_reader()
        for each in systems.values():
            each.models()
    except (WeightFileError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    total = plan.pictures(groups) + sum(each.pictures(plan) for each in systems.values())
    with tqdm(total=total, unit="picture", mininterval=5) as bar:
        lab = Laboratory(chain, reader, arguments.seed, bar.update)
        findings = run_measures(lab, plan, groups, bar.set_description)
        if found := tables(findings):
            bar.write(found + "\n")
        for name, each in systems.items():
            bar.set_description(name)
            # At once: what is found so far must not be lost with what comes later.
            bar.write(each.tables(lab, plan) + "\n")
    if earlier:
        print(changes_table(as_json(findings), earlier) + "\n")
    if arguments.json:
        write_whole(arguments.json, (json.dumps(as_json(findings), indent=2) + "\n").encode())
        print(f"numbers: {arguments.json}")
    lab = Laboratory(chain, reader, arguments.seed)  # whose pictures no bar counts
    if "kept" in groups:
        save_sheet(concept_sheet(lab), arguments.picture)
    for name, each in systems.items():
        save_sheet(each.sheet(lab), arguments.picture.with_stem(f"{arguments.picture.stem}-{name}"))
    return 0


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Save a sheet and say where."""
    sheet.save(path)
    print(f"picture: {path}")


def check_folders(*files: Path | None) -> None:
    """Check that files can be written where they are to go.

    Raises:
        ValueError: the folder of a file does not exist.
    """
    for file in filter(None, files):
        if not file.parent.is_dir():
            raise ValueError(f"Expected a folder {file.parent} for {file.name}, got none. Create it first.")
