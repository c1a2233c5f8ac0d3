"""The tensors in a pickle of another library's objects, without that library and without running anything.

Such a pickle names classes and functions to call. Here none is imported or called: what a pickle would make
of them becomes a note of their names and of the attributes that they would get, in which the tensors stand.
"""
from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .archives import UnsoundPickle, pickle_in, root_of
from .pickle_machine import Dialect, StackMachine
from .pickles import MOST_DIMENSIONS

TYPES = {
    "torch FloatStorage": torch.float32, "torch HalfStorage": torch.float16,
    "torch DoubleStorage": torch.float64, "torch BFloat16Storage": torch.bfloat16,
}
REBUILD, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ATTRIBUTES = ("_buffers", "_parameters")  # where a torch module keeps its tensors
MOST_BYTES = 512_000_000  # of one tensor


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names."""

    name: str


@dataclass(eq=False)
class Foreign:
    """What a call of a class or function would have made, and the attributes that it would have got."""

    name: str
    attributes: object = None

    def get(self, name: str) -> object:
        """An attribute, or a tensor of a torch module; None if it is not there."""
        own = self.attributes if isinstance(self.attributes, dict) else {}
        places = [own, *(own[place] for place in ATTRIBUTES if isinstance(own.get(place), dict))]
        return next((place[name] for place in places if name in place), None)


@dataclass(frozen=True)
class TensorAt:
    """A tensor that is still in the file."""

    storage: str
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def outline_of(path: Path) -> object:
    """What a file by torch (1.6 or later) holds: plain containers, with `Foreign` and `TensorAt` in them.

    Raises:
        UnsoundPickle: it claims more than the file has.
        Exception: of any kind, for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        content, _ = pickle_in(archive, path.stat().st_size)
    return _Outline(DIALECT).run(content)


def tensor_at(path: Path, place: TensorAt) -> Tensor:
    """The tensor at a place in the file; errors as in `outline_of`."""
    numbers = (place.offset, *place.size, *place.stride)
    item, rank = place.dtype.itemsize, len(place.size)
    plain = all(type(number) is int and number >= 0 for number in numbers)
    if not plain or rank != len(place.stride) or rank > MOST_DIMENSIONS:
        raise UnsoundPickle("a plain tensor, got one with strange sizes. Fetch the file again.")
    last = place.offset + sum((size - 1) * step for size, step in zip(place.size, place.stride, strict=True))
    with zipfile.ZipFile(path) as archive:
        record = archive.getinfo(f"{root_of(archive)}/data/{place.storage}")
        # Before anything is read: each number must lie in the record, and none of them twice.
        needed = max((last + 1) * item, math.prod(place.size) * item)
        if needed > record.file_size or record.file_size > MOST_BYTES:
            raise UnsoundPickle(
                f"a tensor whose values lie in its {record.file_size} bytes, got one that needs {needed}. "
                "The file is damaged; fetch it again."
            )
        values = torch.frombuffer(bytearray(archive.read(record)), dtype=place.dtype)
    return values.as_strided(place.size, place.stride, place.offset).clone()


class _Outline(StackMachine):
    """Follows a pickle, with notes in the place of all that would be called."""

    def add(self, items: list[object]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_items(self, items: list[object]) -> None:
        # Of keys that are containers, the hash alone could take forever.
        if isinstance(self.stack[-1], dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            self.stack[-1].update({key: value for key, value in pairs if type(key) in (str, int)})

    def build(self) -> None:
        attributes, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Foreign):
            target.attributes = attributes

    def storage(self) -> None:
        kind, storage_type, key, *_ = self.stack.pop()
        self.stack.append((kind, storage_type, key))

    def call(self, count: int = 2) -> None:
        # Arguments with names come last, where a new object has any.
        function, arguments, *_ = self.last(count)
        self.stack.append(_result(function, arguments))

    def named_by_stack(self) -> None:
        module, name = self.last(2)
        self.stack.append(Name(f"{module} {name}"))


def _result(function: object, arguments: object) -> object:
    """What stands for the result of a call."""
    name = function.name if isinstance(function, Name) else ""
    if name == "collections OrderedDict":
        return {}
    if name == PARAMETER:
        return arguments[0]
    if name == REBUILD:
        (_, storage_type, key), offset, size, stride, *_ = arguments
        if storage_type.name in TYPES:
            return TensorAt(str(key), TYPES[storage_type.name], offset, tuple(size), tuple(stride))
    return Foreign(name)


DIALECT = Dialect(
    values={
        "EMPTY_LIST": lambda argument: [], "EMPTY_DICT": lambda argument: {},
        "EMPTY_SET": lambda argument: Foreign("set"), "GLOBAL": Name,
        **dict.fromkeys(
            ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
             "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
            lambda argument: argument,
        ),
    },
    steps={
        **dict.fromkeys(("PROTO", "FRAME"), lambda pickle, _: None),
        "MEMOIZE": StackMachine.put,
        "APPEND": lambda pickle, _: pickle.add(pickle.last(1)),
        **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda pickle, _: pickle.add(pickle.after_mark())),
        "SETITEM": lambda pickle, _: pickle.set_items(pickle.last(2)),
        "SETITEMS": lambda pickle, _: pickle.set_items(pickle.after_mark()),
        "POP": lambda pickle, _: pickle.stack.pop(), "POP_MARK": lambda pickle, _: pickle.after_mark(),
        **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda pickle, _: pickle.call()),
        "NEWOBJ_EX": lambda pickle, _: pickle.call(3), "BUILD": lambda pickle, _: pickle.build(),
        "STACK_GLOBAL": lambda pickle, _: pickle.named_by_stack(),
        "BINPERSID": lambda pickle, _: pickle.storage(),
    },
)
