"""Weight files of this family: the only place that opens them, checks them, and makes modules of them.

Layouts as published: `prior.ckpt` with `cfg.yaml` (github.com/eladrich/PiT), `ip-adapter-plus_sdxl_vit-h` as
`.bin` and as `.safetensors` (github.com/tencent-ailab/IP-Adapter). `weight_files` reads and writes the bytes
for this module, `known_files` recognises what others have made.
"""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .adapter import ImageCrossAttention, IPAdapterPlus
from .known_files import first_of, what_is
from .lora import TEXT_ENCODER, Lora, convert_lora, split_lora, unsound, with_alphas
from .notes import peft_settings, prior_notes, whole_number
from .prior import IPPrior
from .resampler import Resampler
from .weight_files import CheckpointError, read_state, write_state

__all__ = [
    "AdapterFile", "CheckpointError", "PriorConfig", "convert_to_safetensors", "load_ip_adapter",
    "load_prior", "read_ip_adapter", "read_lora", "read_prior", "read_state", "save_ip_adapter", "save_prior",
]

StrPath = str | os.PathLike[str]
State = dict[str, Tensor]

DEFAULT_NUM_HEADS = 32
DEFAULT_DIM_HEAD = 64
WEIGHT_TYPES = {torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
PRIOR_SIGNS = ("x_embedder.weight", "layers.0.feed_forward.w1.weight", "final_layer.linear.weight")


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of an IP-Prior; `use_ref`: whether its first slot holds a reference, None where no file says."""

    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    feed_forward_dim: int
    use_ref: bool | None = None


@dataclass(frozen=True)
class AdapterFile:
    """What an IP-Adapter-plus file holds.

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


def read_prior(path: StrPath, num_heads: int | None = None) -> tuple[PriorConfig, State]:
    """Sizes and weights of an IP-Prior file, whole and finite, with or without `module.` before the keys.

    Layers and widths are read off the tensors. The head count, which weights do not tell, is `num_heads` if
    given, else that of `cfg.yaml` beside the file, else that of the file's metadata, else 32. Weights keep
    their type, but float64 becomes float32.

    Raises:
        CheckpointError: no IP-Prior, a damaged one, a `cfg.yaml` that is damaged or of another prior, or a
            head count that does not divide the width.
    """
    path = Path(path)
    state, metadata = read_state(path)
    state = _without_module(state)
    if not any(key in state for key in PRIOR_SIGNS):
        raise _another_file(path, state, "an IP-Prior")
    sizes = _prior_sizes(path, state)
    notes = prior_notes(path, metadata, sizes)
    heads = num_heads if num_heads is not None else notes.get("num_attention_heads", DEFAULT_NUM_HEADS)
    if heads < 1 or sizes["hidden_dim"] % (2 * heads):
        raise CheckpointError(
            f"{path} is {sizes['hidden_dim']} wide and cannot be split into {heads} heads of even width. "
            "Give the right num_heads, or put the prior's cfg.yaml beside it."
        )
    config = PriorConfig(**sizes, num_heads=heads, use_ref=notes.get("use_ref"))
    return config, _sound(path, state, _shapes(_empty_prior(config)))


def load_prior(path: StrPath, num_heads: int | None = None) -> IPPrior:
    """The IP-Prior of a file, on the CPU, for inference; head count and errors as in `read_prior`.

    Its type is that of the file; a file of mixed types gives a float32 module, so that it runs.
    """
    config, state = read_prior(path, num_heads)
    return _filled(_empty_prior(config), state)


def save_prior(path: StrPath, state: Mapping[str, Tensor], config: PriorConfig,
               metadata: Mapping[str, str] | None = None) -> None:
    """Write an IP-Prior as safetensors, with its head count and use of a reference in the metadata."""
    facts = {"num_heads": str(config.num_heads)}
    if config.use_ref is not None:
        facts["use_ref"] = str(config.use_ref).lower()
    write_state(path, state, dict(metadata or {}) | facts)


def read_ip_adapter(path: StrPath) -> AdapterFile:
    """Sizes and weights of an IP-Adapter-plus file, whole and finite, from the nested or the flat layout.

    The width of a resampler head is `resampler_dim_head` of the file's metadata, else 64 as published.
    Weights keep their type, but float64 becomes float32.

    Raises:
        CheckpointError: another IP-Adapter, no IP-Adapter, or a damaged one.
    """
    path = Path(path)
    state, metadata = read_state(path)
    matches = (re.fullmatch(r"ip_adapter\.(\d{1,9})\.to_k_ip\.weight", key) for key in state)
    numbers = sorted(int(match[1]) for match in matches if match)
    if "image_proj.latents" not in state or not numbers:
        raise _another_file(path, state, "an IP-Adapter-plus")
    if numbers != list(range(1, 2 * len(numbers), 2)):
        raise CheckpointError(
            f"{path} has weights for the attention layers {first_of([str(n) for n in numbers], 8)}, expected "
            "1, 3, 5 and so on without a gap. Fetch the published file again."
        )
    sizes = _resampler_sizes(path, state, metadata)
    expected = _shapes(Resampler(**sizes, device="meta"), "image_proj.")
    inner_dims = [_matrix_shape(path, state, f"ip_adapter.{number}.to_k_ip.weight")[0] for number in numbers]
    for number, dim in zip(numbers, inner_dims, strict=True):
        for kind in "kv":
            expected[f"ip_adapter.{number}.to_{kind}_ip.weight"] = torch.Size((dim, sizes["output_dim"]))
    state = _sound(path, state, expected)
    return AdapterFile(
        resampler=sizes,
        resampler_state={
            key.removeprefix("image_proj."): tensor
            for key, tensor in state.items() if key.startswith("image_proj.")
        },
        token_dim=sizes["output_dim"],
        inner_dims=inner_dims,
        cross_attention_state={
            f"{layer}.to_{kind}.weight": state[f"ip_adapter.{number}.to_{kind}_ip.weight"]
            for layer, number in enumerate(numbers) for kind in "kv"
        },
    )


def load_ip_adapter(path: StrPath) -> IPAdapterPlus:
    """The IP-Adapter-plus of a file, on the CPU, for inference.

    Type as in `load_prior`, errors as in `read_ip_adapter`.
    """
    file = read_ip_adapter(path)
    resampler = _filled(Resampler(**file.resampler, device="meta"), file.resampler_state)
    attention = ImageCrossAttention(file.token_dim, file.inner_dims, device="meta")
    return IPAdapterPlus(resampler, _filled(attention, file.cross_attention_state)).eval()


def save_ip_adapter(path: StrPath, adapter: IPAdapterPlus, metadata: Mapping[str, str] | None = None) -> None:
    """Write an IP-Adapter-plus in the published flat layout, with `resampler_dim_head` in its metadata."""
    state = {f"image_proj.{key}": tensor for key, tensor in adapter.resampler.state_dict().items()}
    for layer, pair in enumerate(adapter.cross_attention):
        state[f"ip_adapter.{2 * layer + 1}.to_k_ip.weight"] = pair.to_k.weight
        state[f"ip_adapter.{2 * layer + 1}.to_v_ip.weight"] = pair.to_v.weight
    attention = adapter.resampler.layers[0][0]
    dim_head = attention.to_q.weight.shape[0] // attention.heads
    write_state(path, state, dict(metadata or {}) | {"resampler_dim_head": str(dim_head)})


def read_lora(path: StrPath) -> Lora:
    """A LoRA file for a UNet, of any common layout, in kohya's, with its scales.

    These are `.alpha` tensors, what diffusers writes into the metadata (`lora_adapter_metadata`), or PEFT's
    `adapter_config.json` beside the file.

    Raises:
        CheckpointError: no LoRA, one for text encoders only, or one whose factors do not fit together.
    """
    path = Path(path)
    state, metadata = read_state(path)
    lora = split_lora(with_alphas(convert_lora(state), peft_settings(path, metadata)))
    wrong = list(unsound(lora.unet | lora.adapter))
    if wrong:
        raise CheckpointError(f"{path}: {first_of(wrong)}. The file is damaged; fetch it again.")
    if not any(key.endswith(".lora_down.weight") for key in lora.unet | lora.adapter):
        if any(TEXT_ENCODER.match(module) for module in lora.elsewhere):
            raise CheckpointError(f"{path} is a LoRA for text encoders only; use ComfyUI's Load LoRA for it.")
        raise _another_file(path, state, "a LoRA for a UNet")
    return lora


def convert_to_safetensors(source: Path, target: Path) -> None:
    """Save a weight file of any kind as safetensors; the metadata of an IP-Prior takes up its `cfg.yaml`.

    Raises:
        CheckpointError: the source cannot be read, or the target exists or has another ending.
    """
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors.")
    if target.exists():
        raise CheckpointError(f"{target} exists already; move it away, or choose another name.")
    state, metadata = read_state(source)
    prior = _without_module(state)
    if all(key in prior for key in PRIOR_SIGNS):
        state, notes = prior, prior_notes(source, metadata, _prior_sizes(source, prior))
        names = {"num_heads": notes.get("num_attention_heads"), "use_ref": notes.get("use_ref")}
        metadata |= {key: str(value).lower() for key, value in names.items() if value is not None}
    write_state(target, state, metadata)


def _another_file(path: Path, state: State, wanted: str) -> CheckpointError:
    what, advice = what_is(state)
    return CheckpointError(f"{path} is {what}; expected {wanted}. {advice}")


def _without_module(state: State) -> State:
    """Keys without the `module.` that a run on several GPUs leaves in front of all of them."""
    if not all(key.startswith("module.") for key in state):
        return state
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def _matrix_shape(path: Path, state: State, key: str) -> tuple[int, int]:
    """Rows and columns of a weight from which sizes are inferred."""
    if key not in state:
        raise CheckpointError(f"{path} has no {key}, which all of its kind have. Fetch the file again.")
    shape = state[key].shape
    if len(shape) != 2 or 0 in shape:
        raise CheckpointError(f"{path}: {key} has shape {list(shape)}, expected a matrix. Fetch it again.")
    return shape[0], shape[1]


def _count_layers(state: State, prefix: str = "") -> int:
    matches = (re.match(rf"{re.escape(prefix)}layers\.(\d+)\.", key) for key in state)
    return len({match[1] for match in matches if match})


def _prior_sizes(path: Path, state: State) -> dict[str, int]:
    hidden_dim, embedding_dim = _matrix_shape(path, state, "x_embedder.weight")
    feed_forward_dim, _ = _matrix_shape(path, state, "layers.0.feed_forward.w1.weight")
    return {
        "embedding_dim": embedding_dim,
        "hidden_dim": hidden_dim,
        "num_layers": _count_layers(state),
        "feed_forward_dim": feed_forward_dim,
    }


def _resampler_sizes(path: Path, state: State, metadata: Mapping[str, str]) -> dict[str, int]:
    """Keyword arguments of the `Resampler` whose weights lie under `image_proj.`."""
    def shape(key: str) -> tuple[int, int]:
        return _matrix_shape(path, state, f"image_proj.{key}.weight")

    latents = state["image_proj.latents"].shape
    if len(latents) != 3 or 0 in latents:
        raise CheckpointError(
            f"{path}: image_proj.latents has shape {list(latents)}, expected [1, tokens, width]. "
            "Fetch the file again."
        )
    dim, embedding_dim = shape("proj_in")
    inner_dim = shape("layers.0.0.to_q")[0]
    dim_head = DEFAULT_DIM_HEAD
    if "resampler_dim_head" in metadata:
        dim_head = whole_number(path, "resampler_dim_head", metadata)
    if inner_dim % dim_head:
        raise CheckpointError(
            f"{path}: image_proj.layers.0.0.to_q.weight has {inner_dim} rows, which cannot be split into "
            f"heads of {dim_head}. Write the right resampler_dim_head into the metadata of the file."
        )
    return {
        "dim": dim,
        "depth": _count_layers(state, "image_proj."),
        "dim_head": dim_head,
        "heads": inner_dim // dim_head,
        "num_queries": latents[1],
        "embedding_dim": embedding_dim,
        "output_dim": shape("proj_out")[0],
        "ff_mult": shape("layers.0.1.1")[0] // dim,
    }


def _empty_prior(config: PriorConfig) -> IPPrior:
    return IPPrior(config.embedding_dim, config.hidden_dim, config.num_layers, config.num_heads,
                   feed_forward_dim=config.feed_forward_dim, device="meta")


def _shapes(module: nn.Module, prefix: str = "") -> dict[str, torch.Size]:
    return {prefix + key: tensor.shape for key, tensor in module.state_dict().items()}


def _sound(path: Path, state: State, expected: Mapping[str, torch.Size]) -> State:
    """The weights, float64 narrowed to float32, once every key, shape, type and value is as it must be."""
    _check_keys(path, state, expected)
    state = {key: value.float() if value.dtype is torch.float64 else value for key, value in state.items()}
    for key, tensor in state.items():
        shape = expected[key]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{path}: {key} has shape {list(tensor.shape)}, expected {list(shape)} to fit the rest of "
                "the file. It is damaged or of another model; fetch it again."
            )
        if tensor.dtype not in WEIGHT_TYPES:
            raise CheckpointError(
                f"{path}: {key} is {tensor.dtype}, expected floating-point weights. Take the fp16 file."
            )
        if not _is_finite(tensor):
            raise CheckpointError(
                f"{path}: {key} holds NaN or infinite values, expected numbers; its training failed or the "
                "file is damaged. Fetch it again."
            )
    return state


def _check_keys(path: Path, state: State, expected: Mapping[str, torch.Size]) -> None:
    lists = {
        "missing": [key for key in expected if key not in state],
        "unknown": [key for key in state if key not in expected],
    }
    wrong = "; ".join(f"{len(keys)} {word}: {first_of(keys)}" for word, keys in lists.items() if keys)
    if wrong:
        raise CheckpointError(
            f"{path} holds {len(state)} tensors, expected {len(expected)} ({wrong}). It is incomplete or of "
            "another model; take the published file."
        )


def _is_finite(tensor: Tensor) -> bool:
    # The extremes show every NaN and infinity much faster than a test of each value; float8 has no aminmax.
    low, high = (tensor.float() if tensor.itemsize == 1 else tensor).aminmax()
    return bool(low.isfinite() and high.isfinite())


def _filled(module: nn.Module, state: State) -> nn.Module:
    """A module of the meta device with its weights; those of mixed types become float32, so that it runs."""
    if len({tensor.dtype for tensor in state.values()}) > 1:
        state = {key: tensor.float() for key, tensor in state.items()}
    module.load_state_dict(state, assign=True)
    return module.eval()
