"""Whether the parts of a LoRA's module fit each other and the weight that they change, told by their shapes.

ComfyUI multiplies the parts, reshapes the product to the weight and broadcasts where it can. Parts for
another layer with as many values would be applied as garbage, and others skipped with a line in the log.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

Parts = Mapping[str, Tensor]
Shape = tuple[int, ...]
Link = tuple[str, int, str, int]
"""A part and its axis, another part and its axis: both have the same length."""

MOST_GROWTH = 8  # how many times as wide `reshape_weight` may make a weight
MATRICES = (
    *(f"hada_w{n}_{half}" for n in "12" for half in "ab"), "lokr_w1",
    *(f"lokr_w{n}_{half}" for n in "12" for half in "ab"),
)
DIMENSIONS = {
    **dict.fromkeys(MATRICES, (2,)), "lokr_w2": (2, 4), "oft_blocks": (3, 4), "reshape_weight": (1,),
    **dict.fromkeys(("hada_t1", "hada_t2", "lokr_t2", "lora_mid.weight"), (4,)),
    **dict.fromkeys((
        "lora_down.weight", "lora_up.weight", "a1.weight", "a2.weight", "b1.weight", "b2.weight",
    ), (2, 3, 4, 5)),
}
DIFFERENCES = ("diff", "w_norm", "set_weight")  # parts that have the shape of the weight
BIASES = ("diff_b", "b_norm")


def misfit(parts: Parts) -> str:
    """Parts of a module that do not fit each other, to follow "with"; nothing if all do."""
    for part, allowed in DIMENSIONS.items():
        if part in parts and parts[part].ndim not in allowed:
            return f"a {part} of the shape {list(parts[part].shape)}"
    if "reshape_weight" in parts and parts["reshape_weight"].is_floating_point():
        return "fractions in its reshape_weight"
    for part in _without_kernels(parts):
        if math.prod(parts[part].shape[2:]) != 1:
            return f"a {part} of the shape {list(parts[part].shape)}"
    for first, axis, second, other in _links(parts):
        if parts[first].shape[axis] != parts[second].shape[other]:
            shapes = (f"{part} {list(parts[part].shape)}" for part in (first, second))
            return f"parts that do not fit: {', '.join(shapes)}"
    return _wrong_blocks(parts)


def _without_kernels(parts: Parts) -> Iterator[str]:
    """Factors that have, for a convolution, a kernel of one pixel."""
    wanted = ["lora_up.weight", "a1.weight", "a2.weight"]
    wanted += ["lora_down.weight"] if "lora_mid.weight" in parts else []
    return (part for part in wanted if part in parts)


def _links(parts: Parts) -> Iterator[Link]:
    if "lora_up.weight" in parts:
        yield "lora_down.weight", 0, "lora_up.weight", 1
    if "lora_mid.weight" in parts:
        yield "lora_mid.weight", 0, "lora_up.weight", 1
        yield "lora_mid.weight", 1, "lora_down.weight", 0
    for kind in ("hada_w1", "hada_w2", "lokr_w1", "lokr_w2"):
        if f"{kind}_a" in parts:
            yield from _factor_links(parts, kind)
    if "hada_w1_a" in parts:
        row = int("hada_t1" in parts)
        yield "hada_w1_a", row, "hada_w2_a", row
        yield "hada_w1_b", 1, "hada_w2_b", 1
    if "hada_t1" in parts:
        yield from (("hada_t1", axis, "hada_t2", axis) for axis in (2, 3))
    if "a1.weight" in parts:
        yield from _glora_links(parts)


def _factor_links(parts: Parts, kind: str) -> Iterator[Link]:
    """Two factors of LoHa or LoKr, with or without a core between them (a Tucker decomposition)."""
    first, second, core = f"{kind}_a", f"{kind}_b", kind.replace("_w", "_t")
    if core in parts:
        yield core, 0, first, 0
        yield core, 1, second, 0
    else:
        yield first, 1, second, 0


def _glora_links(parts: Parts) -> Iterator[Link]:
    rank = 0 if old_glora(parts) else 1
    yield "a1.weight", 0, "a2.weight", 1
    yield "a1.weight", 1, "a2.weight", 0
    yield "a1.weight", rank, "b1.weight", rank
    yield "a1.weight", rank, "b2.weight", 1 - rank
    if rank == 0:
        yield "a1.weight", 1, "b1.weight", 1


def old_glora(parts: Parts) -> bool:
    """Whether the factors of a GLoRA stand in the order of old versions of LyCORIS, as ComfyUI tells it."""
    a1, a2, b1, b2 = (parts[f"{name}.weight"].shape for name in ("a1", "a2", "b1", "b2"))
    old, new = b2[1] == b1[0] == a1[0] == a2[1], b2[0] == b1[1] == a1[1] == a2[0]
    # For a square weight all the lengths of both are equal; the rank is the shorter side.
    return old and (not new or a1[0] <= a1[1])


def _wrong_blocks(parts: Parts) -> str:
    if "oft_blocks" not in parts:
        return ""
    *steps, count, size, other = parts["oft_blocks"].shape
    if size != other:
        return f"an oft_blocks of the shape {list(parts['oft_blocks'].shape)}"
    # BOFT exchanges halves of blocks at growing distances; ComfyUI compares its alpha without looking for it.
    if steps and (size % 2 or count % 2 ** min(steps[0] - 1, 32)):
        return f"an oft_blocks of the shape {list(parts['oft_blocks'].shape)}"
    return "its oft_blocks and without its alpha" if steps and "alpha" not in parts else ""


def change_shape(parts: Parts) -> Shape | None:
    """The shape of the change that the parts make of a weight; a convolution's may be flattened.

    None if the parts of the module change no weight, or turn it and have no columns of their own (OFT).
    """
    if "lora_up.weight" in parts:
        kernel = parts["lora_mid.weight"].shape[2:] if "lora_mid.weight" in parts else ()
        inner = parts["lora_down.weight"].shape[1:2 if kernel else None]
        return parts["lora_up.weight"].shape[0], *inner, *kernel
    if "hada_w1_a" in parts:
        return _product_shape(parts, "hada_w1")
    if "lokr_w1" in parts or "lokr_w1_a" in parts:
        (rows, columns), second = (_product_shape(parts, kind) for kind in ("lokr_w1", "lokr_w2"))
        return rows * second[0], columns * second[1], *second[2:]
    if "a1.weight" in parts:
        left, right = ("b2.weight", "b1.weight") if old_glora(parts) else ("b1.weight", "b2.weight")
        return parts[left].shape[0], *parts[right].shape[1:]
    return next((tuple(parts[part].shape) for part in DIFFERENCES if part in parts), None)


def _product_shape(parts: Parts, kind: str) -> Shape:
    """The shape of a matrix or of the product of its two factors."""
    if kind in parts:
        return tuple(parts[kind].shape)
    first, second, core = f"{kind}_a", f"{kind}_b", kind.replace("_w", "_t")
    if core in parts:
        return parts[first].shape[1], parts[second].shape[1], *parts[core].shape[2:]
    return parts[first].shape[0], parts[second].shape[1]


def fits(parts: Parts, shape: Sequence[int]) -> bool:
    """Whether the parts of a module, which fit each other, can change a weight of this shape."""
    shape = grown(parts, shape)
    if shape is None:
        return False
    if "oft_blocks" in parts:
        count, size = parts["oft_blocks"].shape[-3:-1]
        return count * size == shape[0]
    change = change_shape(parts)
    if change is None:
        return True
    if any(part in parts for part in DIFFERENCES):
        return change == tuple(shape)
    if "a1.weight" in parts and not old_glora(parts) and parts["a1.weight"].shape[0] != shape[1]:
        return False
    inner, wanted = _shortest(change[1:]), _shortest(shape[1:])
    return change[0] == shape[0] and (inner == wanted or inner == (math.prod(wanted),))


def _shortest(lengths: Sequence[int]) -> Shape:
    """Lengths without those of one at their end: a kernel of one pixel is as none."""
    lengths = tuple(lengths)
    while lengths and lengths[-1] == 1:
        lengths = lengths[:-1]
    return lengths


def grown(parts: Parts, shape: Sequence[int]) -> Shape | None:
    """The shape of a weight after the module's `reshape_weight`; None unless that is a moderate growth."""
    if "reshape_weight" not in parts:
        return tuple(shape)
    wanted = tuple(parts["reshape_weight"].tolist())
    # Only more columns, for a model that is given more channels: other layers would not take more rows.
    if len(wanted) != len(shape) or (wanted[0], *wanted[2:]) != (shape[0], *shape[2:]):
        return None
    # ComfyUI pads the weight with zeros, for a file of a few bytes to any size.
    return wanted if 1 <= wanted[1] / shape[1] <= MOST_GROWTH else None


def wrong_scale(parts: Parts, shape: Sequence[int]) -> str:
    """A magnitude or scale that does not fit a weight of this shape: what was expected and what there is."""
    rows, *inner = shape
    ones = [1] * len(inner)
    by_row, by_column = [rows, *ones], [1, *inner[:1], *ones[1:]]
    # DoRA's norms of rows or of columns; those of PEFT stand in one row, for convolutions across it.
    expected = {
        "dora_scale": [by_row, by_column], "rescale": [by_row],
        "lora_magnitude_vector": [[rows], by_row, [1, rows, *ones[1:]]],
    }
    for part, allowed in expected.items():
        if part in parts and list(parts[part].shape) not in allowed:
            wanted = " or ".join(map(str, allowed[:2]))
            return f"a {part} of the shape {wanted}, got {list(parts[part].shape)}"
    return ""
