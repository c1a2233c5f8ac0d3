"""What the training commands share: flags for a run and a recipe, progress bar, Ctrl+C, exit code."""
from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from ..files.pictures import save_picture
from .chart import training_chart
from .extras import Extras
from .launch import leave
from .metrics import read_points
from .recipes import Recipe, RunSettings
from .trainer import Progress, Trainer, TrainingError

CHART, SAMPLES = "training.png", "samples"
Draw = Callable[[Trainer], Image.Image]
R = TypeVar("R", bound=Recipe)


def add_run_arguments(parser: argparse.ArgumentParser, save_every: int, validate_every: int) -> None:
    """Flags that say where the run is kept and how often it saves."""
    parser.add_argument("output", type=Path, help="folder of the run; resumed if it holds one")
    parser.add_argument("--save-every", type=int, default=save_every, metavar="STEPS")
    parser.add_argument("--validate-every", type=int, default=validate_every, metavar="STEPS")
    parser.add_argument("--keep", type=int, default=2, help="checkpoints to keep (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")


def add_recipe_arguments(
    parser: argparse.ArgumentParser, presets: Mapping[str, Recipe], choices: Mapping[str, tuple[str, ...]],
    advice: str = "",
) -> None:
    """Flags for a preset and for every setting of its recipe; the first preset is the default."""
    first = next(iter(presets))
    parser.add_argument("--preset", choices=list(presets), default=first, help=f"default: {first}{advice}")
    settings = parser.add_argument_group("settings of the preset to change")
    for field in fields(presets[first]):
        flag = "--" + field.name.replace("_", "-")
        # Derived from the fields, so that a new setting needs no flag of its own. No flag has a default:
        # what is not given comes from the preset.
        kind = type(getattr(presets[first], field.name))
        if kind is bool:
            settings.add_argument(flag, action=argparse.BooleanOptionalAction, default=None)
        else:
            settings.add_argument(flag, type=kind, choices=choices.get(field.name))


def recipe_of(args: argparse.Namespace, presets: Mapping[str, R]) -> R:
    """The preset, changed by the settings that were given."""
    preset = presets[args.preset]
    settings = {field.name: getattr(args, field.name) for field in fields(preset)}
    return replace(preset, **{name: value for name, value in settings.items() if value is not None})


def run_settings(args: argparse.Namespace) -> RunSettings:
    """The settings of the run that the flags of `add_run_arguments` give."""
    return RunSettings(args.output, args.seed, args.save_every, args.validate_every, args.keep)


def run_training(
    args: argparse.Namespace, begin: Callable[[argparse.Namespace], Trainer], name: str,
    draw: Draw | None = None,
) -> int:
    """Train and return the exit code. Ctrl+C stops after the current step with a checkpoint.

    Args:
        begin: makes the trainer, or raises if something cannot be used.
        name: of the command.
        draw: makes a picture with each validation, which is kept in the folder of the run.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        path = train(begin(args), name, draw)
    except (TrainingError, ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes from {args.output}", file=sys.stderr)
        return 130
    finally:
        leave()
        signal.signal(signal.SIGINT, interrupt)  # the listener took it
    if path is not None:
        print(f"written: {path}")
    return 0


def train(trainer: Trainer, name: str, draw: Draw | None = None) -> Path | None:
    """Run a trainer to its end; return the path of the result on the main process, else None."""
    main = trainer.accelerator.is_main_process
    if main:
        tell(trainer)
    with tqdm(total=trainer.recipe.steps, initial=trainer.state.step, desc=name, mininterval=1,
              disable=not main) as bar:
        path = trainer.run(listener(bar, drawing(trainer, draw) if main and draw is not None else None))
    if path is not None:
        save_chart(trainer.settings.folder)
    return path


def save_chart(folder: Path) -> None:
    """Draw the chart of the run in a folder, or say why there is none: the result is there all the same."""
    try:
        save_picture(folder / CHART, training_chart(read_points(folder)))
    except (ModuleNotFoundError, ValueError, OSError) as error:
        print(f"not drawn: {CHART}. {error}", file=sys.stderr)


def tell(trainer: Trainer) -> None:
    """Print what is trained on, and from which step."""
    for reason in trainer.passed_over:
        print(f"skipped an incomplete checkpoint: {reason}", file=sys.stderr)
    print(f"{trainer.task.about()}; from step {trainer.state.step}, peak learning rate "
          f"{trainer.state.rate:g}, on {trainer.device}")


def drawing(trainer: Trainer, draw: Draw) -> Callable[[Progress], None]:
    """A listener that saves a picture with each validation; what fails is told and ends no training."""
    extras = Extras()

    def on_step(progress: Progress) -> None:
        if progress.validation is not None:
            path = trainer.settings.folder / SAMPLES / f"step_{progress.step:08}.png"
            extras.attempt("samples", lambda: draw_to(path))

    def draw_to(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_picture(path, draw(trainer))

    return on_step


def listener(
    bar: tqdm, on_validation: Callable[[Progress], None] | None = None
) -> Callable[[Progress], None]:
    """A listener that moves the bar and turns Ctrl+C into a stop between two steps."""
    # A KeyboardInterrupt in the middle of a step could leave half of the weights updated, or one process
    # without the others. The handler only takes a note, and the exception is raised where the trainer can
    # save.
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
        if on_validation is not None:
            on_validation(progress)
        if stop:
            raise KeyboardInterrupt

    return on_step
