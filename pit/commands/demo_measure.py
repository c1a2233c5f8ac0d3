"""`python -m pit demo-measure`: measure how well the creature models keep parts."""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ..demo.measure import GROUPS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer samples and wider intervals: minutes on two CPU cores")
    add("--only", choices=GROUPS, action="append", metavar="GROUP",
        help="take only the measures of this group (can be given more than once); the default is all, in "
        f"order: {', '.join(GROUPS)}")
    add("--json", type=Path, metavar="FILE", help="also write every number to this file")
    add("--against", type=Path, metavar="FILE", help="also print what changed since the run that wrote FILE")
    add("--picture", type=Path, metavar="FILE", default=Path("demo-measure.png"),
        help="where to save the sheet of parts and concepts, unless --only leaves out kept (default: "
        "%(default)s)")
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
    from ..demo.measure.tables import tables
    from ..demo.measure.trials import check_seed
    from ..demo.models.chain import CreatureChain
    from ..demo.models.reader import load_reader
    from ..files.weights import WeightFileError
    from ..files.whole import write_whole

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    plan, groups = plans.QUICK if arguments.quick else plans.FULL, arguments.only or GROUPS
    # Before the work, which takes long: a typing error in a file name must not cost its results.
    try:
        check_seed(arguments.seed)
        check_folders(arguments.picture, arguments.json)
        earlier = read_numbers(arguments.against) if arguments.against else None
        chain, reader = CreatureChain(), load_reader()
    except (WeightFileError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with tqdm(total=plan.pictures(groups), unit="picture", mininterval=5) as bar:
        lab = Laboratory(chain, reader, arguments.seed, bar.update)
        findings = run_measures(lab, plan, groups, bar.set_description)
    print(tables(findings) + "\n")
    if earlier:
        print(changes_table(as_json(findings), earlier) + "\n")
    if arguments.json:
        write_whole(arguments.json, (json.dumps(as_json(findings), indent=2) + "\n").encode())
        print(f"numbers: {arguments.json}")
    if "kept" in groups:
        concept_sheet(Laboratory(chain, reader, arguments.seed)).save(arguments.picture)
        print(f"picture: {arguments.picture}")
    return 0


def check_folders(*files: Path | None) -> None:
    """Check that files can be written where they are to go.

    Raises:
        ValueError: the folder of a file does not exist.
    """
    for file in filter(None, files):
        if not file.parent.is_dir():
            raise ValueError(f"Expected a folder {file.parent} for {file.name}, got none. Create it first.")
