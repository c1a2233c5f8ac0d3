"""Muon, an optimizer that takes steps of equal size in all directions of a matrix.

Method: Jordan et al., https://kellerjordan.github.io/posts/muon, with the step size of Liu et al. (arXiv
2502.16982). `torch.optim.Muon` takes no convolutions, and orthogonalizes in bfloat16, for which many
processors have no instructions: on such a one it took as long as all the rest of a step.
"""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

# By You Jiacheng, as in Microsoft's Dion: each brings all singular values nearer to 1, best for what those
# before it may have left.
COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
)
SMALLEST_SIDE = 16  # of a matrix: below it, directions are few, and AdamW does as well


class Muon(torch.optim.Optimizer):
    """Momentum whose directions are made equally large; for matrices and the kernels of convolutions.

    Args:
        parameters: of at least two axes; all but the first are taken as one.
        learning_rate: as for AdamW, times about four: entries move by a fifth of it on average.
        momentum: Nesterov's.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, {
            "lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay,
        })

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters that have a gradient."""
        for group in self.param_groups:
            for alike in by_shape(group["params"]):
                updates = torch.stack([self.direction(parameter, group["momentum"]) for parameter in alike])
                # So that entries move as far on average, whatever the shape.
                size = 0.2 * group["lr"] * max(updates.shape[1:]) ** 0.5
                for parameter, update in zip(alike, orthogonalized(updates), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(shaped_like(update, parameter), alpha=size)

    def direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient with momentum, `[rows, columns]`."""
        state, gradient = self.state[parameter], as_matrix(parameter.grad)
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return torch.lerp(gradient, state["momentum"], momentum)


def by_shape(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters with a gradient, those of one shape together: they are orthogonalized at once."""
    found = defaultdict(list)
    for parameter in parameters:
        if parameter.grad is not None:
            found[parameter.shape].append(parameter)
    return list(found.values())


def as_matrix(values: Tensor) -> Tensor:
    """`[O, I]` as it is, and a kernel `[O, I, h, w]` as `[O, h w I]`: no copy if its channels come last."""
    return values.movedim(1, -1).flatten(1)


def shaped_like(matrix: Tensor, parameter: Tensor) -> Tensor:
    """`as_matrix` undone."""
    return matrix.view(parameter.movedim(1, -1).shape).movedim(-1, 1)


def orthogonalized(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthonormal rows or columns, nearly, `[N, rows, columns]`."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (1.01 * torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    # The iteration multiplies x by polynomials of x x^T, which is small: x is needed at both ends only.
    squares, factor = x @ x.mT, None
    for number, (linear, cubic, quintic) in enumerate(COEFFICIENTS, start=1):
        polynomial = torch.baddbmm(squares, squares, squares, beta=cubic, alpha=quintic)
        polynomial.diagonal(dim1=1, dim2=2).add_(linear)
        factor = polynomial if factor is None else polynomial @ factor
        if number < len(COEFFICIENTS):
            squares = polynomial @ squares @ polynomial
    x = factor @ x
    return x.mT if tall else x


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Those for Muon, and those for AdamW: vectors, tables of embeddings, and what is small on a side."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wide = [
        parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= SMALLEST_SIDE
        and id(parameter) not in tables
        for parameter in trained
    ]
    return (
        [parameter for parameter, is_wide in zip(trained, wide, strict=True) if is_wide],
        [parameter for parameter, is_wide in zip(trained, wide, strict=True) if not is_wide],
    )
