"""Pickles by torch, looked through before torch opens them: nothing but plain tensors in plain containers.

torch's own `weights_only` runs no foreign code. But a pickle of a few bytes can still have it allocate
gigabytes (a call of `bytearray`, a storage or a stride that the file does not hold) or compute forever (a key
that is a tuple of tuples, 60 deep). So the opcodes are followed here on a stack of placeholders, where
nothing is built and everything is counted.
"""
from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from .archives import LONGEST_PICKLE, UnsoundPickle, bounded, is_compressed, pickle_in
from .pickle_machine import Dialect, StackMachine, require

MOST_IN_HEAD = 1_000  # opcodes of what stands before the weights in a legacy file
MOST_CALLS = 50_000  # of functions and for storages: a tensor takes 3 to 5, and each costs torch much time
MOST_ARGUMENTS = 8  # of a call
MOST_ATTRIBUTES = 16  # of a tensor, or of the state of a module
LONGEST_KEY = 512
LARGEST_NUMBER = 2**63
MOST_DIMENSIONS = 16
MAGIC_NUMBER, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # how torch's files before 1.6 begin

ITEM_SIZES = {
    "torch.DoubleStorage": 8, "torch.FloatStorage": 4, "torch.HalfStorage": 2, "torch.BFloat16Storage": 2,
    "torch.LongStorage": 8, "torch.IntStorage": 4, "torch.ShortStorage": 2, "torch.CharStorage": 1,
    "torch.ByteStorage": 1, "torch.BoolStorage": 1, "torch.ComplexFloatStorage": 8,
    "torch.ComplexDoubleStorage": 16, "torch.storage.UntypedStorage": 1,
    # Types without a storage of their own, which stand in the call that rebuilds the tensor.
    "torch.float8_e4m3fn": 1, "torch.float8_e5m2": 1, "torch.float8_e4m3fnuz": 1, "torch.float8_e5m2fnuz": 1,
    "torch.float8_e8m0fnu": 1, "torch.uint16": 2, "torch.uint32": 4, "torch.uint64": 8,
}
TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")


class Thing(Enum):
    """What is only known by its kind."""

    LIST, TENSOR = range(2)


@dataclass(eq=False)
class Table:
    """A dict, of which only the number of items is known."""

    ordered: bool = False
    items: int = 0


@dataclass(frozen=True)
class Global:
    """A class or function, by its full name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A piece of memory that the file claims to hold."""

    items: int
    item_size: int


def check_pickle(path: Path) -> bool:
    """Look through a pickle by torch, a zip archive or a legacy one; whether its storages can be mapped.

    Raises:
        UnsoundPickle: it holds more than plain tensors, or claims more than the file has.
        Exception: of any kind, for a damaged file.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return _check_archive(path, file)
        file.seek(0)
        _check_legacy(file, path.stat().st_size)
    return False


def _check_archive(path: Path, file: BinaryIO) -> bool:
    with zipfile.ZipFile(file) as archive:
        content, sizes = pickle_in(archive, path.stat().st_size)
        compressed = is_compressed(archive)
    Inspection(sizes).run(content)
    # Compressed bytes would become weights: finite garbage.
    return not compressed


def _check_legacy(file: BinaryIO, size: int) -> None:
    stream = bounded(file.read(min(size, LONGEST_PICKLE)))
    magic, protocol = (Inspection({}).run(stream, MOST_IN_HEAD) for _ in range(2))
    if magic != MAGIC_NUMBER or protocol != PROTOCOL:
        raise UnsoundPickle("weights that torch has saved, got another pickle. Take the published file.")
    # The machine that saved it, the content, and the order in which the storages follow.
    Inspection({}).run(stream, MOST_IN_HEAD)
    Inspection(None, size).run(stream)
    Inspection({}).run(stream)


class Inspection(StackMachine):
    """Follows a pickle without building anything.

    Args:
        storages: bytes that the file holds of each storage, by its key; None if they are not known each.
        room: bytes that the file holds of all storages together, where they are not known each.
    """

    def __init__(self, storages: Mapping[str, int] | None, room: int = 0):
        super().__init__(DIALECT)
        self.storages, self.room = storages, room
        self.claimed: dict[str, int] = {}
        self.claimed_in_all = 0
        self.calls = 0

    def append(self, items: list[object]) -> None:
        require(self.stack[-1] is Thing.LIST)

    def set_items(self, items: list[object]) -> None:
        table = self.stack[-1]
        require(isinstance(table, Table) and len(items) % 2 == 0)
        table.items += len(items) // 2
        for key in items[::2]:
            # Of no other kind: torch hashes the keys, which for nested tuples can take forever.
            if not _is_number(key) and not (isinstance(key, str) and len(key) <= LONGEST_KEY):
                raise UnsoundPickle(
                    f"names of at most {LONGEST_KEY} characters and numbers as keys, got another kind. Take "
                    "the published file."
                )

    def build(self) -> None:
        # The metadata that torch attaches to the state of a module, copied item by item each time.
        attributes, table = self.stack.pop(), self.stack[-1]
        require(attributes is not None and _are_attributes(attributes))
        require(isinstance(table, Table) and table.ordered)

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        require(isinstance(function, Global) and _are_arguments(arguments))
        self.count_call()
        self.stack.append(self.result_of(function.name, arguments))

    def count_call(self) -> None:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise UnsoundPickle(
                f"at most {MOST_CALLS} calls that make tensors, got more. Save only the tensors."
            )

    def result_of(self, name: str, arguments: tuple[object, ...]) -> object:
        """What a call of an allowed function would give."""
        if name not in CALLS:
            raise foreign(name)
        return CALLS[name](*arguments)

    def storage(self) -> None:
        described = self.stack.pop()
        require(_are_arguments(described))
        self.count_call()
        kind, storage_type, key, location, items, *view = described
        require(kind == "storage" and isinstance(key, str) and isinstance(location, str))
        require(isinstance(storage_type, Global) and _is_number(items) and view in ([], [None]))
        storage = Storage(items, ITEM_SIZES[storage_type.name])
        held = self.room if self.storages is None else self.storages.get(key, 0)
        before = self.claimed.get(key, 0)
        self.claimed[key] = max(before, items * storage.item_size)
        self.claimed_in_all += self.claimed[key] - before
        claimed = self.claimed_in_all if self.storages is None else self.claimed[key]
        if claimed > held:
            raise UnsoundPickle(
                f"tensors whose values lie in the file, got {claimed} bytes of which it holds {held}. It is "
                "damaged or truncated; fetch it again."
            )
        self.stack.append(storage)


def foreign(name: str) -> UnsoundPickle:
    """The error for a class or function that no plain tensor needs."""
    return UnsoundPickle(
        f"nothing but plain tensors in a PyTorch pickle, got {name[:100]}. It was not opened, since anything "
        "else can run code. Take the .safetensors file, or one from a source that you trust."
    )


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < LARGEST_NUMBER


def _number(value: int) -> int:
    # The magic number of legacy files has 80 bits; text of very long numbers is refused by Python itself.
    require(abs(value) < LARGEST_NUMBER or value == MAGIC_NUMBER)
    return value


def _global(name: str) -> Global:
    name = name.replace(" ", ".", 1)
    if name not in ALLOWED:
        raise foreign(name)
    return Global(name)


def _are_arguments(value: object) -> bool:
    # Few: a call copies them, and one tuple can be handed to any number of calls.
    return isinstance(value, tuple) and len(value) <= MOST_ARGUMENTS


def _are_attributes(value: object) -> bool:
    # Few, for the same reason.
    return value is None or isinstance(value, Table) and value.items <= MOST_ATTRIBUTES


def _tensor(
    storage: object, offset: object, size: object, stride: object, grad: object = None, hooks: object = None,
    metadata: object = None,
) -> Thing:
    require(_are_attributes(metadata))
    return _view(storage, offset, size, stride, storage.item_size if isinstance(storage, Storage) else 0)


def _tensor_of_type(
    storage: object, offset: object, size: object, stride: object, grad: object, hooks: object, dtype: object,
    metadata: object = None,
) -> Thing:
    require(isinstance(dtype, Global) and _are_attributes(metadata))
    return _view(storage, offset, size, stride, ITEM_SIZES[dtype.name])


def _view(storage: object, offset: object, size: object, stride: object, item_size: int) -> Thing:
    """A tensor that looks at a storage, once it is certain that it does not look beyond its end."""
    require(isinstance(storage, Storage) and _is_number(offset) and _are_numbers(size, stride))
    # Otherwise torch would make the storage larger, as large as the file says.
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    require(0 in size or (last + 1) * item_size <= storage.items * storage.item_size)
    return Thing.TENSOR


def _are_numbers(*rows: object) -> bool:
    return all(
        isinstance(row, tuple) and len(row) <= MOST_DIMENSIONS and all(map(_is_number, row)) for row in rows
    )


def _parameter(tensor: object, grad: object, hooks: object, attributes: object = None) -> Thing:
    require(tensor is Thing.TENSOR and _are_attributes(attributes))
    return Thing.TENSOR


def _ordered_dict(*items: object) -> Table:
    require(not items)
    return Table(ordered=True)


def _size(numbers: object) -> tuple[int, ...]:
    require(_are_numbers(numbers))
    return numbers


def _with_attributes(function: object, kind: object, arguments: object, attributes: object) -> Thing:
    """A tensor with attributes of its own."""
    require(isinstance(function, Global) and function.name in REBUILDS and _are_arguments(arguments))
    require(isinstance(kind, Global) and kind.name in TENSOR_CLASSES and _are_attributes(attributes))
    return REBUILDS[function.name](*arguments)


REBUILDS: Mapping[str, Callable[..., Thing]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
CALLS: Mapping[str, Callable[..., object]] = {
    **REBUILDS,
    "torch._tensor._rebuild_from_type_v2": _with_attributes,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
}
ALLOWED = {*CALLS, *ITEM_SIZES, *TENSOR_CLASSES}

DIALECT = Dialect(
    values={
        "EMPTY_LIST": lambda argument: Thing.LIST, "EMPTY_DICT": lambda argument: Table(), "GLOBAL": _global,
        **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _number),
        **dict.fromkeys(("BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"), lambda argument: argument),
    },
    steps={
        "PROTO": lambda pickle, version: require(version == 2),
        "APPEND": lambda pickle, _: pickle.append(pickle.last(1)),
        "APPENDS": lambda pickle, _: pickle.append(pickle.after_mark()),
        "SETITEM": lambda pickle, _: pickle.set_items(pickle.last(2)),
        "SETITEMS": lambda pickle, _: pickle.set_items(pickle.after_mark()),
        "REDUCE": lambda pickle, _: pickle.call(),
        "BUILD": lambda pickle, _: pickle.build(),
        "BINPERSID": lambda pickle, _: pickle.storage(),
    },
)
