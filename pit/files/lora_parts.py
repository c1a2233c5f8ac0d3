"""The parts of a LoRA's modules, in kohya's names: which belong together, and which exclude each other.

ComfyUI's loader reads all kinds that are told here; of two kinds in one module it silently applies one.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .checked import WEIGHT_TYPES
from .known import first_of
from .lora_shapes import misfit

Parts = dict[str, Tensor]

PAIR = ("lora_down.weight", "lora_up.weight")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
LOKR_FIRST, LOKR_SECOND = ((each, (f"{each[0]}_a", f"{each[0]}_b")) for each in (("lokr_w1",), ("lokr_w2",)))
OFT = ("oft_blocks",)
MAGNITUDE = "lora_magnitude_vector"  # of DoRA as PEFT trains it; `dora_scale` as kohya's and ComfyUI's
# Parts that mean something only beside others: each with the sets of which one must be there whole.
NEEDS = {
    **dict.fromkeys((*PAIR, "lora_mid.weight", MAGNITUDE, "reshape_weight"), (PAIR,)),
    **dict.fromkeys(LOHA, (LOHA,)),
    "hada_t1": ((*LOHA, "hada_t2"),), "hada_t2": ((*LOHA, "hada_t1"),),
    **dict.fromkeys(GLORA, (GLORA,)),
    "lokr_w1": LOKR_SECOND, "lokr_w2": LOKR_FIRST, "lokr_t2": (LOKR_SECOND[1],),
    **{part: tuple((*LOKR_FIRST[1], *second) for second in LOKR_SECOND) for part in LOKR_FIRST[1]},
    **{part: tuple((*LOKR_SECOND[1], *first) for first in LOKR_FIRST) for part in LOKR_SECOND[1]},
    "rescale": (OFT,), "b_norm": (("w_norm",),),
    "dora_scale": (PAIR, LOHA, GLORA, OFT, *LOKR_FIRST),
}
# Parts of which a module has at most one: what changes the weight, a half of LoKr, the bias, the magnitude.
# OFT uses its alpha as a constraint, by which ComfyUI would multiply the change if there were a magnitude.
EXCLUSIVE = (
    (PAIR[1], LOHA[0], "lokr_w1", "lokr_w1_a", GLORA[0], *OFT, "w_norm", "diff", "set_weight"),
    ("lokr_w2", "lokr_w2_a"), ("diff_b", "b_norm"), ("dora_scale", MAGNITUDE, *OFT),
)
WHOLE_NUMBERS = ("alpha", "reshape_weight")  # the parts that may be integers


def wrong_parts(parts: Parts) -> str:
    """What is wrong with the parts of a module, to follow "with"; nothing if they are sound."""
    return _lacking(parts) or _mixed(parts) or _wrong_values(parts) or misfit(parts)


def _lacking(parts: Parts) -> str:
    """What a module has without what belongs to it."""
    for part in parts:
        sets = NEEDS.get(part, ((),))
        if not any(parts.keys() >= set(needed) for needed in sets):
            missing = [each for each in sets[0] if each not in parts]
            return f"its {part} and without its {first_of(missing)}"
    return ""


def _mixed(parts: Parts) -> str:
    """What a module has beside what excludes it."""
    for group in EXCLUSIVE:
        first, *others = [part for part in group if part in parts] or [""]
        if others:
            return f"both its {first} and its {others[0]}"
    return ""


def _wrong_values(parts: Parts) -> str:
    for part, tensor in parts.items():
        known = tensor.dtype in {*WEIGHT_TYPES, torch.float64}
        if not known and (part not in WHOLE_NUMBERS or tensor.is_complex()):
            return f"numbers of the type {tensor.dtype} in its {part}"
        if not tensor.numel():
            return f"an empty {part}"
        if not bool(tensor.isfinite().all()):
            return f"NaN or infinite values in its {part}"
        if part == "alpha" and tensor.numel() != 1:
            return f"{tensor.numel()} numbers as its alpha"
    return ""
