"""How much image tokens count in each block of a UNet: presets, and tables that people write.

Blocks have the names that ComfyUI gives them, such as `output_1`, and a transformer in one of them may be
named alone, `output_1.3`. Which blocks hold style and composition: InstantStyle (arXiv 2404.02733) for SDXL,
and for Stable Diffusion 1.5 what the field has found by trying.
"""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..messages import ShortError, quoted
from ..unet import AttentionLayer

MOST_LETTERS, LARGEST = 10_000, 10.0
LESS = 0.2  # what a weakened block keeps
FAINT = 0.05  # what the last block of an ease keeps

_ENTRY = re.compile(r"((?:input|middle|output)_\d{1,3}(?:\.\d{1,3})?)\s*[:=]\s*(\S+)")

Weights = Mapping[str, float]


def _blocks(kind: str, *numbers: int, weight: float = 1.0) -> dict[str, float]:
    return {f"{kind}_{number}": weight for number in numbers}


SDXL = {**_blocks("input", 4, 5, 7, 8), **_blocks("middle", 0), **_blocks("output", *range(6))}
SD15 = {**_blocks("input", 1, 2, 4, 5, 7, 8), **_blocks("middle", 0), **_blocks("output", *range(3, 12))}

STYLE = {
    "SDXL": _blocks("output", 1),
    "Stable Diffusion 1.5": {**_blocks("input", 1, 2, 4, 5), **_blocks("output", *range(5, 12))},
}
COMPOSITION = {
    "SDXL": _blocks("input", 8),
    "Stable Diffusion 1.5": {**_blocks("input", 7, weight=0.25), **_blocks("input", 8)},
}
KINDS = {"SDXL": SDXL, "Stable Diffusion 1.5": SD15}


def _without(blocks: Weights, others: Weights) -> dict[str, float]:
    return {name: weight for name, weight in blocks.items() if name not in others}


# By kind of UNet: other blocks count nothing.
BY_KIND: dict[str, dict[str, Weights]] = {
    "style": STYLE,
    "strong style": {kind: _without(blocks, COMPOSITION[kind]) for kind, blocks in KINDS.items()},
    "composition": COMPOSITION,
    "style and composition": {kind: {**COMPOSITION[kind], **STYLE[kind]} for kind in KINDS},
}
# By the kind of a block, of any UNet.
BY_BLOCK: dict[str, Weights] = {
    "strong middle": {"input": LESS, "output": LESS},
    "weak input": {"input": LESS},
    "weak middle": {"middle": LESS},
    "weak output": {"output": LESS},
}
# By how far a block is on the way through a UNet, from 0 to below 1.
BY_PLACE: dict[str, Callable[[float], float]] = {
    "ease in": lambda place: 1 - place,
    "ease out": lambda place: place,
    "ease in and out": lambda place: 1 - abs(2 * place - 1),
}
ALL = "all"
PRESETS = (ALL, *BY_KIND, *BY_BLOCK, *BY_PLACE)


@dataclass(frozen=True)
class LayerWeights:
    """A preset, and a table of what counts otherwise: blocks or single transformers of them, by name."""

    preset: str = ALL
    table: tuple[tuple[str, float], ...] = ()

    def of_layers(self, layers: Sequence[AttentionLayer]) -> list[float]:
        """The weight of each layer. Raises ValueError for a preset or a name that this UNet does not have."""
        blocks = blocks_of(layers)
        weights = preset_weights(self.preset, blocks)
        known = {*blocks, *map(name_of, layers)}
        unknown = [name for name, _ in self.table if name not in known]
        if unknown:
            raise ShortError(
                f"Expected blocks of this model in the layer weights, got {', '.join(unknown[:8])}. Correct "
                f"the table; the model has {', '.join(blocks)}."
            )
        table = dict(self.table)
        by_block = {block: table.get(block, weight) for block, weight in weights.items()}
        return [table.get(name_of(layer), by_block[block_of(layer)]) for layer in layers]


def block_of(layer: AttentionLayer) -> str:
    return f"{layer.block}_{layer.number}"


def name_of(layer: AttentionLayer) -> str:
    return f"{block_of(layer)}.{layer.index}"


def blocks_of(layers: Sequence[AttentionLayer]) -> list[str]:
    """The names of all blocks with cross-attention, in the order in which they run."""
    # Files of IP-Adapters have the middle block last.
    order = ("input", "middle", "output")
    running = sorted(layers, key=lambda each: order.index(each.block))
    return list(dict.fromkeys(map(block_of, running)))


def preset_weights(preset: str, blocks: Sequence[str]) -> dict[str, float]:
    """What each block counts. Raises ValueError if the preset is not known for a UNet of these blocks."""
    if preset in BY_KIND:
        chosen = BY_KIND[preset][kind_of(preset, blocks)]
        return {block: chosen.get(block, 0.0) for block in blocks}
    if preset in BY_BLOCK:
        return {block: BY_BLOCK[preset].get(block.partition("_")[0], 1.0) for block in blocks}
    if preset in BY_PLACE:
        ease = BY_PLACE[preset]
        return {
            block: FAINT + (1 - FAINT) * ease(place / len(blocks)) for place, block in enumerate(blocks)}
    if preset != ALL:
        raise ShortError(f"Expected one of the presets {', '.join(PRESETS)}, got {quoted(preset)}.")
    return dict.fromkeys(blocks, 1.0)


def kind_of(preset: str, blocks: Sequence[str]) -> str:
    """Which of the known UNets has these blocks. Raises ValueError if none has."""
    for kind, known in KINDS.items():
        if set(blocks) == set(known):
            return kind
    raise ShortError(
        f"Expected a model with the blocks of {' or '.join(KINDS)} for the preset {preset!r}, got one with "
        f"{', '.join(blocks)}. Choose the preset {ALL!r}, and write what each block counts into the table."
    )


def table_in(text: str) -> tuple[tuple[str, float], ...]:
    """Names and weights of a table such as `output_1: 0.5`, one a line or separated by commas.

    Raises ValueError for anything else, for a name that comes twice, and for weights beyond 10.
    """
    if len(text) > MOST_LETTERS:
        raise ShortError(f"Expected a table of at most {MOST_LETTERS} letters, got {len(text)}. Shorten it.")
    found: dict[str, float] = {}
    for line in filter(None, map(str.strip, re.split(r"[\n,;]", text))):
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise ShortError(
                f"Expected a block and its weight in each line of the table, such as 'output_1: 0.5', got "
                f"{quoted(line)}. Blocks are input_N, middle_0 and output_N, transformers in them output_1.3."
            )
        name = entry[1]
        if name in found:
            raise ShortError(f"Expected each block once in the table, got {name} twice. Take one out.")
        found[name] = _weight(entry[2], name)
    return tuple(found.items())


def _weight(text: str, name: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= LARGEST:
        raise ShortError(
            f"Expected a weight from -{LARGEST:g} to {LARGEST:g} for {name}, got {quoted(text)}. Correct the "
            "table."
        )
    return weight
