"""Files of pOps operators: as published, over a base prior that holds the statistics, or merged into one.

An operator (`learned_prior.pth`, github.com/pOpsPaper/pOps) is the state dict of a whole prior without the
statistics of CLIP's embeddings. Those are in the prior of Kandinsky 2.2 that it was trained from, a single
file or diffusers' folder.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from ..files.checked import (
    State,
    StrPath,
    another_file,
    computable,
    count_layers,
    matrix_shape,
    shapes,
    sound,
    whole_number,
    without_wrappers,
)
from ..files.plain_json import read_json
from ..files.published import file_kind
from ..files.weights import WeightFileError, read_state, write_state
from ..flow.guidance import Guidance
from ..messages import quoted
from .modes import mode_named
from .prior import EXTRA_TOKENS, PriorTransformer

DEFAULT_NUM_HEADS = 32  # of all published files; weights do not tell it
MOST_HEADS = 999_999
STATISTICS = ("clip_mean", "clip_std")
SIGNS = ("prd_embedding", "proj_to_clip_embeddings.weight", "encoder_hidden_states_proj.weight")
# Where weights lie in a folder of diffusers: that of the whole pipeline, or of the prior alone.
IN_FOLDERS = tuple(
    f"{folder}diffusion_pytorch_model.{ending}"
    for folder in ("prior/", "") for ending in ("safetensors", "fp16.safetensors", "bin")
)


@dataclass(frozen=True)
class OperatorConfig:
    """Sizes of an operator."""

    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    feed_forward_dim: int
    num_slots: int


@dataclass(frozen=True)
class OperatorFile:
    """An operator as it was read: complete, with its statistics.

    Attributes:
        state: weights in their own type, the statistics in float32.
        mode: what the file says that it was trained for, see `pit.pops.modes`; "" = it does not say.
        guidance: the scale that the file says suits it; None = it does not say, as published files.
    """

    config: OperatorConfig
    state: State
    mode: str = ""
    guidance: float | None = None


def load_operator(
    path: StrPath, base: StrPath | None = None, num_heads: int | None = None
) -> PriorTransformer:
    """The operator in a file, with its statistics, on the CPU, for inference; as `read_operator` finds it.

    Its type is that of the file; a file of mixed types gives a float32 module, so that it runs.
    """
    return filled_operator(read_operator(path, base, num_heads))


def filled_operator(file: OperatorFile) -> PriorTransformer:
    """The module of an operator that was read."""
    module = empty_operator(file.config)
    weights = {key: computable(value) for key, value in file.state.items() if key not in STATISTICS}
    if len({value.dtype for value in weights.values()}) > 1:
        weights = {key: value.float() for key, value in weights.items()}
    # Not `filled`, which would widen all weights for the statistics, which are float32 whatever the rest is.
    statistics = {key: file.state[key] for key in STATISTICS}
    module.load_state_dict({**weights, **statistics}, assign=True)
    return module.eval().requires_grad_(False)


def read_operator(path: StrPath, base: StrPath | None = None, num_heads: int | None = None) -> OperatorFile:
    """An operator file, complete and finite, without what trainings put before the keys.

    Args:
        path: an operator, alone or with its statistics; or a prior of Kandinsky 2.2, the operator that words
            make.
        base: the file or the folder with the statistics; only read if the operator has none.
        num_heads: by default what the metadata or a `config.json` beside either file says, else 32.
    Raises:
        WeightFileError: not an operator, a damaged one, one without statistics and without a base, a base
            without statistics or of another width, or a head count that does not divide the width.
    """
    path = weights_in(Path(path))
    state, metadata = read_state(path)
    state = without_wrappers(state)
    # Any sign is enough: an incomplete operator is to be named as one, not as a file of another kind.
    if not any(key in state for key in SIGNS):
        raise another_file(path, state, "a pOps operator")
    sizes = _sizes(path, state)
    state |= _statistics(path, state, base, sizes["embedding_dim"])
    heads = num_heads if num_heads is not None else _num_heads(path, base, metadata)
    if heads < 1 or sizes["hidden_dim"] % heads:
        raise WeightFileError(
            f"{path}: expected a width that splits into {heads} heads, got a width of {sizes['hidden_dim']}. "
            "Give the right num_heads, or put the config.json of its prior beside the file."
        )
    config = OperatorConfig(**sizes, num_heads=heads)
    state = sound(path, state, shapes(empty_operator(config)))
    state |= {key: state[key].float() for key in STATISTICS}
    _check_deviations(path, state["clip_std"])
    return OperatorFile(config, state, mode_named(metadata.get("mode", "")), _guidance(path, metadata))


def _guidance(path: Path, metadata: Mapping[str, str]) -> float | None:
    if "guidance" not in metadata:
        return None
    try:
        guidance = float(metadata["guidance"])
        Guidance(guidance).check()
    except ValueError as error:
        raise WeightFileError(
            f"{path}: expected a number as its guidance, got {quoted(metadata['guidance'])}. Save it again."
        ) from error
    return guidance


def save_operator(
    path: StrPath, file: OperatorFile, metadata: Mapping[str, str] | None = None
) -> None:
    """Write an operator with its statistics as one safetensors file, which needs no base.

    Raises:
        WeightFileError: the file cannot be written.
    """
    facts = {"num_heads": str(file.config.num_heads)} | ({"mode": file.mode} if file.mode else {})
    if file.guidance is not None:
        facts["guidance"] = str(file.guidance)
    write_state(path, file.state, dict(metadata or {}) | facts)


def empty_operator(config: OperatorConfig) -> PriorTransformer:
    """An operator of these sizes on the meta device: shapes without memory, to check and to fill."""
    return PriorTransformer(**asdict(config), device="meta")


def is_operator(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of an operator or of its base, as far as the names tell."""
    return all(key in state for key in SIGNS)


def weights_in(path: Path) -> Path:
    """A file itself, or the weights of the prior in a folder of diffusers.

    Raises:
        WeightFileError: there are none in the folder.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
    if found is None:
        raise WeightFileError(
            f"{path}: expected a folder with the prior of Kandinsky 2.2, got one without {IN_FOLDERS[0]}. "
            f"{file_kind('kandinsky_prior').where_to_get}"
        )
    return found


def _sizes(path: Path, state: State) -> dict[str, int]:
    hidden_dim, embedding_dim = matrix_shape(path, state, "proj_in.weight")
    feed_forward_dim, _ = matrix_shape(path, state, "transformer_blocks.0.ff.net.0.proj.weight")
    positions = state.get("positional_embedding")
    if positions is None or positions.ndim != 3 or positions.shape[1] <= EXTRA_TOKENS:
        got = "none" if positions is None else f"the shape {list(positions.shape)}"
        raise WeightFileError(
            f"{path}: expected a positional_embedding of the shape [1, 81, {hidden_dim}], got {got}. It is "
            "incomplete or damaged; fetch it again."
        )
    return {
        "embedding_dim": embedding_dim, "hidden_dim": hidden_dim,
        "num_layers": count_layers(path, state, word="transformer_blocks"),
        "feed_forward_dim": feed_forward_dim, "num_slots": positions.shape[1] - EXTRA_TOKENS,
    }


def _statistics(path: Path, state: State, base: StrPath | None, width: int) -> State:
    """The statistics that the operator lacks, from its base."""
    present = [key for key in STATISTICS if key in state]
    if len(present) == 1:
        raise WeightFileError(
            f"{path}: expected both statistics, clip_mean and clip_std, or neither, got only {present[0]}. "
            "It is incomplete; fetch it again."
        )
    if present:
        return {}
    if base is None:
        raise WeightFileError(
            f"{path}: expected the statistics clip_mean and clip_std beside the weights, got an operator "
            "without them. Give the prior of Kandinsky 2.2 as its base, or merge the two with `python -m pit "
            f"convert --base`. {file_kind('kandinsky_prior').where_to_get}"
        )
    return _statistics_of(weights_in(Path(base)), width)


def _statistics_of(base: Path, width: int) -> State:
    state = without_wrappers(read_state(base)[0])
    if not any(key in state for key in SIGNS):
        raise another_file(base, state, "a base with the statistics of a pOps operator")
    missing = [key for key in STATISTICS if key not in state]
    if missing:
        raise WeightFileError(
            f"{base}: expected a base with the statistics clip_mean and clip_std, got a prior without "
            f"{' and '.join(missing)}, such as another operator. {file_kind('kandinsky_prior').where_to_get}"
        )
    found = {key: state[key] for key in STATISTICS}
    for key, value in found.items():
        if list(value.shape) != [1, width]:
            raise WeightFileError(
                f"{base}: expected {key} of the shape {[1, width]}, as wide as the operator, got "
                f"{list(value.shape)}. Take the base that the operator was trained from."
            )
    found = sound(base, found, {key: value.shape for key, value in found.items()})
    _check_deviations(base, found["clip_std"])
    return found


def _check_deviations(path: Path, deviations: Tensor) -> None:
    # Embeddings are divided by them.
    if not bool((computable(deviations) > 0).all()):
        raise WeightFileError(
            f"{path}: expected deviations above 0 in clip_std, got zero or less. It is damaged; fetch it "
            "again."
        )


def _num_heads(path: Path, base: StrPath | None, metadata: Mapping[str, str]) -> int:
    if "num_heads" in metadata:
        return whole_number(path, "num_heads", metadata)
    files = [path] if base is None else [path, weights_in(Path(base))]
    told = (_told_heads(file.with_name("config.json")) for file in files)
    return next((heads for heads in told if heads is not None), DEFAULT_NUM_HEADS)


def _told_heads(path: Path) -> int | None:
    """The head count in diffusers' `config.json` of a prior; None if there is none."""
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise WeightFileError(
            f"{path}: expected readable JSON, got an error ({error}). Repair the file, or move it away."
        ) from error
    # A folder of models may hold the configuration of another one.
    heads = content.get("num_attention_heads") if isinstance(content, dict) else None
    if heads is None:
        return None
    if type(heads) is not int or not 1 <= heads <= MOST_HEADS:
        raise WeightFileError(
            f"{path}: expected a whole number from 1 as num_attention_heads, got {quoted(heads)}. Repair the "
            "file, or move it away."
        )
    return heads
