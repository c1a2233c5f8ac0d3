"""Strengths of a LoRA for single blocks of a UNet."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

BLOCK = re.compile(r"(?:diffusion_model\.)?(?:(input|output)_blocks\.(\d+)|(middle)_block)\.")
BLOCK_NAME = re.compile(r"(in|out|mid)(?:(\d{1,2})(?:-(\d{1,2}))?)?")  # no UNet has 100 blocks


@dataclass(frozen=True)
class BlockStrengths:
    """Strengths of a UNet's blocks by name: `in4`, `mid`, `out0`; `in` and `out` stand for all of theirs."""

    values: Mapping[str, float]

    def of(self, path: str) -> float:
        """The strength for a module path in the original layout; 1 for blocks that are not named."""
        match = BLOCK.match(path)
        if not match:
            return 1.0
        # The strength of the single block goes before that of its kind: `in=0.5, in4=1` spares block 4.
        kind = "mid" if match[3] else {"input": "in", "output": "out"}[match[1]]
        return self.values.get(f"{kind}{match[2] or ''}", self.values.get(kind, 1.0))


def parse_block_strengths(text: str) -> BlockStrengths:
    """Strengths from a text such as `in=0.5, mid=1, out0-2=0`.

    Raises:
        ValueError: an entry is not the name of a block with a number, or the text is longer than any list of
            blocks.
    """
    if len(text) > 10_000:
        raise ValueError(
            f"Expected strengths of blocks in at most 10,000 characters, got {len(text)}. Remove some."
        )
    values: dict[str, float] = {}
    for entry in filter(None, (entry.strip() for entry in re.split(r"[,;\n]", text))):
        name, _, number = (word.strip() for word in entry.partition("="))
        match = BLOCK_NAME.fullmatch(name)
        try:
            strength = float(number)
        except ValueError:
            strength = math.nan
        first, last = (match[2], match[3] or match[2]) if match else (None, None)
        # A range that runs backwards names no block, and would be dropped without a word.
        backwards = first is not None and int(last) < int(first)
        if not match or not math.isfinite(strength) or (match[1] == "mid" and first) or backwards:
            raise ValueError(
                "Expected strengths of blocks such as in=0.5, in4=1, mid=0 or out0-2=0.8, separated by "
                f"commas, got {entry[:100]!r}. Correct or remove it."
            )
        numbers = [""] if first is None else range(int(first), int(last) + 1)
        values |= {f"{match[1]}{number}": strength for number in numbers}
    return BlockStrengths(values)
