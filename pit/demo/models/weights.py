"""The shipped weight files of the miniature models."""
from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ...files.weights import WeightFileError, read_state
from ...files.whole import sha256_of
from .library import FOLDER
from .sizes import TEXT_VOCABULARY
from .words import KNOWN_IDS

RENDERER, SD15, AUTOENCODER, VISION, IP_ADAPTER, BASE_ADAPTER, IP_PRIOR, READER, PREVIEW = (
    f"creature_{name}.safetensors"
    for name in (
        "renderer", "sd15", "autoencoder", "vision", "ip_adapter", "base_adapter", "ip_prior", "reader",
        "preview",
    )
)
BASE_STAMP = "base"  # in files that another system has trained on the base of SD 1.5's structure
WORD_TABLE = "text_model.embeddings.token_embedding.weight"
VERSION = "3"  # to be raised with any change after which old files no longer fit the code or each other


def weight_file(name: str) -> Path:
    """The path of a shipped weight file.

    Raises:
        WeightFileError: it is missing, damaged, or of another version.
    """
    path = _shipped(name)
    _check_version(name, read_state(path)[1])
    return path


def read_weights(name: str) -> dict[str, Tensor]:
    """The tensors of a shipped weight file.

    Raises:
        WeightFileError: it is missing, damaged, or of another version.
    """
    state, metadata = read_state(_shipped(name))
    _check_version(name, metadata)
    return with_all_words(state)


def float_weights(name: str) -> dict[str, Tensor]:
    """The tensors of a shipped weight file in fp32; errors as in `read_weights`."""
    return {key: value.float() for key, value in read_weights(name).items()}


def base_stamp() -> str:
    """A text that is different for every version of the base of SD 1.5's structure.

    Raises:
        WeightFileError: it is missing, damaged, or of another version.
    """
    return sha256_of(weight_file(SD15))


def check_base(path: Path, stage: str) -> None:
    """Check that a file of a stage of training was made from the base that is shipped.

    Raises:
        WeightFileError: it was made from another, or one of the two is missing or damaged.
    """
    _, metadata = read_state(path)
    if metadata.get(BASE_STAMP) != base_stamp():
        raise WeightFileError(
            f"Expected {path.name} to be made from the {SD15} beside it, got one made from another. Install "
            f"the pack again, or train it with: python -m pit demo-train --stage {stage}"
        )


def _shipped(name: str) -> Path:
    path = FOLDER / name
    if not path.is_file():
        raise WeightFileError(
            f"Expected {name} of the creature models in {FOLDER}, got no such file. Install the pack again, "
            "or train the models with: python -m pit demo-train"
        )
    return path


def _check_version(name: str, metadata: dict[str, str]) -> None:
    if metadata.get("version") != VERSION:
        raise WeightFileError(
            f"Expected version {VERSION} of the creature models, got version {metadata.get('version')} of "
            f"{name}. Install the pack again."
        )


def with_prefix(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose keys begin with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def without_unused_words(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of text encoders whose tables hold only the words of captions, row by row as in `KNOWN_IDS`.

    The other rows, which no caption has trained, are most of such a small encoder.
    """
    return {
        key: value[list(KNOWN_IDS)] if key.endswith(WORD_TABLE) else value for key, value in state.items()
    }


def with_all_words(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `without_unused_words`; words that no caption has are zero, and so say nothing."""
    return {key: _full_table(value) if key.endswith(WORD_TABLE) else value for key, value in state.items()}


def _full_table(rows: Tensor) -> Tensor:
    table = rows.new_zeros(TEXT_VOCABULARY, rows.shape[1])
    table[list(KNOWN_IDS)] = rows
    return table
