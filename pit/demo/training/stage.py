"""The training loop of the stages: it can be resumed, and gives the same result for the same seed."""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, autocast, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ...files.weights import load_states, save_states
from ...training.attention_kernel import plain_attention
from ...training.trainer import Progress, Trainer
from .muon import Muon, split_parameters

SAVE_SECONDS = 60
MUON_RATE = 4.0  # times the rate of AdamW


@dataclass(frozen=True)
class Stage:
    """How long and at which rate a stage trains.

    Attributes:
        learning_rate: of AdamW, which trains vectors and tables; Muon trains matrices, four times as fast.
        decay: share of the steps, the last ones, over which the learning rate falls to zero.
    """

    name: str
    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    ema_decay: float = 0.998
    weight_decay: float = 0.01
    decay: float = 1.0


@dataclass(frozen=True)
class Run:
    """Where, on what device and in which precision a training runs."""

    folder: Path
    device: torch.device
    precision: torch.dtype
    seed: int
    compiled: bool = False  # UNets by torch.compile: faster, once its minutes of compilation are paid for

    def autocast(self) -> torch.autocast:
        """The context in which models run."""
        enabled = self.precision != torch.float32
        dtype = self.precision if enabled else torch.bfloat16
        return autocast(self.device.type, dtype, enabled=enabled)

    @property
    def recipe_precision(self) -> str:
        """The precision as recipes of `pit.training` call it."""
        return "fp32" if self.precision == torch.float32 else "bf16"


def train_stage(
    run: Run, stage: Stage, model: nn.Module, loss_at: Callable[[int, torch.Generator], Tensor]
) -> nn.Module:
    """Train `model` and return its exponential moving average.

    `loss_at(step, generator)` draws everything random from the generator, which depends only on the seed and
    the step: a run that was stopped and resumed draws the same as one that was not.
    """
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(stage.ema_decay), use_buffers=True)
    optimizers = make_optimizers(model, stage)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(each, lambda step: learning_rate_factor(step, stage))
        for each in optimizers
    ]
    state = {"model": model, "averaged": averaged} | numbered("optimizer", optimizers) | numbered(
        "schedule", schedules
    )
    path = checkpoint_path(run, stage.name)
    start = resume(path, state, run.device)
    saved = time.monotonic()
    with tqdm(total=stage.steps, initial=start, desc=stage.name, mininterval=5) as bar:
        for step in range(start, stage.steps):
            # The factor exceeds any number of steps, so no two pairs of seed and step share a generator.
            generator = torch.Generator().manual_seed(run.seed * 1_000_003 + step)
            with plain_attention(run.device):
                loss = loss_at(step, generator)
                model.zero_grad(set_to_none=True)
                loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for each in optimizers + schedules:
                each.step()
            averaged.update_parameters(model)
            bar.update()
            if step % 20 == 0:  # not at every step: reading the loss waits for the device
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
                log(run, stage, step, loss)
            if time.monotonic() - saved > SAVE_SECONDS or step + 1 == stage.steps:
                save(path, state, step + 1)
                saved = time.monotonic()
    return averaged.module.eval()


def checkpoint_path(run: Run, stage: str) -> Path:
    """Where a stage keeps what it needs to go on."""
    return run.folder / f"{stage}.ckpt"


def make_optimizers(model: nn.Module, stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for the rest."""
    matrices, others = split_parameters(model)
    return [
        Muon(matrices, MUON_RATE * stage.learning_rate, weight_decay=stage.weight_decay),
        torch.optim.AdamW(others, stage.learning_rate, weight_decay=stage.weight_decay, fused=True),
    ]


def numbered(name: str, objects: list) -> dict[str, object]:
    """Objects by a name with their number."""
    return {f"{name} {number}": each for number, each in enumerate(objects)}


def learning_rate_factor(step: int, stage: Stage) -> float:
    """Linear warm-up, a constant rate unless `decay` is 1, then a cosine to zero (arXiv 2405.18392)."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    start = max(stage.warmup, stage.steps * (1 - stage.decay))
    share = min(1.0, max(0.0, (step - start) / max(1, stage.steps - start)))
    return 0.5 * (1 + math.cos(math.pi * share))


def resume(path: Path, state: dict, device: torch.device) -> int:
    """Load the checkpoint of a stage into its objects, if there is one; returns the step to continue with."""
    if not path.exists():
        return 0
    saved = load_states(path, device)
    for name, target in state.items():
        target.load_state_dict(saved[name])
    return saved["step"]


def save(path: Path, state: dict, step: int) -> None:
    """Write the checkpoint of a stage."""
    save_states(path, {name: target.state_dict() for name, target in state.items()} | {"step": step})


def run_trainer(trainer: Trainer, name: str) -> Path:
    """Run a trainer of `pit.training` to its end, or on from where it was; returns what it has written."""
    with tqdm(total=trainer.recipe.steps, initial=trainer.state.step, desc=name, mininterval=5) as bar:
        def on_step(progress: Progress) -> None:
            bar.update()
            if progress.validation is not None:
                bar.set_postfix(validation=f"{progress.validation.loss:.4f}", refresh=False)

        return trainer.run(on_step)


def log(run: Run, stage: Stage, step: int, loss: Tensor) -> None:
    """Append step, loss and time to the table of a stage."""
    with open(run.folder / f"{stage.name}.csv", "a", encoding="utf-8") as file:
        file.write(f"{step},{loss.item():.5f},{time.time():.0f}\n")
