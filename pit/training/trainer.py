"""The trainer: one loop for everything that is trained, for nodes and commands, in one process or many.

Hugging Face accelerate finds the device and connects the processes. A run is kept in a folder: `run.json`,
`metrics.csv`, `checkpoints/`, and at its end the file that its task writes.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, autocast, nn

from ..files.lock import FolderLock, InUseError
from .attention_kernel import plain_attention
from .checkpoint import checkpoint_folders, newest_checkpoint, write_checkpoint
from .interrupt import interrupting
from .memory import is_short_of_memory, ways_to_save_memory
from .metrics import Metrics, readable
from .order import Batch, read_ahead
from .recipes import Recipe, RunSettings
from .run_folder import check_run, taken
from .state import TrainingState
from .validation import Validation

LOG_EVERY = 20  # steps: logging waits for the GPU, and it is when a loss that is not finite is noticed


class TrainingError(RuntimeError):
    """Training cannot continue: tells the step, the reason, the last good checkpoint, and what to do."""


@dataclass(frozen=True)
class Progress:
    """What a listener hears after every step.

    Attributes:
        step, steps: done, and in total.
        loss: mean since it was last told, every 20 steps; else None.
        validation: every `validate_every` steps; else None.
        rate: the learning rate of the step.
    """

    step: int
    steps: int
    loss: float | None
    validation: Validation | None
    rate: float


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
        TrainingError: too little memory.
    """

    def __init__(self, task: Task, recipe: Recipe, settings: RunSettings, accelerator: Accelerator):
        recipe.check()
        self.task, self.recipe, self.settings = task, recipe, settings
        self.accelerator, self.device = accelerator, accelerator.device
        check_run(settings.folder, self.identity(), (task.result, *task.others))
        self.saved_step = -1
        with self.advising("at the start"):
            model = task.model.to(self.device).train()
            # State and optimizer use the bare model, steps its wrapper for several processes. They share
            # their parameters, and the names in a checkpoint do not depend on how many processes wrote it.
            self.state = TrainingState(model, recipe, task.rate)
            self.parallel = accelerator.prepare(model)
            # The first step whose loss or gradient was not finite, or -1; on the device, like the losses.
            self.bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)
            self.passed_over = self.resume()
        self.metrics = Metrics(settings.folder, self.state.step, accelerator.is_main_process)

    def run(
        self, on_step: Callable[[Progress], None], interrupt: Callable[[], None] | None = None
    ) -> Path | None:
        """Train to the end and write the result; `on_step` may raise to cancel, which saves first.

        Args:
            interrupt: asked many times within a step and within a validation; may raise to cancel as well,
                which leaves the step undone. In vain for one of several processes, which all stop together.

        Returns the path of the result, on the main process.

        Raises:
            TrainingError: a loss that is not finite, or too little memory.
            WeightFileError: a checkpoint could not be written.
            InUseError: another process trains in the folder.
        """
        with self.claimed():
            # A resumed run drops the lines after its checkpoint at once; a new one leaves nothing on disk
            # before it has something to write.
            if self.state.step:
                self.metrics.open()
            alone = self.accelerator.num_processes == 1
            with self.batches() as batches, interrupting(self.state.model, interrupt if alone else None):
                while self.state.step < self.recipe.steps:
                    stop = self.advance(batches, on_step)
                    if self.any_stops(stop):
                        self.save()
                        raise stop or KeyboardInterrupt("Another process of this training was stopped.")
            self.save()
            return self.write_result()

    def advance(
        self, batches: Iterator[Batch], on_step: Callable[[Progress], None]
    ) -> BaseException | None:
        """Take a step and all that is due after it; returns what cancels the training.

        Raises TrainingError or WeightFileError for what leaves nothing to save.
        """
        # A cancellation is an exception as well (ComfyUI's own is a BaseException). It is held back until all
        # processes know of it and the last complete step is saved, then raised again.
        try:
            mean = self.gradients(batches)
        except Exception:
            raise  # an error, not a cancellation
        except BaseException as stop:
            # Nothing was changed yet but the gradients, which are computed again when the run is resumed.
            self.state.optimizer.zero_grad()
            return stop
        self.update(mean)
        try:
            validation, stop = self.validate(), None
        except BaseException as error:
            validation, stop = None, error
        progress = self.watch(validation)
        if stop is None:
            try:
                on_step(progress)
            except BaseException as error:
                stop = error
        return stop

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other trainings out of the folder. Raises InUseError, in all processes, if one is there."""
        lock = refused = None
        if self.accelerator.is_main_process:
            try:
                lock = FolderLock(self.settings.folder)
            except InUseError as error:
                refused = error
        # One that failed alone would leave the others waiting for its gradients forever.
        flags = self.accelerator.gather(torch.tensor([int(refused is not None)], device=self.device))
        if flags.any():
            raise refused or InUseError(f"Another training is at work in {self.settings.folder}.")
        try:
            self.catch_up()
            yield
        finally:
            self.metrics.close()
            if lock is not None:
                lock.release()

    def catch_up(self) -> None:
        """Take up what another process has saved since this one was made, before its lock was taken."""
        if self.checkpoints() != self.seen:
            check_run(self.settings.folder, self.identity(), (self.task.result, *self.task.others))
            self.passed_over = self.resume()
            self.metrics.step = self.state.step

    def checkpoints(self) -> list[Path]:
        """The complete checkpoints of the run."""
        return checkpoint_folders(self.settings.folder / "checkpoints")

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

    def gradients(self, batches: Iterator[Batch]) -> Tensor:
        """Compute the gradients of one step; returns its loss. Raises TrainingError if memory runs out."""
        with self.advising(f"at step {self.state.step}"):
            mean = torch.zeros((), device=self.device)
            for micro in range(self.recipe.accumulation):
                mean += self.accumulate(next(batches).to(self.device), micro + 1 == self.recipe.accumulation)
        return mean

    def update(self, mean: Tensor) -> None:
        """Take one optimizer step. Raises TrainingError if memory runs out."""
        with self.advising(f"at step {self.state.step}"):
            # Without a limit (0) the gradient stays as it is; its norm is still needed for the check below.
            norm = self.accelerator.clip_grad_norm_(
                self.state.model.parameters(), self.recipe.clip_norm or math.inf
            )
            self.state.set_rate()
            self.state.optimizer.step()
            self.state.optimizer.zero_grad()
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
        return autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16")

    def any_stops(self, error: BaseException | None) -> bool:
        """Whether this process or another one is to stop."""
        # All stop after the same step: if one left alone, the others would wait forever for its gradients.
        if self.accelerator.num_processes == 1:
            return error is not None
        if error is not None:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def validate(self) -> Validation | None:
        """Validate when it is time to. Raises TrainingError if memory runs out."""
        step = self.state.step
        if step % self.settings.validate_every and step != self.recipe.steps:
            return None
        with self.advising(f"in the validation at step {step}"), self.state.weights_to_use() as model:
            with self.autocast():
                return self.task.validate(model, self.device)

    def watch(self, validation: Validation | None) -> Progress:
        """Log the figures, and save when it is time to."""
        step, steps, loss = self.state.step, self.recipe.steps, None
        if step % LOG_EVERY == 0 or step == steps:
            loss = self.accelerator.reduce(self.state.take_mean_loss(), "mean").item()
            self.check_finite()
        rate = readable(self.state.rate * self.recipe.rate_factor(step - 1))
        # Before the checkpoint of the same step: after a kill between the two, the line lies beyond the
        # newest checkpoint and is dropped on resuming. The other way around it would be lost.
        if loss is not None or validation is not None:
            self.metrics.write(step, loss, validation, rate)
        if step % self.settings.save_every == 0 and step < steps:
            self.save()
        return Progress(step, steps, loss, validation, rate)

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
        """Write a checkpoint of this step, unless there is one already or nothing was trained yet.

        Raises:
            TrainingError: the loss is not finite, or memory runs out; nothing is written.
            WeightFileError: the checkpoint cannot be written.
        """
        # First, because a run would resume from broken weights forever.
        self.check_finite()
        folder, state = self.settings.folder / "checkpoints", self.state
        if state.step in (0, self.saved_step):
            return
        # An exchange between all processes, so all of them take part, though only the main one writes.
        state.loss_sum = self.accelerator.reduce(state.loss_sum, "mean")
        if self.accelerator.is_main_process:
            with self.advising(f"in saving step {state.step}"), taken(self.settings.folder, self.identity()):
                write_checkpoint(folder, state.step, state.tensors(), state.notes(), self.settings.keep)
        self.saved_step = state.step

    def resume(self) -> list[str]:
        """Resume from the newest valid checkpoint; return why newer ones were skipped.

        Raises ValueError if the processes do not all see the same one.
        """
        self.seen = self.checkpoints()
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
        with self.advising(f"in writing {path.name}"), self.state.weights_to_use() as model:
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

    @contextmanager
    def advising(self, when: str) -> Iterator[None]:
        """Turn an error for lack of memory into a TrainingError that says what to do."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_short_of_memory(error):
                raise
            ways = ways_to_save_memory(self.recipe, self.task.thrifty_preset)
            raise TrainingError(f"Out of memory {when}. {ways} {self.last_good()}") from error
