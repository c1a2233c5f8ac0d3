"""The stack machine of pickles, which imports, calls and builds nothing by itself.

What each opcode leaves on the stack is said by a dialect; what no dialect names is refused.
"""
from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO

from .archives import UnsoundPickle

MOST_OPCODES = 300_000  # a tensor takes about 25

Value = Callable[[object], object]
Step = Callable[["StackMachine", object], object]


class _Mark:
    """Where the items of a tuple, list or dict begin on the stack."""


MARK = _Mark()


def require(condition: bool) -> None:
    """Raises UnsoundPickle unless the condition holds."""
    if not condition:
        raise UnsoundPickle("weights, got a damaged file, or a pickle of something else. Fetch it again.")


class StackMachine:
    """Follows a pickle on a stack, with a memo of what was there before."""

    def __init__(self, dialect: Dialect):
        self.dialect = dialect
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}

    def run(self, stream: BytesIO, most: int = MOST_OPCODES) -> object:
        """What is left on the stack at the end; the stream then stands behind the pickle.

        Raises:
            UnsoundPickle: it is too long, or has an opcode that the dialect does not name.
            Exception: of any kind, for a damaged pickle.
        """
        dialect = self.dialect
        for _ in range(most):
            code = stream.read(1)
            require(code != b"")
            opcode = dialect.opcodes.get(code)
            if opcode is None:
                raise UnsoundPickle(
                    f"a pickle that torch.save has written, got one with the opcode {code!r}. Take the "
                    ".safetensors file."
                )
            argument = opcode.arg.reader(stream) if opcode.arg else None
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in dialect.values:
                self.stack.append(dialect.values[opcode.name](argument))
            else:
                dialect.steps[opcode.name](self, argument)
        raise UnsoundPickle(f"at most {most} opcodes in a pickle, got more. Save only the tensors.")

    def after_mark(self) -> list[object]:
        """Take what lies above the last mark off the stack, and the mark."""
        items: list[object] = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def last(self, count: int) -> list[object]:
        """Take the last items off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])


# What every dialect reads alike, by the names of pickletools.
PLAIN_VALUES: Mapping[str, Value] = {
    "MARK": lambda argument: MARK, "NONE": lambda argument: None, "EMPTY_TUPLE": lambda argument: (),
    "NEWTRUE": lambda argument: True, "NEWFALSE": lambda argument: False,
}
PLAIN_STEPS: Mapping[str, Step] = {
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), StackMachine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), StackMachine.get),
    "TUPLE": lambda pickle, _: pickle.stack.append(tuple(pickle.after_mark())),
    "TUPLE1": lambda pickle, _: pickle.stack.append(tuple(pickle.last(1))),
    "TUPLE2": lambda pickle, _: pickle.stack.append(tuple(pickle.last(2))),
    "TUPLE3": lambda pickle, _: pickle.stack.append(tuple(pickle.last(3))),
}


@dataclass(frozen=True)
class Dialect:
    """What opcodes mean, by the names of pickletools: `values` push something, `steps` do all else."""

    values: Mapping[str, Value]
    steps: Mapping[str, Step]
    opcodes: Mapping[bytes, pickletools.OpcodeInfo] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {**PLAIN_VALUES, **self.values})
        object.__setattr__(self, "steps", {**PLAIN_STEPS, **self.steps})
        known = {*self.values, *self.steps, "STOP"}
        # Rather than `pickletools.genops`, which decodes the arguments of forbidden opcodes as well.
        by_code = {
            opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes if opcode.name in known
        }
        object.__setattr__(self, "opcodes", by_code)
