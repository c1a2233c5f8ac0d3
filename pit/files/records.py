"""What our own files say about themselves: what made them, and what tells one model from another."""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..messages import quoted, shortened
from .checked import StrPath
from .plain_json import parse_json
from .weights import WeightFileError, write_state

KIND, VERSION = "piece_it_together", "version"
WRITTEN_VERSION = "1"
SAME_MODEL = 2e-2  # relative distance within which an answer in fp16 or on another device may lie
STAMP_VALUES = 8
FINEST = "fp16"
PRECISIONS = {"e5m2": torch.float8_e5m2, "e4m3": torch.float8_e4m3fn, "bf16": torch.bfloat16}  # coarse first
# How far rounding to a type moves a value at most: relative to it, and where the type has no smaller steps.
ROUNDING = {
    "e5m2": (2**-3, 2**-17), "e4m3": (2**-4, 2**-10), "bf16": (2**-8, 2**-24), FINEST: (2**-11, 2**-24),
}
LONGEST_SOURCE = 300
STAMP_DIGITS = 16  # of a SHA-256: 64 bits, ample to tell apart the few adapters that a user has


@dataclass(frozen=True, kw_only=True)
class Made:
    """A base class for what travels between nodes and into files: it says what made it.

    Attributes:
        source: where it comes from, in words for error messages.
        adapter: stamp of the IP-Adapter that its tokens belong to, see `adapter_stamp`; "" = unknown.
        notes: what it was made from and how, for its file.
    """

    source: str
    adapter: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def of_another_adapter(self, other: Made) -> bool:
        """Whether both IP-Adapters are known and differ."""
        # Published directions do not say which adapter they belong to and must stay usable, so an unknown
        # adapter never counts as another one.
        return bool(self.adapter and other.adapter and not same_adapter(self.adapter, other.adapter))

    def metadata(self, kind: str) -> dict[str, str]:
        """Metadata for a file of this kind; the inverse of `made_by`."""
        return {
            KIND: kind, VERSION: WRITTEN_VERSION, "source": self.source, "adapter": self.adapter,
            "notes": json.dumps(dict(self.notes)),
        }


def write_made(
    path: StrPath, made: Made, kind: str, tensors: Mapping[str, Tensor | None], facts: Mapping[str, str],
) -> None:
    """Write the tensors that are there as float32, and in the metadata what made them and what else is known.

    Raises:
        WeightFileError: the file cannot be written.
    """
    state = {
        key: value.detach().cpu().float().contiguous() for key, value in tensors.items() if value is not None
    }
    write_state(path, state, {**made.metadata(kind), **facts})


def made_by(path: Path, facts: Mapping[str, str], name: str) -> dict[str, Any]:
    """The arguments of `Made` from the metadata of a file that messages call `name`.

    Raises:
        WeightFileError: the notes are damaged.
    """
    source = f"{name}, {facts.get('source', '')}".removesuffix(", ")
    # Messages name the source, and files that are made of this one keep it.
    adapter = shortened(facts.get("adapter", ""), LONGEST_SOURCE)
    return {
        "source": shortened(source, LONGEST_SOURCE), "adapter": adapter, "notes": _notes(path, facts),
    }


def _notes(path: Path, facts: Mapping[str, str]) -> dict[str, str]:
    try:
        notes = parse_json(facts.get("notes", "{}"))
    except ValueError as error:
        raise WeightFileError(f"{path} has notes that cannot be read: {error}. Save it again.") from error
    if not isinstance(notes, dict):
        raise WeightFileError(
            f"{path}: expected named values as its notes, got a {type(notes).__name__}. Save it again."
        )
    return {str(key): str(value) for key, value in notes.items()}


def number(path: Path, name: str, facts: Mapping[str, str]) -> float | None:
    """A number in the metadata, None if it is absent. Raises WeightFileError if it is not a finite number."""
    if name not in facts:
        return None
    try:
        value = float(facts[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise WeightFileError(
            f"{path}: expected a number as its {name}, got {quoted(facts[name])}. Save it again."
        )
    return value


def check_finite(path: Path, key: str, values: Tensor) -> None:
    """Raise WeightFileError unless all values are finite floating-point numbers."""
    if not values.is_floating_point():
        raise WeightFileError(
            f"{path}: expected floating-point numbers in {key}, got {values.dtype}. Save it again as such."
        )
    if not torch.isfinite(values.float()).all():  # isfinite is not implemented for float8
        raise WeightFileError(
            f"{path}: expected finite numbers in {key}, got NaN or infinite values. Fetch it again."
        )


@dataclass(frozen=True)
class Fingerprint:
    """How a model answers a fixed picture: it tells models apart, whatever file they come from.

    Attributes:
        name: what to call the model in messages; not compared.
        numbers: the answer, projected to a few numbers.
        stamp: of an IP-Adapter, see `adapter_stamp`; not compared, "" = unknown.
    """

    name: str
    numbers: tuple[float, ...]
    stamp: str = ""

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are the same weights, even in fp16, on another device or in another file format."""
        if len(self.numbers) != len(other.numbers):
            return False
        # Rounding to fp16 or bf16 moves every answer a little, other weights move it by its own size: a
        # distance relative to the answer separates the two whatever the scale of the model's output.
        return math.dist(self.numbers, other.numbers) <= SAME_MODEL * math.hypot(*self.numbers)


def answers_differ(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two answers to the same input are both known, and not those of one model."""
    # As in `Fingerprint.matches`, in whatever precision and on whatever device the models ran.
    if first is None or second is None:
        return False
    if first.shape != second.shape:
        return True
    a, b = first.double().cpu(), second.double().cpu()
    return bool((a - b).norm() > SAME_MODEL * a.norm())


Models = Mapping[str, "Fingerprint | str"]
"""Models by their role, each as a fingerprint or as a stamp that changes with any weight."""


def differing_models(found: Models, wanted: Models) -> list[str]:
    """The roles in which two sets of models differ."""
    def same(first: Fingerprint | str | None, second: Fingerprint | str | None) -> bool:
        if isinstance(first, Fingerprint) and isinstance(second, Fingerprint):
            return first.matches(second)
        return first == second

    return [part for part in {**found, **wanted} if not same(found.get(part), wanted.get(part))]


def models_to_json(models: Models) -> dict[str, Any]:
    """Plain values; the inverse of `models_from_json`."""
    return {part: each if isinstance(each, str) else asdict(each) for part, each in models.items()}


def models_from_json(content: Mapping[str, Any]) -> dict[str, Fingerprint | str]:
    """Models from plain values. Raises KeyError, TypeError or ValueError for anything else."""
    return {
        part: each if isinstance(each, str) else fingerprint_from_json(each)
        for part, each in content.items()
    }


def fingerprint_from_json(content: Mapping[str, Any]) -> Fingerprint:
    """A fingerprint from plain values; errors as in `models_from_json`."""
    numbers = tuple(map(float, content["numbers"]))
    return Fingerprint(str(content["name"]), numbers, str(content.get("stamp", "")))


def weights_stamp(state: Mapping[str, Tensor]) -> str:
    """A stamp that tells the resampler of one IP-Adapter from another's, whatever the file.

    It covers two tensors in fp16, the precision of the published file, so that a copy widened to fp32 has the
    same stamp.
    """
    digest = hashlib.sha256()
    for key in ("latents", "norm_out.weight"):
        digest.update(state[key].detach().cpu().half().numpy().tobytes())
    return digest.hexdigest()[:STAMP_DIGITS]


def adapter_stamp(state: Mapping[str, Tensor]) -> str:
    """A stamp by which `same_adapter` also knows copies of a resampler that are rounded to other types.

    No hash is the same for them, so that behind that of `weights_stamp` stand the precision of the values and
    eight of them.
    """
    latents = state["latents"].detach().cpu().half().flatten()
    places = torch.linspace(0, len(latents) - 1, STAMP_VALUES).long()
    values = latents[places].numpy().astype("<f2").tobytes().hex()
    return f"{weights_stamp(state)}-{_precision(latents)}-{values}"


def same_adapter(first: str, second: str) -> bool:
    """Whether two stamps may come from one IP-Adapter: the same file, or copies in types of other precision.

    Those that versions up to 0.5.0 have written hold only the hash, and match the same file.
    """
    (hash_a, *more_a), (hash_b, *more_b) = (stamp.split("-") for stamp in (first, second))
    if hash_a == hash_b:
        return True
    try:
        (precision_a, values_a), (precision_b, values_b) = more_a, more_b
        relative, absolute = map(sum, zip(ROUNDING[precision_a], ROUNDING[precision_b], strict=True))
        a, b = (np.frombuffer(bytes.fromhex(values), "<f2").astype(float) for values in (values_a, values_b))
        # Copies that keep fp16 are equal, and then their hashes are.
        if precision_a == precision_b == FINEST or a.shape != b.shape:
            return False
    except (KeyError, ValueError):
        return False
    return bool((np.abs(a - b) <= relative * np.maximum(np.abs(a), np.abs(b)) + absolute).all())


def _precision(values: Tensor) -> str:
    """The coarsest type that holds all values exactly, whatever type they are stored in."""
    fitting = (name for name, dtype in PRECISIONS.items() if torch.equal(values.to(dtype).half(), values))
    return next(fitting, FINEST)


def state_stamp(state: Mapping[str, Tensor]) -> str:
    """A stamp that tells one set of weights from another, by a few numbers of each tensor."""
    digest = hashlib.sha256()
    # Four numbers per tensor instead of all: training moves every tensor, and hashing gigabytes takes long.
    for key, value in state.items():
        digest.update(f"{key} {list(value.shape)} {value.flatten()[:4].tolist()}".encode())
    return digest.hexdigest()
