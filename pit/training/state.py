"""What a training run changes from step to step, and how it becomes tensors on disk and back."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..files.weights import WeightFileError
from .checkpoint import Checkpoint
from .recipes import Recipe

FUSED_DEVICES = ("cpu", "cuda")


class TrainingState:
    """Model, averaged model, optimizer, step, and the loss since it was last logged.

    Args:
        model: on its device; those of its parameters that require gradients are trained.
        rate: the peak learning rate.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, rate: float):
        self.model, self.recipe, self.rate, self.step = model, recipe, rate, 0
        device = next(model.parameters()).device
        self.optimizer = build_optimizer(model, recipe, rate, device)
        # Only the trained parameters are averaged: a second copy of what is frozen would be wasted memory.
        self.averaged = None
        if recipe.ema_decay:
            self.current = nn.ParameterList(trained(model).values())
            self.averaged = AveragedModel(self.current, multi_avg_fn=self._average)
        # The losses are summed on the device: reading one would wait for the GPU in every step.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.losses = 0

    def set_rate(self) -> None:
        """Give the optimizer the learning rate of this step."""
        # Computed from the step rather than by a scheduler, which would be one more state to save and resume.
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self.recipe.rate_factor(self.step)

    def finish_step(self, loss: Tensor) -> None:
        """After the optimizer's step: update the averaged weights and count the step."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.current)
        self.loss_sum += loss
        self.losses += 1
        self.step += 1

    def take_mean_loss(self) -> Tensor:
        """The mean loss since the last call."""
        mean = self.loss_sum / max(1, self.losses)
        self.loss_sum, self.losses = torch.zeros_like(self.loss_sum), 0
        return mean

    @contextmanager
    def weights_to_use(self) -> Iterator[nn.Module]:
        """The model as it is to be used: averaged, if the recipe or the optimizer averages."""
        # Schedule-free trains at a point between its average and its fastest weights. In the optimizer's own
        # eval mode the model holds the average, in its train mode that point again.
        schedule_free = self.recipe.optimizer == "schedule_free"
        if schedule_free:
            self.optimizer.eval()
        self._swap_averaged()
        try:
            yield self.model
        finally:
            self._swap_averaged()
            if schedule_free:
                self.optimizer.train()

    def _swap_averaged(self) -> None:
        """Exchange the averaged weights with the model's own, or back."""
        # Only the storages change places. The parameters stay the same objects, which the optimizer and the
        # wrapper for several processes hold on to, and nothing is copied.
        if self.averaged is not None:
            for current, averaged in zip(self.current, self.averaged.module, strict=True):
                current.data, averaged.data = averaged.data, current.data

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint, by file."""
        weights = trained(self.model)
        files = {"model": detached(weights), "optimizer": optimizer_values(self.optimizer)}
        if self.averaged is not None:
            files["averaged"] = detached(dict(zip(weights, self.averaged.module, strict=True)))
        files["optimizer"]["loss_sum"] = self.loss_sum
        return files

    def notes(self) -> dict[str, object]:
        """The plain values of a checkpoint."""
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        counters = optimizer_values(self.optimizer, plain=True)
        # Through JSON already here: what it cannot hold fails before the checkpoint is begun.
        return {"losses": self.losses, "groups": json.loads(json.dumps(groups)), "optimizer": counters}

    def load(self, checkpoint: Checkpoint) -> None:
        """Resume from a checkpoint. Raises WeightFileError for one of another model, or a damaged one."""
        try:
            self._load(checkpoint)
        except (WeightFileError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # optimizers of other packages fail with errors of every kind
            reason = " ".join(repr(error).split())
            raise WeightFileError(
                f"{checkpoint.folder}: expected the state of this run, got another ({reason}). Remove that "
                "folder, to resume from the checkpoint before it."
            ) from error

    def _load(self, checkpoint: Checkpoint) -> None:
        self.step = checkpoint.step
        weights = trained(self.model)
        fill(weights, checkpoint, "model")
        if self.averaged is not None:
            fill(dict(zip(weights, self.averaged.module, strict=True)), checkpoint, "averaged")
            # At a count of 0, AveragedModel would overwrite the loaded average with the current weights.
            self.averaged.n_averaged.fill_(self.step)
        saved = checkpoint.load("optimizer")
        self.loss_sum.copy_(saved.pop("loss_sum"))
        self.losses = checkpoint.notes["losses"]
        values = saved | checkpoint.notes.get("optimizer", {})
        load_optimizer(self.optimizer, values, checkpoint.notes["groups"])

    def _average(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        # With a constant decay d, the first weights would keep a share of d^n after n steps: 37% after 1,000
        # steps at 0.999. This warm-up (as in TensorFlow's ExponentialMovingAverage) averages over about a
        # tenth of the steps so far until it reaches d.
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(averaged, current, count)


def build_optimizer(
    model: nn.Module, recipe: Recipe, rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer of a recipe. Raises ModuleNotFoundError if its package is not installed."""
    parameters, decay = list(trained(model).values()), recipe.weight_decay
    try:
        if recipe.optimizer == "schedule_free":
            from schedulefree import AdamWScheduleFree

            optimizer = AdamWScheduleFree(parameters, rate, weight_decay=decay)
            optimizer.train()
            return optimizer
        if recipe.optimizer == "adamw_8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit(parameters, rate, weight_decay=decay)
        if recipe.optimizer == "adafactor":
            from transformers.optimization import Adafactor

            # Both off, or Adafactor would choose a rate of its own from the step and the size of the weights.
            return Adafactor(parameters, rate, weight_decay=decay, scale_parameter=False, relative_step=False)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'Expected the package {error.name} for the optimizer "{recipe.optimizer}", got none. Install it '
            f"with `pip install {error.name}`."
        ) from error
    return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=device.type in FUSED_DEVICES)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name."""
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def detached(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of parameters, without gradients; nothing is copied."""
    return {name: value.detach() for name, value in parameters.items()}


@torch.no_grad()
def fill(parameters: Mapping[str, Tensor], checkpoint: Checkpoint, file: str) -> None:
    """Load a file of a checkpoint into the parameters that it must have been saved from."""
    saved = checkpoint.load(file)
    if shapes(saved) != shapes(parameters):
        raise WeightFileError(
            f"{checkpoint.folder}: expected a model of this run's sizes, got one of other sizes. Give the "
            "run another name, or the sizes that it was started with."
        )
    for name, value in parameters.items():
        value.copy_(saved[name])


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """The shapes of tensors, by name."""
    return {key: value.shape for key, value in state.items()}


def optimizer_values(optimizer: torch.optim.Optimizer, plain: bool = False) -> dict[str, Tensor | float]:
    """The optimizer's tensors, or if `plain` its plain numbers, under names `{parameter}.{name}`."""
    # Not from its `state_dict`, in which bitsandbytes wraps its 8-bit values in a form that is no tensor.
    parameters = (each for group in optimizer.param_groups for each in group["params"])
    return {
        f"{index}.{name}": value
        for index, parameter in enumerate(parameters)
        for name, value in optimizer.state.get(parameter, {}).items() if isinstance(value, Tensor) != plain
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, values: Mapping[str, Tensor | float], groups: list[dict[str, object]]
) -> None:
    """The inverse of `optimizer_values`; `groups` are the plain values of the parameter groups."""
    state: dict[int, dict[str, Tensor | float]] = {}
    for key, value in values.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone() if isinstance(value, Tensor) else value
    current = optimizer.state_dict()["param_groups"]
    merged = [saved | {"params": group["params"]} for saved, group in zip(groups, current, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})
