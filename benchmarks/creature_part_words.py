"""How exactly creatures show part words: the shipped ones beside two that are learned otherwise.

Those without the attention loss, and those without a projection (textual inversion), are trained in the
folder of `python -m pit demo-train`, or their training resumes there. The other baselines are plain captions
and the true drawings. Prints two tables; with --picture also shows mixtures. Run in the folder of the pack:

    python -m benchmarks.creature_part_words --folder demo-training
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pit.demo.measure.part_words import mixtures_sheet, partcraft_tables
from pit.demo.measure.plan import FULL, QUICK
from pit.demo.measure.suite import Laboratory
from pit.demo.models.chain import CreatureChain
from pit.demo.models.part_words import PartArtist, load_creature_words
from pit.demo.models.reader import load_reader
from pit.demo.training import TRAINING_SEED
from pit.demo.training.part_words import train_baselines
from pit.demo.training.stage import Run
from pit.partcraft.files import load_part_words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="that of python -m pit demo-train")
    parser.add_argument("--quick", action="store_true", help="fewer samples and wider intervals")
    parser.add_argument("--seed", type=int, default=0, help="decides which mixtures are asked for")
    parser.add_argument("--picture", type=Path, help="show mixtures of 1 to 4 species in this file")
    options = parser.parse_args()
    run = Run(options.folder, torch.device("cpu"), torch.bfloat16, TRAINING_SEED)
    others = {name: load_part_words(path) for name, path in train_baselines(run).items()}
    lab = Laboratory(CreatureChain(), load_reader(), options.seed)
    print(partcraft_tables(lab, QUICK if options.quick else FULL, others))
    if options.picture:
        mixtures_sheet(PartArtist(load_creature_words()), options.seed).save(options.picture)


if __name__ == "__main__":
    main()
