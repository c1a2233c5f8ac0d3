"""What a training of an Embedding Optimizer starts from: a new one, or one from a file."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ...files.weights import WeightFileError
from ...files.whole import sha256_of
from ..embedding_optimizer import AnyOptimizer, EmbeddingOptimizer
from ..files import load_embedding_optimizer


def starting_optimizer(start: Path | None, input_dim: int, output_dim: int, seed: int) -> AnyOptimizer:
    """An Embedding Optimizer for CLIP tokens and contexts of these widths, on the CPU.

    Args:
        start: its file; None = a new one with four layers, with random weights that follow from the seed.
    Raises:
        WeightFileError: the file is none, or for other widths.
    """
    if start is None:
        # The global generator is put back, since others use it, too; asking for devices would start CUDA.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return new_optimizer(input_dim, output_dim)
    optimizer = load_embedding_optimizer(start)
    found = optimizer.input_dim, optimizer.output_dim
    if found != (input_dim, output_dim):
        raise WeightFileError(
            f"{start}: expected an Embedding Optimizer from width {input_dim}, that of the image encoder, to "
            f"width {output_dim}, that of the model's contexts, got one from {found[0]} to {found[1]}. Use "
            "the models that it was trained with."
        )
    return optimizer.float()


def new_optimizer(input_dim: int, output_dim: int) -> EmbeddingOptimizer:
    """An Embedding Optimizer by whose contexts objects differ from the start (He et al., 2015).

    With torch's own weights the contexts of all objects are nearly the same, and so small that half precision
    hardly tells them apart: a UNet would first learn to ignore them.
    """
    optimizer = EmbeddingOptimizer(input_dim, output_dim)
    for layer in (optimizer.projection_layer, optimizer.attention_pooling.out_proj):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    for number in range(1, optimizer.num_layers + 1):
        layer = optimizer.get_submodule(f"mlp_fc{number}")
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return optimizer


def stamp_of_start(start: Path | None) -> str:
    """What tells one start from another."""
    return "" if start is None else sha256_of(start)
