"""Changes of a UNet's layers (LoRA, arXiv 2106.09685, and its kin), from many key layouts into one.

ComfyUI's own loader reads kohya's layout, `lora_unet_{path}.lora_down.weight`, `.lora_up.weight` and
`.alpha`, and further kinds under the same names of modules: DoRA, LoHa, LoKr, GLoRA, OFT, whole differences.
Of what diffusers and PEFT write for SDXL, it matches no key.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..messages import quoted
from .checked import WEIGHT_TYPES, StrPath, another_file, computable
from .known import first_of
from .plain_json import parse_json, read_json
from .weights import WeightFileError, read_state

State = dict[str, Tensor]

# A key consists of a module, a word that says LoRA, one of the factors, and perhaps PEFT's adapter name.
FACTOR = re.compile(
    r"(?P<module>.+?)(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)"
    r"(?P<factor>down|up|mid|A|B)(?:\.\w+)?\.weight"
)
MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(?:\.(?!weight$)\w+)?(?:\.weight)?")
# All that ComfyUI's loader knows besides: DoRA's magnitude as kohya writes it, whole differences, LoHa, LoKr,
# GLoRA, OFT.
FURTHER = (
    r"alpha|dora_scale|reshape_weight|diff|diff_b|set_weight|[wb]_norm|hada_w[12]_[ab]|hada_t[12]"
    r"|lokr_w[12](?:_[ab])?|lokr_t2|[ab][12]\.weight|oft_blocks|rescale"
)
PART = re.compile(rf"(?P<module>.+)\.(?P<part>{FURTHER})")
CONVERTED = re.compile(
    rf"(?P<module>.+)\.(?P<part>lora_(?:down|up|mid)\.weight|lora_magnitude_vector|{FURTHER})"
)
# Parts that mean something only beside others: each with the sets of which one must be there whole.
PAIR = ("lora_down.weight", "lora_up.weight")
LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
LOKR_FIRST, LOKR_SECOND = ((each, (f"{each[0]}_a", f"{each[0]}_b")) for each in (("lokr_w1",), ("lokr_w2",)))
OFT = ("oft_blocks",)
NEEDS = {
    **dict.fromkeys((*PAIR, "lora_mid.weight", "lora_magnitude_vector", "reshape_weight"), (PAIR,)),
    **dict.fromkeys(LOHA, (LOHA,)),
    "hada_t1": ((*LOHA, "hada_t2"),), "hada_t2": ((*LOHA, "hada_t1"),),
    **dict.fromkeys(GLORA, (GLORA,)),
    "lokr_w1": LOKR_SECOND, "lokr_w2": LOKR_FIRST, "lokr_t2": (LOKR_SECOND[1],),
    **{part: tuple((*LOKR_FIRST[1], *second) for second in LOKR_SECOND) for part in LOKR_FIRST[1]},
    **{part: tuple((*LOKR_SECOND[1], *first) for first in LOKR_FIRST) for part in LOKR_SECOND[1]},
    "rescale": (OFT,), "b_norm": (("w_norm",),),
    "dora_scale": (PAIR, LOHA, GLORA, OFT, *LOKR_FIRST),
}
RANKED = ("lora_down.weight", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")  # the parts with a row for each rank
PLAIN_PATTERN = re.compile(r"\^?(?:\w|\\?\.)+\$?")
WHOLE_NUMBERS = ("alpha", "reshape_weight")  # the parts that may be integers
NAMES = {"A": "lora_down", "B": "lora_up"}  # PEFT's names; the others say down and up themselves
# What pipelines, PEFT and training tools put in front, in any nesting.
WRAPPERS = ("unet.", "base_model.model.", "model.", "module.", "_orig_mod.", "state_dict.")
UNCHANGED = ("diffusion_model.", "lora_", "lycoris_")  # what ComfyUI's loader reads as it is
UNET = re.compile(
    r"((down|up|mid|input|middle|output)_blocks?|conv_in|conv_out|time_embedding|add_embedding)\."
)
UNET_PREFIX = "lora_unet_"
TEXT_ENCODER = re.compile(r"lora_te\d?_|text_encoder|te\d?_")
IMAGE_PROJECTION = re.compile(r"_to_[kv]_ip$")


@dataclass(frozen=True)
class Lora:
    """What a LoRA file holds, in kohya's layout.

    Attributes:
        unet: tensors for layers of the UNet.
        adapter: tensors for an IP-Adapter's own projections, whose modules end in `to_k_ip` and `to_v_ip`.
        elsewhere: names of modules in text encoders and of modules that are unknown.
    """

    unet: State
    adapter: State
    elsewhere: tuple[str, ...]


def convert_lora(state: Mapping[str, Tensor]) -> State:
    """A LoRA in the layout that ComfyUI's stock loader reads.

    It reads the layouts of diffusers (`lora.down`), of PEFT (`lora_A`), of the attention processors that
    diffusers had in 2023 (`processor.to_q_lora.down`) and of kohya, whose names stay, as do keys of unknown
    kinds. Of DoRA, PEFT's magnitudes keep a name of their own, as they act otherwise than kohya's.
    """
    return {converted_key(key): tensor for key, tensor in state.items()}


def converted_key(key: str) -> str:
    """The name of one tensor in kohya's layout."""
    if factor := FACTOR.fullmatch(key):
        name = NAMES.get(factor["factor"], f"lora_{factor['factor']}")
        return f"{module_name(factor['module'])}.{name}.weight"
    if magnitude := MAGNITUDE.fullmatch(key):
        return f"{module_name(magnitude['module'])}.lora_magnitude_vector"
    part = PART.fullmatch(key)
    return f"{module_name(part['module'])}.{part['part']}" if part else key


def without_wrappers(path: str) -> str:
    """A path without what pipelines, PEFT and training tools put in front of it."""
    while path.startswith(WRAPPERS):
        path = path.removeprefix(next(wrapper for wrapper in WRAPPERS if path.startswith(wrapper)))
    return path


def module_name(path: str) -> str:
    """kohya's name for a module of the UNet; any other path is returned unchanged."""
    name = without_wrappers(path)
    # Not a path of diffusers: a name that the stock loader reads as it is, or not a UNet.
    if not UNET.match(name):
        return name if name.startswith(UNCHANGED) else path
    # The processors of 2023 held the factors themselves, as `processor.to_out_lora`. They act on the linear
    # layer, which is the first of two modules in `to_out`, before the dropout.
    name = name.replace(".processor.", ".")
    if name.endswith(".to_out"):
        name += ".0"
    return UNET_PREFIX + name.replace(".", "_")


def with_alphas(
    state: Mapping[str, Tensor], settings: Mapping[str, object], paths: Mapping[str, str] | None = None
) -> State:
    """A converted LoRA with the scales from PEFT's settings, which PEFT keeps outside of the tensors.

    The weight changes by alpha / rank * up @ down, without an alpha by up @ down.

    Args:
        settings: fields of PEFT's `LoraConfig`: `lora_alpha`, `alpha_pattern`, `use_rslora`; or `alpha` of
            its `LoHaConfig` or `LoKrConfig`.
        paths: the paths of the modules in the model, by their converted names.
    """
    alphas, patterns = {}, pattern_ends(settings)
    general = settings.get("lora_alpha", settings.get("alpha"))
    for module, parts in by_module(state).items():
        rank = next((len(parts[part]) for part in RANKED if part in parts), None)
        if rank is None or "alpha" in parts:
            continue
        alpha = own_alpha((paths or {}).get(module, module), patterns, general)
        # Rank-stabilized LoRA (arXiv 2312.03732) scales by alpha / sqrt(rank). Readers divide by the rank, so
        # the root of it goes into the stored alpha.
        if alpha is not None and settings.get("use_rslora"):
            alpha *= math.sqrt(rank)
        if alpha is not None and alpha != rank:  # equal ones mean a scale of 1, as does no alpha
            alphas[f"{module}.alpha"] = torch.tensor(float(alpha))
    return dict(state) | alphas


def pattern_ends(settings: Mapping[str, object]) -> dict[str, tuple[int, float]]:
    """PEFT's patterns for single modules: the end of a path, its place among the patterns, and its alpha."""
    given = dict(settings.get("alpha_pattern") or {})
    return {
        pattern.replace("\\.", ".").rstrip("$"): (place, alpha)
        for place, (pattern, alpha) in enumerate(given.items())
    }


def own_alpha(path: str, patterns: Mapping[str, tuple[int, float]], general: float | None) -> float | None:
    """The alpha of a module: that of the first pattern which is the end of its path, or with ^ the whole."""
    # Looked up by every end of the path: a file may bring as many patterns as modules.
    words = path.split(".")
    ends = [f"^{path}", *(".".join(words[place:]) for place in range(len(words)))]
    found = [patterns[end] for end in ends if end in patterns]
    return min(found)[1] if found else general


def path_of(key: str) -> str:
    """The path of a key's module in the model, without what tools put in front."""
    match = FACTOR.fullmatch(key) or PART.fullmatch(key)
    return without_wrappers(match["module"] if match else key)


def modules(state: Mapping[str, Tensor]) -> list[str]:
    """The modules of a converted LoRA, in the order of the file."""
    return list(by_module(state))


def by_module(state: Mapping[str, Tensor]) -> dict[str, State]:
    """The parts of each module of a converted LoRA; a key of another kind stands for itself."""
    parts: dict[str, State] = {}
    for key, tensor in state.items():
        match = CONVERTED.fullmatch(key)
        module, part = (match["module"], match["part"]) if match else (key, "")
        parts.setdefault(module, {})[part] = tensor
    return parts


def split_lora(state: Mapping[str, Tensor]) -> Lora:
    """A converted LoRA by what its modules belong to."""
    unet, adapter, elsewhere = {}, {}, []
    for module, parts in by_module(state).items():
        named = {f"{module}.{part}": tensor for part, tensor in parts.items()}
        if "" in parts or TEXT_ENCODER.match(module):
            elsewhere.append(module)
        elif IMAGE_PROJECTION.search(module):
            adapter |= named
        else:
            unet |= named
    return Lora(unet, adapter, tuple(elsewhere))


def unsound(state: Mapping[str, Tensor]) -> Iterator[str]:
    """The modules of a converted LoRA that are wrong, each with what is wrong, to follow "got"."""
    for module, parts in by_module(state).items():
        wrong = _lacking(parts) or _wrong_values(parts) or _wrong_factors(parts)
        if wrong:
            yield f"{module} with {wrong}"


def _lacking(parts: State) -> str:
    """What a module has without what belongs to it."""
    for part in parts:
        sets = NEEDS.get(part, ((),))
        if not any(parts.keys() >= set(needed) for needed in sets):
            missing = [each for each in sets[0] if each not in parts]
            return f"its {part} and without its {first_of(missing)}"
    return ""


def _wrong_values(parts: State) -> str:
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


def _wrong_factors(parts: State) -> str:
    down, up = map(parts.get, PAIR)
    if down is None or up is None:
        return ""
    if down.ndim < 2 or up.ndim < 2:
        return f"factors of the shapes {list(down.shape)} and {list(up.shape)}"
    # Two dimensions are a linear layer, four a convolution; the rank has the same place in both.
    if down.shape[0] != up.shape[1]:
        return f"rank {down.shape[0]} in its down factor and {up.shape[1]} in its up factor"
    return ""


def dora_weight(changed: Tensor, magnitude: Tensor) -> Tensor:
    """A weight of DoRA (arXiv 2402.09353) as PEFT trains it: `changed` with the given length of each row.

    Args:
        changed: the weight with its LoRA added `[O, ...]`.
        magnitude: one length for each row, in any shape.
    """
    rows = changed.shape[0], *[1] * (changed.ndim - 1)
    return changed * (magnitude.reshape(rows) / changed.flatten(1).norm(dim=1).reshape(rows))


def merge_lora(unet: nn.Module, lora: Lora, strength: float = 1.0) -> None:
    """Add a LoRA to the weights of the linear layers of a diffusers UNet, for use without ComfyUI.

    Raises:
        ValueError: the UNet lacks a module of the LoRA, or the file is of another kind than two factors.
    """
    layers = {UNET_PREFIX + name.replace(".", "_"): layer for name, layer in unet.named_modules()}
    for name, parts in by_module(lora.unet).items():
        if not {*PAIR} <= parts.keys() <= {*PAIR, "alpha"}:
            raise ValueError(
                f"Expected a LoRA of two factors for each module, got {name} with {first_of(list(parts))}. "
                "ComfyUI applies it."
            )
        if name not in layers:
            raise ValueError(
                f"Expected a LoRA for this UNet, got one for {name}, which it does not have. Take one made "
                "for this kind of model."
            )
        down, up = (parts[half] for half in PAIR)
        # Multiplied in the precision of the file, so that it is rounded to the UNet's only once.
        scale = strength * float(parts.get("alpha", len(down))) / len(down)
        layers[name].weight.data += (scale * up @ down).to(layers[name].weight)


def peft_settings(path: Path, metadata: Mapping[str, str]) -> dict[str, object]:
    """PEFT's settings of a LoRA, from the metadata that diffusers writes, else from the file beside it.

    Raises:
        WeightFileError: the settings are damaged.
    """
    beside = path.with_name("adapter_config.json")
    try:
        if "lora_adapter_metadata" in metadata:
            settings = parse_json(metadata["lora_adapter_metadata"])
        # PEFT always saves under this name; beside any other file, the settings may belong to another LoRA.
        elif path.stem == "adapter_model" and beside.is_file():
            settings = read_json(beside)
        else:
            return {}
        settings = {key.removeprefix("unet."): value for key, value in settings.items()}
        patterns = settings.get("alpha_pattern") or {}
        scales = [settings.get("lora_alpha"), settings.get("alpha"), *patterns.values()]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightFileError(
            f"{path}: expected PEFT's settings of the LoRA as a JSON object, got damaged ones ({error}). "
            "Save it again."
        ) from error
    odd = next((each for each in patterns if not PLAIN_PATTERN.fullmatch(each)), None)
    if odd is not None:
        raise WeightFileError(
            f"{path}: expected ends of paths in PEFT's alpha_pattern, got the expression {quoted(odd)}. "
            "Write the modules out in it, or merge the LoRA with PEFT."
        )
    for scale in scales:
        if scale is not None and not (isinstance(scale, int | float) and math.isfinite(scale)):
            raise WeightFileError(
                f"{path}: expected a finite number as an alpha in PEFT's settings, got {scale!r:.50}. Save "
                "it again."
            )
    return settings


def read_lora(path: StrPath) -> Lora:
    """A LoRA file for a UNet, in any common layout, converted to kohya's with its scales.

    The scales are `.alpha` tensors, what diffusers writes into the metadata (`lora_adapter_metadata`), or
    PEFT's `adapter_config.json` beside the file.

    Raises:
        WeightFileError: not a LoRA, one for text encoders only, or one whose factors do not fit together.
    """
    path = Path(path)
    state, metadata = read_state(path)
    state = {key: computable(tensor) for key, tensor in state.items()}
    paths = {module: path_of(key) for key in state for module in by_module({converted_key(key): state[key]})}
    lora = split_lora(with_alphas(convert_lora(state), peft_settings(path, metadata), paths))
    wrong = list(unsound(lora.unet | lora.adapter))
    if wrong:
        raise WeightFileError(
            f"{path}: expected all parts of each module, of one rank and finite, got {first_of(wrong)}. The "
            "file is damaged; fetch it again."
        )
    if all(key.endswith(".alpha") for key in lora.unet | lora.adapter):
        if any(TEXT_ENCODER.match(module) for module in lora.elsewhere):
            raise WeightFileError(
                f"{path}: expected a LoRA for a UNet, got one for text encoders only. ComfyUI's own LoRA "
                "loader reads it."
            )
        raise another_file(path, state, "a LoRA for a UNet")
    return lora
