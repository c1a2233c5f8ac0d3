"""The trainer: one loop for everything that is trained, for nodes and commands, in one process or many.

Hugging Face accelerate finds the device and connects the processes. A run is kept in a folder: `run.json`,
`metrics.csv`, `checkpoints/`, and at its end the file that its task writes.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from ..files.plain_json import read_json
from ..files.records import differing_models, models_from_json
from ..files.weights import WeightFileError
from ..files.whole import write_whole
from ..messages import ShortError, quoted
from .attention_kernel import plain_attention
from .checkpoint import newest_checkpoint, write_checkpoint
from .metrics import Metrics
from .order import Batch, read_ahead
from .recipes import Recipe, RunSettings
from .state import TrainingState
from .validation import Validation

LOG_EVERY = 20  # steps: logging waits for the GPU, and it is when a loss that is not finite is noticed
RUN = "run.json"


class TrainingError(RuntimeError):
    """Training cannot continue: tells the step, the reason, the last good checkpoint, and what to do."""


@dataclass(frozen=True)
class Progress:
    """What a listener hears after every step.

    Attributes:
        step, steps: done, and in total.
        loss: mean since it was last told, every 20 steps; else None.
        validation: every `validate_every` steps; else None.
    """

    step: int
    steps: int
    loss: float | None
    validation: Validation | None


class Task(Protocol):
    """What is trained, on what, and what the result is.

    Attributes:
        result: name of the file that it writes.
        others: names of files of other origin that must not be in the folder of a new run.
        thrifty_preset: name of the preset that takes the least memory.
        model: the model, of which those parameters are trained that require gradients; these are fp32.
        rate: the peak learning rate.
    """

    result: str
    others: tuple[str, ...]
    thrifty_preset: str
    model: nn.Module
    rate: float

    def draw(self, step: int, rows: range, total: int) -> Batch:
        """The samples `rows` of the `total` that a step sees, over all its processes and batches."""

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of each sample, `[B]`."""

    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """The loss on samples that are held out; always the same numbers for the same weights."""

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed, as JSON values.

        `model` holds the sizes of the model, `models` the models that made what it is trained on, as given by
        `pit.files.records.models_to_json`.
        """

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the result. Raises WeightFileError if the file cannot be written."""

    def about(self) -> str:
        """What it is trained on, in words for the user."""


class Trainer:
    """One run. It claims its folder with its first checkpoint, so that a failed start leaves nothing there.

    Args:
        task: what is trained.
        accelerator: of accelerate, with its default precision; the recipe's is applied here.
    Raises:
        ValueError: a setting is out of range, or the folder holds a run with other settings.
        WeightFileError: the newest checkpoint belongs to a model of other sizes.
    """

    def __init__(self, task: Task, recipe: Recipe, settings: RunSettings, accelerator: Accelerator):
        recipe.check()
        self.task, self.recipe, self.settings = task, recipe, settings
        self.accelerator, self.device = accelerator, accelerator.device
        check_run(settings.folder, self.identity(), (task.result, *task.others))
        model = task.model.to(self.device).train()
        # State and optimizer use the bare model, steps its wrapper for several processes. They share their
        # parameters, and the names in a checkpoint do not depend on how many processes wrote it.
        self.state = TrainingState(model, recipe, task.rate)
        self.parallel = accelerator.prepare(model)
        # The first step whose loss or gradient was not finite, or -1; on the device, like the sum of losses.
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)
        self.saved_step = -1
        self.passed_over = self.resume()
        self.metrics = Metrics(settings.folder, self.state.step, accelerator.is_main_process)

    def run(self, on_step: Callable[[Progress], None]) -> Path | None:
        """Train to the end and write the result; `on_step` may raise to cancel, which saves first.

        Returns the path of the result, on the main process.

        Raises:
            TrainingError: a loss that is not finite, or too little memory.
            WeightFileError: a checkpoint could not be written.
        """
        # A resumed run drops the lines after its checkpoint at once; a new one leaves nothing on disk before
        # it has something to write.
        if self.state.step:
            self.metrics.open()
        with self.batches() as batches:
            while self.state.step < self.recipe.steps:
                self.train_step(batches)
                progress, stop = self.watch(), None
                # A cancellation is an exception as well (ComfyUI's own is a BaseException). It is held back
                # until all processes know of it and the step is saved, then raised again.
                try:
                    on_step(progress)
                except BaseException as error:
                    stop = error
                if self.any_stops(stop):
                    self.save()
                    raise stop or KeyboardInterrupt("Another process of this training was stopped.")
        self.save()
        return self.write_result()

    def batches(self) -> AbstractContextManager[Iterator[Batch]]:
        """All batches from the current step on, drawn ahead of their use."""
        return read_ahead(self.draw, self.state.step, self.recipe.accumulation, self.device)

    def draw(self, step: int, micro: int) -> Batch:
        """This process's share of batch number `micro` of a step."""
        batch, world = self.recipe.batch, self.accelerator.num_processes
        # Each row belongs to exactly one process and batch, and no row depends on how they are divided: two
        # processes see what one sees with twice the batch.
        first = (micro * world + self.accelerator.process_index) * batch
        total = batch * world * self.recipe.accumulation
        return self.task.draw(step, range(first, first + batch), total)

    def train_step(self, batches: Iterator[Batch]) -> None:
        """Take one optimizer step. Raises TrainingError if memory runs out."""
        try:
            mean = torch.zeros((), device=self.device)
            for micro in range(self.recipe.accumulation):
                mean += self.accumulate(next(batches).to(self.device), micro + 1 == self.recipe.accumulation)
            # Without a limit (0) the gradient stays as it is; its norm is still needed for the check below.
            norm = self.accelerator.clip_grad_norm_(
                self.state.model.parameters(), self.recipe.clip_norm or math.inf
            )
            self.state.set_rate()
            self.state.optimizer.step()
            self.state.optimizer.zero_grad()
        except RuntimeError as error:
            if should_reduce_batch_size(error):  # accelerate's test for being out of memory, on any device
                raise TrainingError(self.advice_on_memory()) from error
            raise
        step = torch.full_like(self.bad_step, self.state.step)
        # The norm is that of the averaged gradient, so that all processes notice and stop together. It is
        # compared on the device: `if norm.isfinite()` would wait for the GPU in every step.
        bad = ~(mean.isfinite() & norm.isfinite())
        self.bad_step = torch.where((self.bad_step < 0) & bad, step, self.bad_step)
        self.state.finish_step(mean)

    def accumulate(self, batch: Batch, last: bool) -> Tensor:
        """Add the gradients of one batch; return its share of the step's loss."""
        # Several processes exchange their gradients in each backward(); only the last one of a step needs it.
        quiet = self.accelerator.no_sync(self.parallel) if not last else nullcontext()
        with quiet, plain_attention(self.device):
            with self.autocast():
                losses = self.task.losses(self.parallel, batch)
            # All batches have the same size, so the mean of their means is the mean over the step; the
            # average over the processes is taken by the exchange.
            loss = losses.mean() / self.recipe.accumulation
            self.accelerator.backward(loss)
        return loss.detach()

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the recipe."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def any_stops(self, error: BaseException | None) -> bool:
        """Whether this process or another one is to stop."""
        # All stop after the same step: if one left alone, the others would wait forever for its gradients.
        if self.accelerator.num_processes == 1:
            return error is not None
        if error is not None:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def watch(self) -> Progress:
        """Log the loss, validate and save when it is time to."""
        step, steps = self.state.step, self.recipe.steps
        loss = validation = None
        if step % LOG_EVERY == 0 or step == steps:
            loss = self.accelerator.reduce(self.state.take_mean_loss(), "mean").item()
            self.check_finite()
        if step % self.settings.validate_every == 0 or step == steps:
            with self.state.weights_to_use() as model, self.autocast():
                validation = self.task.validate(model, self.device)
        # Before the checkpoint of the same step: after a kill between the two, the line lies beyond the
        # newest checkpoint and is dropped on resuming. The other way around it would be lost.
        if loss is not None or validation is not None:
            self.metrics.write(step, loss, validation, self.state.rate * self.recipe.rate_factor(step - 1))
        if step % self.settings.save_every == 0 and step < steps:
            self.save()
        return Progress(step, steps, loss, validation)

    def check_finite(self) -> None:
        """Raise TrainingError if a loss was not finite."""
        bad = int(self.bad_step)
        if bad >= 0:
            raise TrainingError(
                f"The loss or its gradient is not finite at step {bad}. {self.last_good()} Lower the "
                f"learning rate (now {self.state.rate:g}) or set precision to fp32, and start again from "
                "there."
            )

    def save(self) -> None:
        """Write a checkpoint of this step, unless there is one already.

        Raises:
            TrainingError: the loss is not finite; nothing is written.
            WeightFileError: the checkpoint cannot be written.
        """
        # First, because a run would resume from broken weights forever.
        self.check_finite()
        folder, state = self.settings.folder / "checkpoints", self.state
        if self.saved_step == state.step:
            return
        # An exchange between all processes, so all of them take part, though only the main one writes.
        state.loss_sum = self.accelerator.reduce(state.loss_sum, "mean")
        if self.accelerator.is_main_process:
            with taken(self.settings.folder, self.identity()):
                write_checkpoint(folder, state.step, state.tensors(), state.notes(), self.settings.keep)
        self.saved_step = state.step

    def resume(self) -> list[str]:
        """Resume from the newest valid checkpoint; return why newer ones were skipped.

        Raises ValueError if the processes do not all see the same one.
        """
        checkpoint, passed_over = newest_checkpoint(self.settings.folder / "checkpoints")
        found = -1 if checkpoint is None else checkpoint.step
        # Each process reads the folder itself. If one saw another step, their gradients would be averaged
        # over different weights, without any error.
        steps = self.accelerator.gather(torch.tensor([found], device=self.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"Expected all processes to see the same checkpoint in {self.settings.folder}, got different "
                f"checkpoints, of the steps {steps} (-1: none). Put the run in a folder that all machines "
                "share, or copy its checkpoints to each of them."
            )
        if checkpoint is not None:
            self.state.load(checkpoint)
            self.saved_step = checkpoint.step
        return passed_over

    def write_result(self) -> Path | None:
        """Write what was trained, with its settings in the metadata."""
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return None
        path = self.settings.folder / self.task.result
        training = json.dumps(self.identity() | {"steps": self.recipe.steps})
        with self.state.weights_to_use() as model:
            self.task.write(path, model, dict(self.settings.notes) | {"training": training})
        return path

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed: everything but the number of steps."""
        recipe = {key: value for key, value in asdict(self.recipe).items() if key != "steps"}
        return self.task.identity() | {
            "recipe": recipe, "seed": self.settings.seed, "started_from": self.settings.started_from,
            "processes": self.accelerator.num_processes,
        }

    def last_good(self) -> str:
        """A sentence about the newest checkpoint."""
        if self.saved_step < 0:
            return "No checkpoint was written yet."
        return f"The last good checkpoint is that of step {self.saved_step} in {self.settings.folder}."

    def advice_on_memory(self) -> str:
        """What to do when memory is short."""
        recipe = self.recipe
        ways = [f"batch (now {recipe.batch}) and raise accumulation (now {recipe.accumulation}) to match"]
        if not recipe.gradient_checkpointing:
            ways.append("or turn gradient_checkpointing on")
        return (
            f"Out of memory at step {self.state.step}. Lower {' '.join(ways)}; the preset "
            f'"{self.task.thrifty_preset}" does both. {self.last_good()}'
        )


def check_run(folder: Path, identity: dict[str, Any], results: Iterable[str]) -> None:
    """Compare a run with the one in a folder, if there is one; nothing is written.

    Raises:
        ValueError: they differ, or one of the `results` is there although no run made it.
    """
    path = folder / RUN
    if path.is_file():
        try:
            different = differences(read_json(path), identity)
        except (ArithmeticError, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ShortError(
                f"{path}: expected the settings of a run, got damaged ones ({error!r}). Give this run "
                "another name, or remove the folder."
            ) from error
        if different:
            raise ShortError(
                f"{folder}: expected a run with the same settings, got another one: {', '.join(different)}. "
                "Give this run another name, or use the settings of the one in the folder."
            )
        return
    # A result without its run came from elsewhere, and would be overwritten when this run ends.
    for name in results:
        if (folder / name).exists():
            raise ValueError(
                f"{folder}: expected no {name} without its run, got one. Give this run another name."
            )


@contextmanager
def taken(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Write `run.json` before the checkpoint that is written inside; a first one is removed if that fails.

    Raises:
        WeightFileError: the folder cannot be written.
    """
    # Before the checkpoint, since a checkpoint without `run.json` could be resumed with any settings.
    path = folder / RUN
    first = not path.is_file()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(identity, indent=1).encode())
    except OSError as error:
        raise WeightFileError(f"{path} could not be written: {error}") from error
    try:
        yield
    except BaseException:
        if first:
            path.unlink(missing_ok=True)
        raise


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The settings in which an earlier run differs from the wanted one, in words."""
    # The earlier run went through JSON, which turns tuples into lists: compare like with like.
    wanted = json.loads(json.dumps(wanted))
    models = wanted.pop("models", {})
    earlier = found.pop("models", None)
    if models and earlier is None:
        # Up to 0.5.0, the hash of the dataset depended on digits that change with the number of threads.
        found, wanted = ({**run, "dataset": None} for run in (found, wanted))
    changed = differing_models(models_from_json(earlier), models_from_json(models)) if earlier else []
    before, now = ({**run, **run["recipe"], **run["model"]} for run in (found, wanted))
    keys = [key for key in now if key not in ("recipe", "model") and before.get(key) != now[key]]
    # Models are compared by their fingerprints, not listed: their numbers tell a user nothing.
    settings = [f"{key} was {quoted(before.get(key))} and is now {quoted(now[key])}" for key in keys]
    return settings + [f"the {part} was another one" for part in changed]
