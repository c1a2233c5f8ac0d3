"""The peak memory of a training step, counted without running it: no GPU and hardly any memory is needed.

The step (forward, backward, AdamW, averaging the weights) runs on PyTorch's fake tensors, which have shapes
but no contents, and the sizes of all live tensors are added up after every operation. CUDA itself and what
its allocator wastes are not counted.
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

# Of the batches that make one optimizer step, the first finds no gradients yet; from the second on all are
# alike.
DISTINCT_BATCHES = 2


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment of the peak; `activations` is everything that the others are not."""

    parameters: int
    gradients: int
    optimizer: int
    average: int
    activations: int

    @property
    def peak(self) -> int:
        """All of them together."""
        return sum(vars(self).values())


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that are created in this context and still live.

    Attributes:
        alive: bytes now.
        peak: the most bytes so far.
        gradients_at_peak: how many of those were gradients of `watched`.
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
        """Count a storage, once for all of its views, until it is freed."""
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.alive += storage.nbytes()
            weakref.finalize(storage, self.remove, storage._cdata, storage.nbytes())

    def remove(self, key: int, size: int) -> None:
        """Stop counting a storage."""
        self.known.remove(key)
        self.alive -= size


class NormOnGPU(nn.LayerNorm):
    """Computes in float32 under autocast, as on a GPU; on a CPU autocast would leave it in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class OnGPU:
    """Layers that need the same memory on a CPU as on a GPU."""

    Linear, LayerNorm = nn.Linear, NormOnGPU


class TrainingStep:
    """What the trainer does in one step, on random tokens with all slots in use.

    Args:
        width: of the tokens.
        slots: pictures given to each sample.
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
        """A batch in which every slot is in use, as the recipe would shape it."""
        rows, given = self.recipe.batch, TOKENS_PER_PICTURE * self.slots
        clean, noise = torch.randn(2, rows, TOKENS_PER_PICTURE, self.width, device=self.device)
        parts = torch.randn(rows, given, self.width, device=self.device)
        masked = self.recipe.lengths == "sample"
        mask = torch.ones(rows, given, dtype=torch.bool, device=self.device) if masked else None
        return PriorBatch(clean, parts, mask, torch.rand(rows, device=self.device), noise)

    def run(self) -> None:
        """Forward and backward passes, the optimizer, and the average of the weights."""
        for _ in range(min(DISTINCT_BATCHES, self.recipe.accumulation)):
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
    """The peak memory of training on a GPU, which need not exist."""
    with FakeTensorMode(), LiveBytes() as live:
        step = TrainingStep(recipe, sizes, width, slots, torch.device("cpu"), OnGPU)
        live.watched = list(step.prior.parameters())
        step.run()  # the optimizer creates its tensors in the first step
        step.run()
        parameters = size_of(live.watched)
        average = size_of(step.averaged.parameters()) if step.averaged is not None else 0
        optimizer = size_of(value for state in step.optimizer.state.values() for value in state.values())
    rest = live.peak - parameters - live.gradients_at_peak - optimizer - average
    return Memory(parameters, live.gradients_at_peak, optimizer, average, rest)


def measured_memory(recipe: PriorRecipe, sizes: Sizes, width: int, slots: int, device: torch.device) -> int:
    """The most bytes that PyTorch's tensors take on a GPU for the same steps."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step = TrainingStep(recipe, sizes, width, slots, device)
    step.run()
    step.run()
    return torch.cuda.max_memory_allocated(device) - before


def gradients(parameters: list[nn.Parameter]) -> list[Tensor]:
    """The gradients that exist."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def size_of(tensors) -> int:
    """The bytes of tensors that share no storage."""
    return sum(tensor.nbytes for tensor in tensors)
