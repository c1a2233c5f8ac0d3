"""`python -m pit train-prior`, alone or under `accelerate launch -m`."""
from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path

from tqdm import tqdm

from .chart import training_chart
from .metrics import read_points
from .recipes import CHOICES, PRESETS, PUBLISHED, Recipe, RunSettings, Sizes, Trained
from .start import begin, leave
from .trainer import PriorTrainer, Progress, TrainingError

CHART = "training.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags: where, from what, how often to save, a preset, and every setting of a recipe."""
    parser.add_argument("cache", type=Path, help="token cache, made by encode-dataset")
    parser.add_argument("output", type=Path, help="folder of the run; goes on if it holds one")
    parser.add_argument("--preset", choices=list(PRESETS), default="published",
                        help="default: %(default)s; recommended learns far faster")
    parser.add_argument("--start-from", type=Path, help="IP-Prior file to fine-tune (default: nothing)")
    parser.add_argument("--hidden-dim", type=int, default=2048, help="of a new prior (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=4, help="of a new prior (default: %(default)s)")
    parser.add_argument("--heads", type=int, help="attention heads (default: 32, or as the file says)")
    parser.add_argument("--save-every", type=int, default=500, metavar="STEPS")
    parser.add_argument("--validate-every", type=int, default=250, metavar="STEPS")
    parser.add_argument("--keep", type=int, default=2, help="checkpoints that stay (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--verify", action="store_true", help="check every file of the cache first")
    settings = parser.add_argument_group("settings of the preset to change")
    for field in fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        kind = type(getattr(PUBLISHED, field.name))
        if kind is bool:
            settings.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            settings.add_argument(flag, type=kind, choices=CHOICES.get(field.name))


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit code. Ctrl+C stops after the step with a checkpoint."""
    try:
        path = train(args)
    except (TrainingError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {args.output}", file=sys.stderr)
        return 130
    finally:
        leave()
    if path is not None:
        print(f"written: {path}")
    return 0


def train(args: argparse.Namespace) -> Path | None:
    """Begin or go on, and run the trainer to its end; the path of the prior, on the main process."""
    start = Sizes(args.hidden_dim, args.layers, args.heads or Sizes.num_heads)
    if args.start_from:
        start = Trained(args.start_from, args.heads)
    settings = RunSettings(args.output, args.seed, args.save_every, args.validate_every, args.keep)
    trainer = begin(args.cache, start, recipe_of(args), settings, cpu=args.cpu, verify=args.verify)
    if trainer.accelerator.is_main_process:
        tell(trainer)
    with progress_bar(trainer) as bar:
        path = trainer.run(listener(bar))
    if path is not None:
        training_chart(read_points(args.output)).save(args.output / CHART)
    return path


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The preset with the settings that were given."""
    settings = {field.name: getattr(args, field.name) for field in fields(Recipe)}
    given = {name: value for name, value in settings.items() if value is not None}
    return replace(PRESETS[args.preset], **given)


def tell(trainer: PriorTrainer) -> None:
    """Say what is trained on, and where it goes on."""
    for reason in trainer.passed_over:
        print(f"passed over a checkpoint that is not whole: {reason}", file=sys.stderr)
    held_out = len(trainer.split.held_out)
    against = f"{held_out} held out" if held_out else "too few to hold any out, validated on themselves"
    print(f"{len(trainer.split.training)} concepts to train on, {against}; from step {trainer.state.step}, "
          f"peak learning rate {trainer.state.rate:g}, on {trainer.device}")


def progress_bar(trainer: PriorTrainer) -> tqdm:
    """A bar that stands where the run goes on; on the main process alone."""
    return tqdm(total=trainer.recipe.steps, initial=trainer.state.step, desc="train-prior", mininterval=1,
                disable=not trainer.accelerator.is_main_process)


def listener(bar: tqdm):
    """Moves the bar, and turns Ctrl+C into a stop between two steps."""
    stop = []
    signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    figures: dict[str, str] = {}

    def on_step(progress: Progress) -> None:
        if progress.loss is not None:
            figures["loss"] = f"{progress.loss:.4f}"
        if progress.validation is not None:
            figures["validation"] = f"{progress.validation.loss:.4f}"
        bar.set_postfix(figures, refresh=False)
        bar.update(progress.step - bar.n)
        if stop:
            raise KeyboardInterrupt

    return on_step
