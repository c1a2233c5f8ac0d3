"""What a training run changes from step to step, and how it becomes tensors on disk and back."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..weight_files import CheckpointError
from .checkpoint import Checkpoint
from .recipes import Recipe

FUSED_DEVICES = ("cpu", "cuda")


class TrainingState:
    """Model, averaged model, optimiser, step, and the loss since it was last written down.

    Args:
        model: on its device; of its parameters those that require gradients are trained.
        rate: the peak learning rate.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, rate: float):
        self.model, self.recipe, self.rate, self.step = model, recipe, rate, 0
        device = next(model.parameters()).device
        self.optimizer = build_optimizer(model, recipe, rate, device)
        self.averaged = None
        if recipe.ema_decay:
            self.averaged = AveragedModel(model, multi_avg_fn=self._average).requires_grad_(False)
            share_frozen(self.averaged.module, model)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.losses = 0

    def set_rate(self) -> None:
        """Give the optimiser the learning rate of this step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self.recipe.rate_factor(self.step)

    def finish_step(self, loss: Tensor) -> None:
        """After the optimiser's step: average the weights, count."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
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
        """The model as it is to be used: averaged, where the recipe or the optimiser averages."""
        schedule_free = self.recipe.optimizer == "schedule_free"
        if schedule_free:
            self.optimizer.eval()
        try:
            yield self.model if self.averaged is None else self.averaged.module
        finally:
            if schedule_free:
                self.optimizer.train()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint holds, by file."""
        files = {"model": trained(self.model), "optimizer": optimizer_tensors(self.optimizer)}
        if self.averaged is not None:
            files["averaged"] = trained(self.averaged.module, self.model)
        files["optimizer"]["loss_sum"] = self.loss_sum
        return files

    def notes(self) -> dict[str, object]:
        """The plain values of a checkpoint."""
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        return {"losses": self.losses, "groups": json.loads(json.dumps(groups))}

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint was written. Raises CheckpointError for one of another model."""
        self.step = checkpoint.step
        fill(self.model, checkpoint, "model", trained(self.model))
        if self.averaged is not None:
            fill(self.averaged.module, checkpoint, "averaged", trained(self.averaged.module, self.model))
            self.averaged.n_averaged.fill_(self.step)
        saved = checkpoint.load("optimizer")
        self.loss_sum.copy_(saved.pop("loss_sum"))
        self.losses = checkpoint.notes["losses"]
        load_optimizer(self.optimizer, saved, checkpoint.notes["groups"])

    def _average(self, averaged: list[Tensor], current: list[Tensor], _count: Tensor) -> None:
        # Young averages move faster, or the random start would stay in them for long.
        decay = min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(averaged, current, 1 - decay)


def build_optimizer(
    model: nn.Module, recipe: Recipe, rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """The optimiser of a recipe. Raises ModuleNotFoundError if its package is not there."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.optimizer == "adamw":
        fused = device.type in FUSED_DEVICES
        return torch.optim.AdamW(parameters, rate, weight_decay=recipe.weight_decay, fused=fused)
    try:
        from schedulefree import AdamWScheduleFree
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'The optimizer "schedule_free" needs a package that is not there: pip install schedulefree'
        ) from error
    optimizer = AdamWScheduleFree(parameters, rate, weight_decay=recipe.weight_decay)
    optimizer.train()
    return optimizer


def trained(module: nn.Module, like: nn.Module | None = None) -> dict[str, Tensor]:
    """The parameters that are trained: of `module` itself, or of its original `like` where it is a copy."""
    names = {name for name, parameter in (like or module).named_parameters() if parameter.requires_grad}
    return {name: parameter.detach() for name, parameter in module.named_parameters() if name in names}


def share_frozen(copy: nn.Module, model: nn.Module) -> None:
    """Give a copy the weights of its original that are not trained: LoRA leaves all but a few as they are."""
    for copied, parameter in zip(copy.parameters(), model.parameters(), strict=True):
        if not parameter.requires_grad:
            copied.data = parameter.data


def fill(module: nn.Module, checkpoint: Checkpoint, file: str, expected: dict[str, Tensor]) -> None:
    """Load a file of a checkpoint into the parameters of a module that it must have been saved from."""
    saved = checkpoint.load(file)
    if shapes(saved) != shapes(expected):
        raise CheckpointError(
            f"{checkpoint.folder} holds a model of other sizes than this run's. Give the run another name, "
            "or the sizes that it was begun with."
        )
    module.load_state_dict(saved, strict=False)


def shapes(state: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors under names `{parameter}.{name}`."""
    return {
        f"{index}.{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, object]]
) -> None:
    """The inverse of `optimizer_tensors`; `groups` are the plain values of the parameter groups."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value.clone()
    current = optimizer.state_dict()["param_groups"]
    merged = [saved | {"params": group["params"]} for saved, group in zip(groups, current, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})
