"""IP-Prior files: `prior.ckpt` with `cfg.yaml` as published (github.com/eladrich/PiT), and ours."""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import Tensor

from ..files.checked import (
    State,
    StrPath,
    another_file,
    count_layers,
    filled,
    matrix_shape,
    shapes,
    sound,
    whole_number,
    without_wrappers,
)
from ..files.weights import WeightFileError, read_state, write_state
from ..files.whole import read_small
from ..messages import quoted
from .prior import IPPrior

DEFAULT_NUM_HEADS = 32  # the default of the published trainer
ADAPTER = "adapter"  # of the metadata
FIRST_CREATURES = "creature_ip_adapter.safetensors"  # as trainings up to version 0.5.0 have noted it
PRIOR_SIGNS = ("x_embedder.weight", "layers.0.feed_forward.w1.weight", "final_layer.linear.weight")


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of an IP-Prior, and what its tokens are.

    Attributes:
        use_ref: whether its first slot holds a reference; None if no file says so.
        adapter: stamp of the IP-Adapter on whose tokens it was trained, "" = unknown; see
            `pit.files.records.adapter_stamp`.
    """

    embedding_dim: int
    hidden_dim: int
    num_layers: int
    num_heads: int
    feed_forward_dim: int
    use_ref: bool | None = None
    adapter: str = ""


def read_prior(path: StrPath, num_heads: int | None = None) -> tuple[PriorConfig, State]:
    """Sizes and weights of an IP-Prior file, complete and finite, without what trainings put before the keys.

    Layers and widths are read off the tensors. The head count, which weights do not tell, is `num_heads` if
    given, else that of `cfg.yaml` beside the file, else that of the file's metadata, else 32. Weights keep
    their type, except that float64 becomes float32.

    Raises:
        WeightFileError: not an IP-Prior, a damaged one, a `cfg.yaml` that is damaged or of another prior, a
            head count that does not divide the width, or one for the creature models of version 0.5.0.
    """
    path = Path(path)
    state, metadata = read_state(path)
    state = without_wrappers(state)
    # Any sign is enough: an incomplete prior is to be named as one, not as a file of another kind.
    if not any(key in state for key in PRIOR_SIGNS):
        raise another_file(path, state, "an IP-Prior")
    adapter = metadata.get(ADAPTER, "")
    # Whatever has been trained since says which adapter's tokens it knows.
    if not adapter and metadata.get("ip_adapter") == FIRST_CREATURES:
        raise WeightFileError(
            f"{path}: expected a prior for the creature models of today, got one for those of version 0.5.0, "
            "whose tokens mean something else. Encode its dataset again, and train it anew."
        )
    sizes = _prior_sizes(path, state)
    notes = prior_notes(path, metadata, sizes)
    heads = num_heads if num_heads is not None else notes.get("num_attention_heads", DEFAULT_NUM_HEADS)
    # Even, because rotary embedding turns pairs of values within a head.
    if heads < 1 or sizes["hidden_dim"] % (2 * heads):
        raise WeightFileError(
            f"{path}: expected a width that splits into {heads} heads of even width, got a width of "
            f"{sizes['hidden_dim']}. Give the right num_heads, or put the prior's cfg.yaml beside the file."
        )
    config = PriorConfig(**sizes, num_heads=heads, use_ref=notes.get("use_ref"), adapter=adapter)
    return config, sound(path, state, shapes(empty_prior(config)))


def load_prior(path: StrPath, num_heads: int | None = None) -> IPPrior:
    """The IP-Prior in a file, on the CPU, for inference; head count and errors as in `read_prior`.

    Its type is that of the file; a file of mixed types gives a float32 module, so that it runs.
    """
    config, state = read_prior(path, num_heads)
    return filled(empty_prior(config), state)


def save_prior(path: StrPath, state: Mapping[str, Tensor], config: PriorConfig,
               metadata: Mapping[str, str] | None = None) -> None:
    """Write an IP-Prior as safetensors; head count, use of a reference and adapter go into the metadata."""
    facts = {"num_heads": str(config.num_heads)}
    if config.use_ref is not None:
        facts["use_ref"] = str(config.use_ref).lower()
    if config.adapter:
        facts[ADAPTER] = config.adapter
    write_state(path, state, dict(metadata or {}) | facts)


def _prior_sizes(path: Path, state: State) -> dict[str, int]:
    hidden_dim, embedding_dim = matrix_shape(path, state, "x_embedder.weight")
    feed_forward_dim, _ = matrix_shape(path, state, "layers.0.feed_forward.w1.weight")
    return {
        "embedding_dim": embedding_dim,
        "hidden_dim": hidden_dim,
        "num_layers": count_layers(path, state),
        "feed_forward_dim": feed_forward_dim,
    }


def empty_prior(config: PriorConfig) -> IPPrior:
    """An IP-Prior of these sizes on the meta device: shapes without memory, to check and to fill."""
    return IPPrior(config.embedding_dim, config.hidden_dim, config.num_layers, config.num_heads,
                   feed_forward_dim=config.feed_forward_dim, device="meta")


# What a reader of the weights needs of all that the published training writes into cfg.yaml. The rest is
# ignored, so that files of later versions of it can be read.
LONGEST_YAML, LARGEST_NOTE = 32_000, 999_999  # bytes; the published ones have 2,000
NOTES = {"num_attention_heads": int, "hidden_dim": int, "num_layers": int, "use_ref": bool}


def prior_notes(path: Path, metadata: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, int | bool]:
    """What `cfg.yaml` beside a prior says, else the file's metadata, under the names used in `cfg.yaml`.

    Raises:
        WeightFileError: either is damaged, or `cfg.yaml` belongs to a prior of other sizes.
    """
    notes: dict[str, int | bool] = {}
    if "num_heads" in metadata:
        notes["num_attention_heads"] = whole_number(path, "num_heads", metadata)
    if metadata.get("use_ref", "").lower() in ("true", "false"):
        notes["use_ref"] = metadata["use_ref"].lower() == "true"
    notes |= _cfg_yaml(path.with_name("cfg.yaml"))
    # Sizes come from the weights; where cfg.yaml contradicts them, its head count is another prior's, too.
    for name in ("hidden_dim", "num_layers"):
        if notes.get(name, sizes[name]) != sizes[name]:
            raise WeightFileError(
                f"{path}: expected a {name} of {notes[name]}, as the cfg.yaml beside it says, got "
                f"{sizes[name]}, so that cfg.yaml belongs to another prior. Keep each prior with its own "
                "cfg.yaml in a folder of its own."
            )
    return notes


class _PlainLoader(yaml.SafeLoader):
    """Without aliases and merge keys, by which a text of a few lines grows into gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("expected values, got an alias of another value")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("expected names and values, got a merge key")


def _cfg_yaml(path: Path) -> dict[str, int | bool]:
    if not os.path.lexists(path):
        return {}
    advice = "Repair the file, or move it away and give num_heads."
    try:
        content = _PlainLoader(read_small(path, LONGEST_YAML).decode("utf-8")).get_single_data()
    except Exception as error:  # besides errors of YAML, its dates and numbers raise others
        reason = " ".join(str(error).split())
        raise WeightFileError(f"{path}: expected readable YAML, got an error ({reason}). {advice}") from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise WeightFileError(f"{path}: expected lines of the form `name: value`, got a {found}. {advice}")
    notes = {name: content[name] for name in NOTES if content.get(name) is not None}
    for name, value in notes.items():
        # Not isinstance, for which True is an int.
        if type(value) is not NOTES[name] or not 0 <= value <= LARGEST_NOTE:
            expected = NOTES[name].__name__
            raise WeightFileError(f"{path}: expected {name} to be {expected}, got {quoted(value)}. {advice}")
    return notes
