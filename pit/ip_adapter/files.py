"""IP-Adapter-plus files as published, `.bin` and `.safetensors` (github.com/tencent-ailab/IP-Adapter)."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files.checked import (
    MOST_LAYERS,
    State,
    StrPath,
    another_file,
    computable,
    count_layers,
    filled,
    matrix_shape,
    shapes,
    sound,
    whole_number,
    without_wrappers,
)
from ..files.known import first_of
from ..files.weights import WeightFileError, read_state, write_state
from .attention import ImageCrossAttention, IPAdapterPlus
from .resampler import Resampler

# Weights tell only the product of the number of heads and their width. Published files say neither; this is
# the published width.
DEFAULT_DIM_HEAD = 64
TRAINER_PARTS = ("image_proj_model.", "adapter_modules.")


@dataclass(frozen=True)
class AdapterFile:
    """The content of an IP-Adapter-plus file.

    Attributes:
        resampler: keyword arguments of `Resampler`.
        resampler_state: its weights.
        token_dim, inner_dims: arguments of `ImageCrossAttention`.
        cross_attention_state: its weights, `{i}.to_k.weight` and `{i}.to_v.weight` for layer i = 0, 1, ...
    """

    resampler: dict[str, int]
    resampler_state: State
    token_dim: int
    inner_dims: list[int]
    cross_attention_state: State


def read_ip_adapter(path: StrPath) -> AdapterFile:
    """Sizes and weights of an IP-Adapter-plus file, complete and finite, from the nested or the flat layout.

    The width of a resampler head is `resampler_dim_head` in the file's metadata, else 64 as published.
    Weights keep their type, except that float64 becomes float32 and float8 becomes float16.

    Raises:
        WeightFileError: not an IP-Adapter-plus file, or a damaged one.
    """
    path = Path(path)
    state, metadata = read_state(path)
    state = without_wrappers(state)
    numbers = layer_numbers(state)
    if "image_proj.latents" not in state or not numbers:
        raise another_file(path, state, "an IP-Adapter-plus")
    check_layer_numbers(path, numbers)
    # Sizes from a few tensors, then every tensor against the shapes that follow from them: what does not fit
    # together is found before a module is built.
    sizes = _resampler_sizes(path, state, metadata)
    expected = shapes(Resampler(**sizes, device="meta"), "image_proj.")
    inner_dims = layer_widths(path, state, numbers)
    expected |= cross_attention_shapes(numbers, inner_dims, sizes["output_dim"])
    state = {key: computable(value) for key, value in sound(path, state, expected).items()}
    return AdapterFile(
        resampler=sizes,
        resampler_state=projection_state(state),
        token_dim=sizes["output_dim"],
        inner_dims=inner_dims,
        cross_attention_state=cross_attention_state(state, numbers),
    )


def layer_numbers(state: State) -> list[int]:
    """The numbers of the attention layers that a file has weights for."""
    # At most nine digits: Python refuses to convert very long numbers, with an error of its own.
    matches = (re.fullmatch(r"ip_adapter\.(\d{1,9})\.to_k_ip\.weight", key) for key in state)
    return sorted(int(match[1]) for match in matches if match)


def check_layer_numbers(path: Path, numbers: Sequence[int]) -> None:
    """Raise WeightFileError unless these are all layers of a UNet, and not too many."""
    # The number of a layer is its place among all attention layers of the UNet as diffusers lists them, where
    # every second one is self-attention, which has no image half.
    if list(numbers) != list(range(1, 2 * len(numbers), 2)):
        raise WeightFileError(
            f"{path}: expected weights for the attention layers 1, 3, 5 and so on without a gap, got layers "
            f"{first_of([str(n) for n in numbers], 8)}. Fetch the published file again."
        )
    if len(numbers) > MOST_LAYERS:
        raise WeightFileError(
            f"{path}: expected at most {MOST_LAYERS} attention layers, got {len(numbers)}. Fetch the "
            "published file again."
        )


def layer_widths(path: Path, state: State, numbers: Sequence[int]) -> list[int]:
    """Widths of the attention layers. Raises WeightFileError where a weight is not a matrix."""
    return [matrix_shape(path, state, f"ip_adapter.{number}.to_k_ip.weight")[0] for number in numbers]


def cross_attention_shapes(
    numbers: Sequence[int], inner_dims: Sequence[int], token_dim: int
) -> dict[str, torch.Size]:
    """The shapes that the weights of the cross-attention must have, by their keys in a file."""
    return {
        f"ip_adapter.{number}.to_{kind}_ip.weight": torch.Size((dim, token_dim))
        for number, dim in zip(numbers, inner_dims, strict=True) for kind in "kv"
    }


def cross_attention_state(state: State, numbers: Sequence[int]) -> State:
    """Weights of `ImageCrossAttention` from those of a file."""
    return {
        f"{layer}.to_{kind}.weight": state[f"ip_adapter.{number}.to_{kind}_ip.weight"]
        for layer, number in enumerate(numbers) for kind in "kv"
    }


def projection_state(state: State) -> State:
    """Weights of what makes the tokens, from those of a file."""
    prefix = "image_proj."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def from_trainer(state: State) -> State:
    """The adapter in a checkpoint of the published trainer, with the UNet beside it; others unchanged."""
    plain = without_wrappers(state)
    if not any(key.startswith(TRAINER_PARTS) for key in plain):
        return state
    named = {
        own + key.removeprefix(theirs): tensor
        for theirs, own in zip(TRAINER_PARTS, ("image_proj.", "ip_adapter."), strict=True)
        for key, tensor in plain.items() if key.startswith(theirs)
    }
    return without_wrappers(named)


def load_ip_adapter(path: StrPath) -> IPAdapterPlus:
    """The IP-Adapter-plus in a file, on the CPU, for inference; errors as in `read_ip_adapter`.

    Its type is that of the file; a file of mixed types gives float32 modules, so that they run.
    """
    file = read_ip_adapter(path)
    resampler = filled(Resampler(**file.resampler, device="meta"), file.resampler_state)
    attention = ImageCrossAttention(file.token_dim, file.inner_dims, device="meta")
    return IPAdapterPlus(resampler, filled(attention, file.cross_attention_state)).eval()


def save_ip_adapter(path: StrPath, adapter: IPAdapterPlus, metadata: Mapping[str, str] | None = None) -> None:
    """Write an IP-Adapter-plus in the published flat layout, with `resampler_dim_head` in its metadata."""
    state = {f"image_proj.{key}": tensor for key, tensor in adapter.resampler.state_dict().items()}
    state |= attention_entries(adapter.cross_attention)
    attention = adapter.resampler.layers[0][0]
    dim_head = attention.to_q.weight.shape[0] // attention.heads
    write_state(path, state, dict(metadata or {}) | {"resampler_dim_head": str(dim_head)})


def attention_entries(attention: ImageCrossAttention) -> State:
    """The weights of the cross-attention under the keys of published files."""
    return {
        f"ip_adapter.{2 * layer + 1}.to_{kind}_ip.weight": getattr(pair, f"to_{kind}").weight
        for layer, pair in enumerate(attention) for kind in "kv"
    }


def _resampler_sizes(path: Path, state: State, metadata: Mapping[str, str]) -> dict[str, int]:
    """Keyword arguments of the `Resampler` whose weights are under `image_proj.`."""
    def shape(key: str) -> tuple[int, int]:
        return matrix_shape(path, state, f"image_proj.{key}.weight")

    latents = state["image_proj.latents"].shape
    if len(latents) != 3 or 0 in latents:
        raise WeightFileError(
            f"{path}: expected image_proj.latents of the shape [1, tokens, width], got {list(latents)}. "
            "Fetch the file again."
        )
    dim, embedding_dim = shape("proj_in")
    inner_dim = shape("layers.0.0.to_q")[0]
    dim_head = DEFAULT_DIM_HEAD
    if "resampler_dim_head" in metadata:
        dim_head = whole_number(path, "resampler_dim_head", metadata)
    if inner_dim % dim_head:
        raise WeightFileError(
            f"{path}: expected image_proj.layers.0.0.to_q.weight to split into heads of {dim_head} rows, got "
            f"{inner_dim} rows. Write the right resampler_dim_head into the metadata of the file."
        )
    return {
        "dim": dim,
        "depth": count_layers(path, state, "image_proj."),
        "dim_head": dim_head,
        "heads": inner_dim // dim_head,
        "num_queries": latents[1],
        "embedding_dim": embedding_dim,
        "output_dim": shape("proj_out")[0],
        "ff_mult": shape("layers.0.1.1")[0] // dim,
    }
