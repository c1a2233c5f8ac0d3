"""A training inside ComfyUI: its charts, samples and text in the node, and what is said if it ends early."""
from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import torch
from comfy_api.latest import io
from PIL import Image
from torch import nn

from ...pit.training.chart import no_chart, training_chart
from ...pit.training.extras import Extras
from ...pit.training.metrics import read_points
from ...pit.training.pace import Pace, duration
from .feedback import LastPicture, progress_bar, say, say_and_log

if TYPE_CHECKING:
    from ...pit.training.trainer import Progress, Trainer

Draw = Callable[[nn.Module, torch.device], Image.Image]
# A chart is drawn anew from all measurements of the run, for which the training waits a tenth of a second.
SECONDS_BETWEEN_CHARTS = 5.0
SECONDS_BETWEEN_TEXTS = 1.0


def steps_input(default: int = 2000) -> io.Input:
    """How long to train."""
    return io.Int.Input(
        "steps", default=default, min=1, max=10_000_000, tooltip="Total number of steps.",
    )


def save_every_input(with_what: str, default: int = 250) -> io.Input:
    """How often to write a checkpoint, `with_what` each time."""
    return io.Int.Input(
        "save_every", default=default, min=1, max=1_000_000,
        tooltip=f"Steps between checkpoints, each with {with_what}.",
    )


def seed_input(determines: str) -> io.Input:
    """The seed of a run, and what it `determines`."""
    # Without a control that changes it after each run: a run only resumes with its own seed.
    return io.Int.Input(
        "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=False,
        tooltip=f"Determines {determines}.",
    )


def batch_inputs() -> list[io.Input]:
    """How many samples make a batch, and how many batches a step, for the few who need to set them."""
    return [
        io.Int.Input(
            "batch", default=0, min=0, max=4096, optional=True, advanced=True,
            tooltip="Samples per batch; 0 uses the preset.",
        ),
        io.Int.Input(
            "accumulation", default=0, min=0, max=4096, optional=True, advanced=True,
            tooltip="Number of batches per step; 0 uses the preset.",
        ),
    ]


def run(node: type[io.ComfyNode], trainer: Trainer, draw: Draw | None) -> Path:
    """Run a trainer with charts, samples and text in its node; if it ends early, say there what is kept."""
    if trainer.state.step:
        say_and_log(node, f"Resumed from the checkpoint of step {trainer.state.step:,}.")
    try:
        return trainer.run(
            Listener(node, trainer, draw), comfy.model_management.throw_exception_if_processing_interrupted
        )
    except comfy.model_management.InterruptProcessingException:
        # ComfyUI's page shows errors alone: without this, nothing would tell that the work is not lost.
        say_and_log(node, what_is_kept(trainer, "Canceled"))
        raise
    except Exception:
        # Whatever went wrong, also beside the training, such as in a preview that was on its way.
        say_and_log(node, what_is_kept(trainer, "Stopped by an error"))
        raise


def what_is_kept(trainer: Trainer, what: str) -> str:
    """What a training that ended early leaves, and how to go on, in words that begin with what ended it."""
    step, steps = trainer.saved_step, trainer.recipe.steps
    if step < 0:
        return f"{what} before there was a checkpoint. Queue the graph again to start anew."
    return (
        f"{what} after step {step:,} of {steps:,}. The checkpoint of step {step:,} is kept in "
        f"{trainer.settings.folder}: queue the same graph again to resume from it."
    )


class Listener:
    """Moves the progress bar and shows in the node how the training is going, with samples if drawn."""

    def __init__(self, node: type[io.ComfyNode], trainer: Trainer, draw: Draw | None):
        self.node, self.trainer, self.draw = node, trainer, draw
        self.done, self.pace, self.extras = progress_bar(), Pace(), Extras()
        self.last = LastPicture()
        self.samples: Image.Image | None = None
        self.loss, self.validation = "", ""
        self.drawn = self.told = 0.0

    def __call__(self, progress: Progress) -> None:
        seconds_left = self.pace.seconds_left(progress.step, progress.steps)
        self.tell(progress, seconds_left)
        picture = self.picture(progress, seconds_left)
        self.done(progress.step, progress.steps, picture)
        if picture is not None:
            self.extras.attempt("a chart that lasts in the page", lambda: self.last.show(picture))

    def tell(self, progress: Progress, seconds_left: float | None) -> None:
        """Show the figures and the time left as text."""
        if progress.loss is not None:
            self.loss = f"loss {progress.loss:.4g}"
        if progress.validation is not None:
            self.validation = f"validation {progress.validation.loss:.4g}"
        now = time.monotonic()
        if now - self.told < SECONDS_BETWEEN_TEXTS and progress.step < progress.steps:
            return
        self.told = now
        step = f"step {progress.step:,} of {progress.steps:,}"
        left = f"about {duration(seconds_left)} left" if seconds_left else ""
        parts = (step, self.loss, self.validation, f"learning rate {progress.rate:.3g}", left)
        say(self.node, ", ".join(part for part in parts if part))

    def picture(self, progress: Progress, seconds_left: float | None) -> Image.Image | None:
        """The chart, if it is time for one, with the newest samples below."""
        # Not after the last step: the node then draws samples from the finished weights itself.
        due = progress.validation is not None and self.draw is not None and progress.step < progress.steps
        if due:
            self.samples = self.extras.attempt("samples", self.draw_samples) or self.samples
        now = time.monotonic()
        if not due and (progress.loss is None or now - self.drawn <= SECONDS_BETWEEN_CHARTS):
            return None
        self.drawn = now
        folder = self.trainer.settings.folder
        return self.extras.attempt("charts", lambda: chart_of(folder, self.samples, seconds_left))

    def draw_samples(self) -> Image.Image:
        # The averaged weights, if the recipe averages, since these are what will be written.
        with self.trainer.state.weights_to_use() as model:
            return self.draw(model, self.trainer.device)


def chart_of(
    folder: Path, samples: Image.Image | None = None, seconds_left: float | None = None
) -> Image.Image:
    """The loss curve of the run in a folder, with samples below it and the time left above."""
    return training_chart(read_points(folder), samples, seconds_left)


def last_chart(folder: Path, samples: Image.Image | None = None) -> Image.Image:
    """The chart of a finished run; a white picture that says so if it cannot be drawn."""
    return Extras().attempt("its chart", lambda: chart_of(folder, samples)) or no_chart()
