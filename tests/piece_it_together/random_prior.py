"""A tiny prior for tests that compare with nothing published."""
from __future__ import annotations

import torch

from pit.piece_it_together.prior import IPPrior

SIZES = {"embedding_dim": 48, "hidden_dim": 64, "num_layers": 2, "num_heads": 4}


def random_prior(seed: int = 0, **sizes: int) -> IPPrior:
    """A prior whose output depends strongly on everything that goes in; of `SIZES` where none are given."""
    model = IPPrior(**(sizes or SIZES)).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        std = 1.3 / weight.shape[-1] ** 0.5 if weight.ndim == 2 else 0.3
        weight.normal_(0.0, std, generator=generator)
        if name.endswith("norm.weight"):
            weight.add_(1.0)
    return model
