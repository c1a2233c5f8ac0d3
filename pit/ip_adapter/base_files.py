"""Base IP-Adapter files as published: `ip-adapter_sdxl`, `ip-adapter_sdxl_vit-h`, `ip-adapter_sd15`."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..files.checked import (
    State,
    StrPath,
    another_file,
    computable,
    matrix_shape,
    shapes,
    sound,
    without_wrappers,
)
from ..files.weights import WeightFileError, read_state, write_state
from .attention import ImageCrossAttention
from .files import (
    attention_entries,
    check_layer_numbers,
    cross_attention_shapes,
    cross_attention_state,
    layer_numbers,
    layer_widths,
    projection_state,
)
from .projection import ImageProjection

MOST_TOKENS = 64  # the published ones make 4


@dataclass(frozen=True)
class BaseAdapterFile:
    """The content of a base IP-Adapter file.

    Attributes:
        projection: keyword arguments of `ImageProjection`.
        projection_state: its weights.
        inner_dims: argument of `ImageCrossAttention`, beside the width of the tokens.
        cross_attention_state: its weights.
    """

    projection: dict[str, int]
    projection_state: State
    inner_dims: list[int]
    cross_attention_state: State


def read_base_adapter(path: StrPath) -> BaseAdapterFile:
    """Sizes and weights of a base IP-Adapter, complete and finite, from the nested or the flat layout.

    Raises:
        WeightFileError: not a base IP-Adapter, or a damaged one.
    """
    path = Path(path)
    state = without_wrappers(read_state(path)[0])
    numbers = layer_numbers(state)
    if "image_proj.proj.weight" not in state or not numbers:
        raise another_file(path, state, "a base IP-Adapter")
    check_layer_numbers(path, numbers)
    sizes, inner_dims = _projection_sizes(path, state), layer_widths(path, state, numbers)
    expected = shapes(ImageProjection(**sizes, device="meta"), "image_proj.")
    expected |= cross_attention_shapes(numbers, inner_dims, sizes["token_dim"])
    state = {key: computable(value) for key, value in sound(path, state, expected).items()}
    return BaseAdapterFile(
        sizes, projection_state(state), inner_dims, cross_attention_state(state, numbers)
    )


def save_base_adapter(
    path: StrPath, projection: ImageProjection, attention: ImageCrossAttention,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a base IP-Adapter in the published flat layout."""
    state = {f"image_proj.{key}": tensor for key, tensor in projection.state_dict().items()}
    write_state(path, state | attention_entries(attention), metadata or {})


def _projection_sizes(path: Path, state: State) -> dict[str, int]:
    """Keyword arguments of the `ImageProjection` whose weights are under `image_proj.`."""
    values, embedding_dim = matrix_shape(path, state, "image_proj.proj.weight")
    norm = state.get("image_proj.norm.weight")
    token_dim = 0 if norm is None or norm.ndim != 1 else len(norm)
    tokens, rest = divmod(values, token_dim) if token_dim else (0, values)
    if rest or not 1 <= tokens <= MOST_TOKENS:
        raise WeightFileError(
            f"{path}: expected image_proj.proj.weight to make whole tokens as wide as image_proj.norm.weight,"
            f" got {values} rows and a width of {token_dim}. Fetch the published file again."
        )
    return {"embedding_dim": embedding_dim, "token_dim": token_dim, "tokens": tokens}
