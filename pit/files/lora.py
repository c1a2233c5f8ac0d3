"""Changes of a UNet's layers (LoRA, arXiv 2106.09685, and its kin), from many key layouts into one.

ComfyUI's own loader reads kohya's layout, `lora_unet_{path}.lora_down.weight`, `.lora_up.weight` and
`.alpha`, and further kinds under the same names of modules: DoRA, LoHa, LoKr, GLoRA, OFT, whole differences.
Of what diffusers and PEFT write for SDXL, it matches no key.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..messages import quoted, shortened
from .checked import StrPath, another_file, computable
from .known import LONGEST_NAME, first_of
from .lora_parts import MAGNITUDE, PAIR, wrong_parts
from .plain_json import parse_json, read_json
from .weights import WeightFileError, read_state

State = dict[str, Tensor]

# A key consists of a module, a word that says LoRA, one of the factors, and perhaps PEFT's adapter name.
# Factors that are no modules of their own have no `weight`.
FACTOR = re.compile(
    r"(?P<module>.+?)(?:\.lora_|[._]lora\.|\.lora_linear_layer\.)"
    r"(?P<factor>down|up|mid|A|B)(?:(?:\.(?P<adapter>\w+))?\.weight)?"
)
PEFT_MAGNITUDE = re.compile(
    rf"(?P<module>.+)\.{MAGNITUDE}(?:\.(?!weight$)(?P<adapter>\w+))?(?:\.weight)?"
)
# All that ComfyUI's loader knows besides: DoRA's magnitude as kohya writes it, whole differences, LoHa, LoKr,
# GLoRA, OFT.
FURTHER = (
    r"alpha|dora_scale|reshape_weight|diff|diff_b|set_weight|[wb]_norm|hada_w[12]_[ab]|hada_t[12]"
    r"|lokr_w[12](?:_[ab])?|lokr_t2|[ab][12]\.weight|oft_blocks|rescale"
)
PART = re.compile(rf"(?P<module>.+)\.(?P<part>{FURTHER})")
CONVERTED = re.compile(
    rf"(?P<module>.+)\.(?P<part>lora_(?:down|up|mid)\.weight|{MAGNITUDE}|{FURTHER})"
)
RANKED = ("lora_down.weight", "hada_w1_b", "lokr_w1_b", "lokr_w2_b")  # the parts with a row for each rank
PLAIN_PATTERN = re.compile(r"\^?(?:\w|\\?\.)+\$?")
NAMES = {"A": "lora_down", "B": "lora_up"}  # PEFT's names; the others say down and up themselves
# What pipelines, PEFT and training tools put in front, in any nesting.
WRAPPERS = ("unet.", "base_model.model.", "model.", "module.", "_orig_mod.", "state_dict.")
UNCHANGED = ("diffusion_model.", "lora_", "lycoris_")  # what ComfyUI's loader reads as it is
UNET = re.compile(
    r"((down|up|mid|input|middle|output)_blocks?|conv_in|conv_out|time_embedding|add_embedding)(?:\.|$)"
)
UNET_PREFIX = "lora_unet_"
TEXT_ENCODER = re.compile(r"lora_te\d?_|text_encoder|te\d?_")
# An IP-Adapter's projections. In a UNet of diffusers they stand in a processor, with one for each adapter; in
# the adapter's own file, and in its trainer's, under the number of the layer.
IMAGE_PROJECTION = re.compile(r"(?:[._]processor)?([._]to_[kv]_ip)(?:[._]0)?$")
NUMBERED = re.compile(
    r"(?:(?:lora_(?:unet_)?|lycoris_)?(?:ip_adapter|adapter_modules)[._])?(\d{1,4})[._](to_[kv]_ip)"
)


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

    Raises:
        ValueError: two keys mean the same tensor, or belong to two adapters of PEFT: one would win silently.
    """
    return {name: state[key] for name, key in converted_names(state).items()}


def converted_names(keys: Iterable[str]) -> dict[str, str]:
    """The keys of a file by their names in kohya's layout; errors as in `convert_lora`."""
    found: dict[str, str] = {}
    sole = None
    for key in keys:
        other = found.setdefault(converted_key(key), key)
        match = FACTOR.fullmatch(key) or PEFT_MAGNITUDE.fullmatch(key)
        if match and match["adapter"]:
            sole = sole or (match["adapter"], key)
            other = other if match["adapter"] == sole[0] else sole[1]
        if other != key:
            raise ValueError(
                f"a single LoRA with each of its tensors once, got both {_named(other)} and {_named(key)}. "
                "Save one of them alone."
            )
    return found


def _named(key: str) -> str:
    return quoted(shortened(key, LONGEST_NAME))


def converted_key(key: str) -> str:
    """The name of one tensor in kohya's layout."""
    if factor := FACTOR.fullmatch(key):
        name = NAMES.get(factor["factor"], f"lora_{factor['factor']}")
        return f"{module_name(factor['module'])}.{name}.weight"
    if magnitude := PEFT_MAGNITUDE.fullmatch(key):
        return f"{module_name(magnitude['module'])}.{MAGNITUDE}"
    part = PART.fullmatch(key)
    return f"{module_name(part['module'])}.{part['part']}" if part else key


def without_wrappers(path: str) -> str:
    """A path without what pipelines, PEFT and training tools put in front of it."""
    while path.startswith(WRAPPERS):
        path = path.removeprefix(next(wrapper for wrapper in WRAPPERS if path.startswith(wrapper)))
    return path


def module_name(path: str) -> str:
    """kohya's name for a module of the UNet; any other path is returned unchanged.

    Projections of an IP-Adapter that are told by its numbers are called as in its file.
    """
    name = IMAGE_PROJECTION.sub(r"\1", without_wrappers(path))
    if numbered := NUMBERED.fullmatch(name):
        return f"ip_adapter.{int(numbered[1])}.{numbered[2]}"
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
    starts = [0, *(dot.end() for dot in re.finditer(r"\.", path))] if patterns else []
    ends = [f"^{path}", *(path[start:] for start in starts)]
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
        module = module_of(key)
        parts.setdefault(module, {})[key[len(module) + 1:]] = tensor
    return parts


def module_of(key: str) -> str:
    """The module of a key of a converted LoRA, which is the key itself if it is of another kind."""
    match = CONVERTED.fullmatch(key)
    return match["module"] if match else key


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
        if wrong := wrong_parts(parts):
            yield f"{module} with {wrong}"


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
    try:
        names = converted_names(state)
    except ValueError as error:
        raise WeightFileError(f"{path}: expected {error}") from error
    converted = {name: state[key] for name, key in names.items()}
    paths = {module_of(name): path_of(key) for name, key in names.items()}
    lora = split_lora(with_alphas(converted, peft_settings(path, metadata), paths))
    wrong = list(unsound(lora.unet | lora.adapter))
    if wrong:
        raise WeightFileError(
            f"{path}: expected all parts of each module, finite and fitting each other, got "
            f"{first_of(wrong)}. The file is damaged; fetch it again."
        )
    if all(key.endswith(".alpha") for key in lora.unet | lora.adapter):
        if any(TEXT_ENCODER.match(module) for module in lora.elsewhere):
            raise WeightFileError(
                f"{path}: expected a LoRA for a UNet, got one for text encoders only. ComfyUI's own LoRA "
                "loader reads it."
            )
        raise another_file(path, state, "a LoRA for a UNet")
    return lora
