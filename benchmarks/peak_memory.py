"""Peak memory of a training step, counted without running it: no GPU and hardly any memory is needed.

The step (forward, backward, AdamW, average of the weights) is done on PyTorch's fake tensors, which have a
shape but no content, and what lives is added up, operation by operation. Not counted: CUDA itself, and what
its allocator wastes.
"""
from __future__ import annotations

import weakref
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pit.ip_adapter.resampler import TOKENS_PER_PICTURE
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.training.batches import PriorBatch
from pit.piece_it_together.training.recipes import PriorRecipe, Sizes
from pit.piece_it_together.training.validation import batch_loss
from pit.training.state import build_optimizer

BATCHES_ALIKE = 2  # of the batches that make an optimiser step, the third and later are as the second


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment of the peak; `activations` is all that the others are not."""

    parameters: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def peak(self) -> int:
        return sum(vars(self).values())


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that were made inside this context and live.

    Attributes:
        alive: bytes now.
        peak: the most so far, and `gradients_at_peak` of them the gradients of `watched`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = self.gradients_at_peak = 0
        self.watched: list[nn.Parameter] = []
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self.add(value.untyped_storage())
        if self.alive > self.peak:
            self.peak, self.gradients_at_peak = self.alive, size_of(gradients(self.watched))
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.alive += storage.nbytes()
            weakref.finalize(storage, self.remove, storage._cdata, storage.nbytes())

    def remove(self, key: int, size: int) -> None:
        self.known.remove(key)
        self.alive -= size


class NormOnGPU(nn.LayerNorm):
    """Under autocast in float32, as on a GPU; on a CPU, autocast leaves it in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class OnGPU:
    """Layers that need on a CPU the memory that they need on a GPU."""

    Linear, LayerNorm = nn.Linear, NormOnGPU


class TrainingStep:
    """What the trainer does in a step, on random tokens: all slots, all of its memory.

    Args:
        slots: pictures that a sample is given.
    """

    def __init__(
        self, recipe: PriorRecipe, sizes: Sizes, width: int, slots: int, device: torch.device, operations=nn
    ) -> None:
        def new_prior() -> IPPrior:
            shape = (width, sizes.hidden_dim, sizes.num_layers, sizes.num_heads)
            return IPPrior(*shape, operations, device=device)

        self.recipe, self.width, self.slots, self.device = recipe, width, slots, device
        self.prior = new_prior()
        self.prior.gradient_checkpointing = recipe.gradient_checkpointing
        self.averaged = new_prior().requires_grad_(False) if recipe.ema_decay else None
        self.optimizer = build_optimizer(self.prior, recipe, 1e-5, device)

    def random_batch(self) -> PriorBatch:
        rows, given = self.recipe.batch, TOKENS_PER_PICTURE * self.slots
        clean, noise = torch.randn(2, rows, TOKENS_PER_PICTURE, self.width, device=self.device)
        parts = torch.randn(rows, given, self.width, device=self.device)
        masked = self.recipe.lengths == "sample"
        mask = torch.ones(rows, given, dtype=torch.bool, device=self.device) if masked else None
        return PriorBatch(clean, parts, mask, torch.rand(rows, device=self.device), noise)

    def run(self) -> None:
        for _ in range(min(BATCHES_ALIKE, self.recipe.accumulation)):
            bf16 = self.recipe.precision == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                loss = batch_loss(self.prior, self.random_batch()).mean()
            loss.backward()
        nn.utils.clip_grad_norm_(self.prior.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.averaged is not None:
            models = (self.averaged, self.prior)
            old, new = ([weight.detach() for weight in model.parameters()] for model in models)
            torch._foreach_lerp_(old, new, 1 - self.recipe.ema_decay)


def counted_memory(recipe: PriorRecipe, sizes: Sizes, width: int, slots: int) -> Memory:
    """Of a training on a GPU, which need not be there."""
    with FakeTensorMode(), LiveBytes() as live:
        step = TrainingStep(recipe, sizes, width, slots, torch.device("cpu"), OnGPU)
        live.watched = list(step.prior.parameters())
        step.run()  # the optimiser makes its tensors at its first step
        step.run()
        parameters = size_of(live.watched)
        average = size_of(step.averaged.parameters()) if step.averaged is not None else 0
        optimizer = size_of(value for state in step.optimizer.state.values() for value in state.values())
    rest = live.peak - parameters - live.gradients_at_peak - optimizer - average
    return Memory(parameters, live.gradients_at_peak, optimizer, average, rest)


def measured_memory(recipe: PriorRecipe, sizes: Sizes, width: int, slots: int, device: torch.device) -> int:
    """Most bytes that PyTorch's tensors took on a GPU that did the same."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step = TrainingStep(recipe, sizes, width, slots, device)
    step.run()
    step.run()
    return torch.cuda.max_memory_allocated(device) - before


def gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def size_of(tensors) -> int:
    """Bytes of tensors that share nothing."""
    return sum(tensor.nbytes for tensor in tensors)
