"""Files of part words: the published mappers with the LoRA beside them, and ours, which hold both."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..files.checked import (
    MOST_LAYERS,
    State,
    StrPath,
    another_file,
    computable,
    filled,
    matrix_shape,
    shapes,
    sound,
    without_wrappers,
)
from ..files.lora import FACTOR, TEXT_ENCODER, read_lora
from ..files.plain_json import parse_json
from ..files.records import KIND, VERSION, WRITTEN_VERSION
from ..files.weights import WeightFileError, read_names, read_state, write_state
from .mapper import TokenMapper
from .prompt import Part, PartWord, Vocabulary, numbered
from .published_names import collection_of, published_names

PART_WORDS, MAPPER = "part_words", "mapper."
# The words and the LoRA of one training, as accelerate and the published trainers name them.
PAIRS = (
    ("pytorch_model_1.bin", "pytorch_model.bin"), ("model_1.safetensors", "model.safetensors"),
    ("hash_mapper.pth", "lora_layers.pth"), ("hash_mapper.pth", "pytorch_lora_weights.safetensors"),
)
MOST_CODES, LONGEST_NAME = 100_000, 100


@dataclass(frozen=True)
class PartWords:
    """Part words, what they are called, and the LoRA that was trained with them.

    Attributes:
        lora: for the UNet, in kohya's layout; empty where there is none.
        source: the file, in words for messages.
        unused: modules of text encoders for which the LoRA file has changes, too.
    """

    mapper: TokenMapper
    vocabulary: Vocabulary
    lora: State
    source: str
    unused: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """The width of a word."""
        return self.mapper.dim

    @torch.no_grad()
    def vectors(self, codes: Tensor, parts: Tensor) -> Tensor:
        """The words `[B,n,d]` of codes `[B,n]` of parts `[B,n]`, in the order of the prompt.

        Raises ValueError for a part or a code that there is not.
        """
        return self.mapper.vectors(codes, parts)

    def of(self, words: Sequence[PartWord]) -> Tensor:
        """A vector for each word, `[n,d]`: the mean of the codes that it mixes."""
        rows = [
            self.vectors(torch.tensor([word.codes]), torch.tensor([[word.part] * len(word.codes)]))[0].mean(0)
            for word in words
        ]
        return torch.stack(rows) if rows else torch.zeros(0, self.dim)


def load_part_words(path: StrPath, vocabulary: Vocabulary | None = None) -> PartWords:
    """The part words in a file, on the CPU in float32, with the LoRA in it or, as published, beside it.

    A folder stands for its checkpoint with the highest number. Numbers of parts, codes and projections are
    read off the tensors. Names are `vocabulary`, else those in the file, else those of the published birds
    or dogs if the name of the file or folder says so, else numbers.

    Raises:
        WeightFileError: not part words, damaged ones, or names that do not fit them.
    """
    path = file_in(Path(path))
    content, metadata = read_state(path)
    state = without_wrappers(content)
    own = {key.removeprefix(MAPPER): value for key, value in state.items() if key.startswith(MAPPER)}
    mapper = _mapper(path, own or state)
    names = vocabulary or _names(path, metadata, mapper)
    check_names(path, names, mapper.num_parts, mapper.num_codes)
    return PartWords(mapper, names, *_lora(path, state if own else {}))


def save_part_words(path: StrPath, words: PartWords, metadata: Mapping[str, str] | None = None) -> None:
    """Write part words with their LoRA and their names as one safetensors file.

    Raises:
        WeightFileError: the file cannot be written.
    """
    state = {MAPPER + key: value for key, value in words.mapper.state_dict().items()}
    facts = {KIND: PART_WORDS, VERSION: WRITTEN_VERSION, "vocabulary": vocabulary_to_json(words.vocabulary)}
    write_state(path, state | words.lora, dict(metadata or {}) | facts)


def file_in(path: Path) -> Path:
    """The file of part words in a folder of checkpoints, or in one of them; a file as it is."""
    if not path.is_dir():
        return path
    found = [(int(each.name[11:]), each) for each in path.glob("checkpoint-*") if each.name[11:].isdecimal()]
    folder = max(found)[1] if found else path
    files = [folder / words for words, _ in PAIRS if (folder / words).is_file()]
    if not files:
        names = ", ".join(dict.fromkeys(words for words, _ in PAIRS))
        raise WeightFileError(
            f"{folder}: expected a file of part words ({names}), got a folder without one. Name the file."
        )
    return files[0]


def _mapper(path: Path, state: State) -> TokenMapper:
    if "embedding.weight" not in state or "pe" not in state:
        if any(map(FACTOR.fullmatch, state)):
            raise _lora_alone(path)
        raise another_file(path, state, "part words of PartCraft")
    parts, dim = matrix_shape(path, state, "pe")
    rows, _ = matrix_shape(path, state, "embedding.weight")
    codes = rows // parts - 1
    if rows % parts or not 1 <= codes <= MOST_CODES:
        raise WeightFileError(
            f"{path}: expected embedding.weight to have as many rows for each of {parts} parts, 2 or more, "
            f"got {rows} rows. It is damaged; fetch it again."
        )
    depth = sum(re.fullmatch(r"projection\.\d{1,4}\.weight", key) is not None for key in state)
    if depth > MOST_LAYERS:
        raise WeightFileError(
            f"{path}: expected at most {MOST_LAYERS} projections, got {depth}. Take the published file."
        )
    empty = TokenMapper(parts, codes, dim, depth, device="meta")
    checked = sound(path, state, shapes(empty))
    # In float32, whatever the file has: the table is small, and the words pass several layers.
    return filled(empty, {key: computable(value).float() for key, value in checked.items()})


def _lora_alone(path: Path) -> WeightFileError:
    words = next((words for words, lora in PAIRS if path.name == lora), "pytorch_model_1.bin")
    return WeightFileError(
        f"{path}: expected part words of PartCraft, got a LoRA alone. The words are in a file beside it, "
        f"such as {words}; load that one, and the LoRA comes with it."
    )


def _lora(path: Path, content: State) -> tuple[State, str, tuple[str, ...]]:
    """The LoRA of part words, what to call the file, and what of the LoRA is for text encoders.

    It is what else the file holds, or stands in the published file beside it.
    """
    inside = [key for key in content if not key.startswith(MAPPER)]
    beside = next(
        (path.with_name(lora) for words, lora in PAIRS
         if path.name == words and path.with_name(lora).is_file()), None
    )
    if not inside and (content or beside is None):
        return {}, path.name, ()
    file = path if inside else beside
    lora = read_lora(file)
    others = tuple(name for name in lora.elsewhere if not name.startswith(MAPPER))
    if lora.adapter or not all(map(TEXT_ENCODER.match, others)):
        raise another_file(file, content or lora.adapter, "part words with a LoRA for a UNet alone")
    return lora.unet, path.name, others


def _names(path: Path, metadata: Mapping[str, str], mapper: TokenMapper) -> Vocabulary:
    if "vocabulary" in metadata:
        return vocabulary_from_json(path, metadata["vocabulary"])
    collection = collection_of(path)
    if collection:
        names = published_names(collection)
        if _fits(names, mapper.num_parts, mapper.num_codes):
            return names
    return numbered(mapper.num_parts, mapper.num_codes)


def names_in(path: StrPath) -> Vocabulary | None:
    """The names that a file of part words tells without being loaded; None if it tells none."""
    path = Path(path)
    try:
        _, metadata = read_names(path)
        found = vocabulary_from_json(path, metadata["vocabulary"]) if "vocabulary" in metadata else None
    except WeightFileError:  # a pickle, or a damaged file, of which its loader tells what is wrong
        found = None
    collection = collection_of(path)
    return published_names(collection) if found is None and collection else found


def _fits(names: Vocabulary, parts: int, codes: int) -> bool:
    return len(names.parts) == parts and all(0 <= part.count <= codes for part in names.parts)


def check_names(path: Path, names: Vocabulary, parts: int, codes: int) -> None:
    """Raise WeightFileError for names of another number of parts, or of more codes, than a file has."""
    if not _fits(names, parts, codes):
        most = max((part.count for part in names.parts), default=0)
        raise WeightFileError(
            f"{path}: expected names of {parts} parts with at most {codes} codes, got {len(names.parts)} "
            f"parts with up to {most}. Choose the names that belong to these words."
        )


def vocabulary_to_json(vocabulary: Vocabulary) -> str:
    """Names as a text for the metadata of a file; the inverse of `vocabulary_from_json`."""
    return json.dumps(asdict(vocabulary))


def vocabulary_from_json(path: Path, text: str) -> Vocabulary:
    """Names from the metadata of a file.

    Raises:
        WeightFileError: they are damaged.
    """
    try:
        content = parse_json(text)
        parts = tuple(
            Part(_name(each["name"]), _count(each["count"]), each["named"] is True)
            for each in content["parts"]
        )
        return Vocabulary(parts, tuple(map(_name, content["classes"])))
    except (ValueError, KeyError, TypeError) as error:
        raise WeightFileError(
            f"{path}: expected the names of parts and classes in its metadata, got damaged ones "
            f"({error!r:.100}). Save it again."
        ) from error


def _name(value: object) -> str:
    # Names become parts of words, <head:cardinal>, where a number is that of a code.
    if not isinstance(value, str) or len(value) > LONGEST_NAME or re.search(r"[<>:|\n]|^\d+$", value):
        raise ValueError("a name")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MOST_CODES:
        raise ValueError("a count")
    return value
