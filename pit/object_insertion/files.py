"""Embedding Optimizer files of every published variant, and the bias of a published UNet."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..files.checked import (
    State,
    StrPath,
    another_file,
    computable,
    filled,
    matrix_shape,
    shapes,
    sound,
    whole_number,
    without_wrappers,
)
from ..files.known import first_of
from ..files.weights import WeightFileError, read_state
from .embedding_optimizer import (
    CONTEXT_TOKENS,
    LAYERS,
    NUM_HEADS,
    AnyOptimizer,
    EmbeddingOptimizer,
    LegacyEmbeddingOptimizer,
)

SIGNS = (
    "attention_pooling.in_proj_weight", "projection_layer.weight", "mlp_fc1.weight", "seq_projection.weight",
)
LATER_LAYERS = ("mlp_fc3.", "mlp_fc4.")
BIAS = "conv_in.bias"
COMFYUI_BIAS = "input_blocks.0.0.bias"
# The first bias of a UNet as diffusers names it, as ComfyUI does, and within a complete checkpoint.
BIAS_NAMES = (
    BIAS, COMFYUI_BIAS, f"diffusion_model.{COMFYUI_BIAS}", f"model.diffusion_model.{COMFYUI_BIAS}",
)


class OptimizerFile(NamedTuple):
    """The content of an Embedding Optimizer file.

    Attributes:
        build: makes the module; takes `operations`, `device` and `dtype`.
        state: its weights.
        variant: what people call it.
        nan: how many values were not a number, and are 0 now.
    """

    build: Callable[..., AnyOptimizer]
    state: State
    variant: str
    nan: int


def read_embedding_optimizer(path: StrPath, nan_as_zero: bool = False) -> OptimizerFile:
    """Variant, sizes and weights of an Embedding Optimizer file, complete and finite.

    The keys tell the variant, and nothing is filled up. The head count is `num_heads` in the file's metadata,
    else 8 as published. Weights keep their type, except that float64 becomes float32 and float8 float16.

    Args:
        nan_as_zero: read values that are not a number as 0, as the published code does.
    Raises:
        WeightFileError: not an Embedding Optimizer file, or a damaged one; with the count, if it holds NaN.
    """
    path = Path(path)
    state, metadata = read_state(path)
    state = without_wrappers(state)
    # Any sign is enough: an incomplete one is to be named as one, not as a file of another kind.
    if not any(key in state for key in SIGNS):
        raise another_file(path, state, "an Embedding Optimizer")
    build, variant = (_legacy if _is_legacy(state) else _with_query)(path, state, metadata)
    expected = shapes(build(device="meta"))
    nan = _nan_counts(state, expected)
    if nan and not nan_as_zero:
        raise WeightFileError(
            f"{path}: expected finite numbers, got {sum(nan.values())} NaN in {len(nan)} of "
            f"{len(expected)} tensors: {first_of(list(nan))}. Its training failed; take another file, or set "
            "nan_as_zero, which reads them as 0 as the published code does."
        )
    state = state | {key: _without_nan(computable(state[key])) for key in nan}
    state = {key: computable(value) for key, value in sound(path, state, expected).items()}
    return OptimizerFile(build, state, variant, sum(nan.values()))


def load_embedding_optimizer(path: StrPath, nan_as_zero: bool = False) -> AnyOptimizer:
    """The Embedding Optimizer in a file, on the CPU, for inference; errors as in `read_embedding_optimizer`.

    Its type is that of the file; a file of mixed types gives a float32 module, so that it runs.
    """
    file = read_embedding_optimizer(path, nan_as_zero)
    return filled(file.build(device="meta"), file.state)


def read_bias(path: StrPath) -> Tensor:
    """The bias of the first convolution, `[C]`, from a file of its own or one that holds the whole UNet.

    Raises:
        WeightFileError: there is none, or it is not a vector of finite numbers.
    """
    path = Path(path)
    state, _ = read_state(path)
    state = without_wrappers(state)
    name = next((name for name in BIAS_NAMES if name in state), None)
    if name is None:
        raise another_file(path, state, f"a UNet or its {BIAS}")
    bias = state[name]
    expected = torch.Size([bias.numel()]) if bias.numel() else torch.Size([1])
    return sound(path, {name: bias}, {name: expected})[name].float()


def _is_legacy(state: State) -> bool:
    return "seq_projection.weight" in state and "projection_layer.weight" not in state


def _legacy(path: Path, state: State, metadata: dict[str, str]) -> tuple[Callable[..., AnyOptimizer], str]:
    output_dim, input_dim = matrix_shape(path, state, "projection.weight")
    rows, tokens = matrix_shape(path, state, "seq_projection.weight")
    if rows != CONTEXT_TOKENS:
        raise WeightFileError(
            f"{path}: expected seq_projection.weight to make {CONTEXT_TOKENS} tokens, got {rows}. It is for "
            "another text context; take the published file."
        )
    return partial(LegacyEmbeddingOptimizer, input_dim, output_dim, tokens), "legacy, without a query"


def _with_query(
    path: Path, state: State, metadata: dict[str, str]
) -> tuple[Callable[..., AnyOptimizer], str]:
    output_dim, input_dim = matrix_shape(path, state, "projection_layer.weight")
    # By any of the later layers: one that is cut off is incomplete, and not an older variant.
    layers = LAYERS[any(key.startswith(LATER_LAYERS) for key in state)]
    heads = whole_number(path, "num_heads", metadata) if "num_heads" in metadata else NUM_HEADS
    if output_dim % heads:
        raise WeightFileError(
            f"{path}: expected a width that splits into {heads} heads, got {output_dim}. Write the right "
            "num_heads into the metadata of the file, or take the published one."
        )
    build = partial(EmbeddingOptimizer, input_dim, output_dim, layers, heads)
    return build, f"{layers} layers, with a random query"


def _nan_counts(state: State, expected: dict[str, torch.Size]) -> dict[str, int]:
    """How many values of each tensor are not a number, where there are any."""
    # Only of tensors that belong there: what does not is refused by its name or shape.
    counts = {
        key: int(computable(state[key]).isnan().sum())
        for key, shape in expected.items() if key in state and state[key].shape == shape
    }
    return {key: count for key, count in counts.items() if count}


def _without_nan(tensor: Tensor) -> Tensor:
    # Not `nan_to_num`, which would hide infinite values as well.
    return torch.where(tensor.isnan(), 0, tensor)
