"""What the creatures' IP-LoRA changes: how often the scene is as asked for, and how many attributes are kept.

Concepts are completed from two parts and rendered at the full weight of their tokens, with prompts that name
a scene: one that the shipped models know, or one that the IP-LoRA teaches. The baseline is the same without
the IP-LoRA. Prints a table; with --picture also shows concepts in every scene. Run in the folder of the pack:

    python -m benchmarks.creature_lora
"""
from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from benchmarks.labelled import sheet
from pit.demo.drawing.creature import ALL_SCENE_WORDS, TAUGHT_SCENE_WORDS
from pit.demo.measure import suite
from pit.demo.measure.backdrop import nearest_scenes
from pit.demo.measure.scores import is_whole, kept
from pit.demo.measure.trials import Trial, all_targets, draw_trials, scene_caption, true_pictures
from pit.demo.models.chain import CreatureChain
from pit.demo.models.library import SCENES_LORA
from pit.demo.models.reader import as_pictures, load_reader
from pit.demo.models.weights import weight_file
from pit.files.lora import merge_lora, read_lora
from pit.images import to_pil

NAMES = list(ALL_SCENE_WORDS)
GROUPS = {
    "known scenes": [name for name in suite.WORDED_SCENES],
    "taught scenes": list(TAUGHT_SCENE_WORDS),
}
SHOWN = 3


@dataclass(frozen=True)
class Shares:
    """Shares: pictures with the scene asked for, given attributes kept, complete creatures."""

    scene: float
    kept: float
    whole: float


def shares(lab: suite.Laboratory, pictures: Tensor, trials: list[Trial]) -> Shares:
    """What the pictures of trials show."""
    reading = lab.reader.read(pictures)
    asked = torch.tensor([NAMES.index(trial.creature.scene) for trial in trials])
    return Shares(
        (nearest_scenes(pictures, NAMES) == asked).float().mean().item(),
        kept(reading, all_targets(trials)).mean().item(), is_whole(reading).float().mean().item(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lora", type=Path, default=None, help="an IP-LoRA file (default: the shipped one)")
    parser.add_argument("--count", type=int, default=128, help="pictures per number (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--picture", type=Path, help="show the same concepts in every scene in this file")
    options = parser.parse_args()
    chain = CreatureChain()
    lab, plain = suite.Laboratory(chain, load_reader(), options.seed), chain.renderer.unet
    taught = copy.deepcopy(plain)
    merge_lora(taught, read_lora(options.lora or weight_file(SCENES_LORA)), options.strength)
    unets = {"without": plain, "with": taught}
    print(f"{options.count} pictures for each number, adapter weight 1, two given parts of free mixtures")
    print(f"{'':<32}{'scene as asked':>16}{'parts kept':>12}{'whole':>8}")
    for group, scenes in GROUPS.items():
        trials = draw_trials(options.seed, options.count, 2, suite.FREE, scenes, purpose="lora")
        tokens = lab.sample(lab.conditions(trials), suite.RECOMMENDED)
        pictures = {"true pictures": as_pictures(true_pictures([trial.creature for trial in trials]))}
        for name, unet in unets.items():
            chain.renderer.unet = unet
            pictures[f"{name} IP-LoRA"] = chain.render(tokens, [trial.caption for trial in trials], lab.seed)
        for name, batch in pictures.items():
            found = shares(lab, batch, trials)
            print(f"{group + ', ' + name:<32}{found.scene:>16.1%}{found.kept:>12.1%}{found.whole:>8.1%}")
    if options.picture:
        examples(lab, unets, options.seed).save(options.picture)


def examples(lab: suite.Laboratory, unets: dict[str, torch.nn.Module], seed: int) -> Image.Image:
    """A few concepts in every scene, without the IP-LoRA and with it."""
    trials = draw_trials(seed, SHOWN, 2, suite.FREE, purpose="shown")
    tokens = lab.sample(lab.conditions(trials), suite.RECOMMENDED)
    scenes, rows = NAMES[1:], {}
    for number in range(SHOWN):
        for name, unet in unets.items():
            lab.chain.renderer.unet = unet
            same = tokens[number:number + 1].expand(len(scenes), -1, -1)
            rendered = lab.chain.render(same, [scene_caption(scene) for scene in scenes], lab.seed)
            # Spaces that nobody sees keep the labels, which are keys, apart.
            rows[f"{name} IP-LoRA{' ' * number}"] = to_pil(rendered.permute(0, 2, 3, 1))
    return sheet(rows, scenes)


if __name__ == "__main__":
    main()
