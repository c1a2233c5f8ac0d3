"""Masks of the six labels from a picture of a person: by a segmenter of clothes, or of parts named in words.

The published tool is SegFormer (arXiv 2105.15203) as `mattmdjaga/segformer_b2_clothes`, through transformers.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ..files.checked import State, computable, sound, without_wrappers
from ..files.known import first_of
from ..files.plain_json import read_json
from ..files.weights import WeightFileError, read_state
from ..messages import ShortError, quoted
from .parts import LABELS

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the segmenter was trained
# Bounds of what a config may ask for, far above the largest that is published: all of it is allocated.
LARGEST = {
    "depths": 64, "hidden_sizes": 2048, "decoder_hidden_size": 2048, "mlp_ratios": 16, "sr_ratios": 64,
    "patch_sizes": 64, "strides": 64, "num_attention_heads": 64, "num_encoder_blocks": 8, "num_labels": 4096,
}
# What each label takes of the names that the published segmenter gives, compared without case.
PARTS = {
    "hair or headwear": {"hat", "hair"},
    "face": {"face", "sunglasses"},
    "upper body clothes": {"upper-clothes", "scarf"},
    "lower body clothes": {"skirt", "pants"},
    "whole body clothes": {"upper-clothes", "skirt", "pants", "dress", "belt"},
    "shoes": {"left-shoe", "right-shoe"},
}


def masks_by_name(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The six masks from masks of parts `[..., H, W]` by their names, which may be labels themselves.

    Names that belong to no label are passed over; a label that has no part gets an empty mask.

    Raises:
        ValueError: there are no masks, they differ in size, or none of them belongs to a label.
    """
    sizes = sorted({tuple(mask.shape) for mask in named.values()})
    if len(sizes) != 1:
        raise ShortError(f"Expected masks of one size, got {', '.join(map(str, sizes)) or 'none'}.")
    plain = {" ".join(name.split()).casefold(): mask for name, mask in named.items()}
    found = {label: [plain[name] for name in sorted({label} | PARTS[label]) if name in plain]
             for label in LABELS}
    if not any(found.values()):
        known = sorted({*LABELS}.union(*PARTS.values()))
        raise ShortError(
            f"Expected masks of clothes with names among {', '.join(known)}, got {first_of(list(named))}. "
            "Name what was segmented like this."
        )
    empty = torch.zeros_like(next(iter(named.values())), dtype=torch.float32)
    return {label: torch.stack([empty, *(mask.to(empty) for mask in masks)]).amax(0)
            for label, masks in found.items()}


def load_segmenter(folder: Path) -> SegformerForSemanticSegmentation:
    """A SegFormer in the folder in which transformers keeps it, on the CPU.

    Raises:
        WeightFileError: a file is missing, damaged or of another model.
    """
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None or not (folder / "config.json").is_file():
        raise WeightFileError(
            f"{folder}: expected config.json and one of {', '.join(WEIGHT_FILES)}, got no such files. Copy "
            "all files of mattmdjaga/segformer_b2_clothes from the Hugging Face hub."
        )
    config = _config(folder / "config.json")
    state = without_wrappers(read_state(file)[0])
    # How many batches a norm has seen, an integer, is the only one that is no weight.
    counts = {key: value for key, value in state.items() if key.endswith("num_batches_tracked")}
    own = {key: value.shape for key, value in state.items() if key not in counts}
    weights = sound(file, {key: state[key] for key in own}, own)
    weights = {key: computable(value).float() for key, value in weights.items()}
    return _filled(file, config, weights | counts).eval().requires_grad_(False)


def _config(path: Path) -> SegformerConfig:
    try:
        content = read_json(path)
        if content.get("model_type", "segformer") != "segformer":
            raise ValueError(f"its model type is {content['model_type']}")
        config = SegformerConfig.from_dict(content)
        for name, most in LARGEST.items():
            found = getattr(config, name)
            numbers = found if isinstance(found, (list, tuple)) else [found]
            if not all(type(number) is int and 1 <= number <= most for number in numbers):
                raise ValueError(f"its {name} is {quoted(found)}")
        return config
    except Exception as error:  # transformers raises errors of its own, which change with its version
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{path}: expected the config of a SegFormer, got something else ({reason}). Fetch it again."
        ) from error


def _filled(path: Path, config: SegformerConfig, state: State) -> SegformerForSemanticSegmentation:
    """A segmenter with these weights. Raises WeightFileError if they are not those of its config."""
    # Filled by transformers: its own names of the weights, unlike those in files, change with its version.
    try:
        model, info = SegformerForSemanticSegmentation.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # of odd sizes, errors of several kinds
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{path}: expected the weights of the SegFormer in its config.json, got others ({reason}). Fetch "
            "all files again."
        ) from error
    wrong = {
        "missing": info["missing_keys"], "unknown": info["unexpected_keys"],
        "of another shape": [key for key, *_ in info["mismatched_keys"]],
    }
    told = "; ".join(f"{len(keys)} {word}: {first_of(sorted(keys))}" for word, keys in wrong.items() if keys)
    if told:
        raise WeightFileError(
            f"{path}: expected the weights of the SegFormer in its config.json, got others ({told}). Fetch "
            "all files again."
        )
    return model


@torch.inference_mode()
def segment(model: SegformerForSemanticSegmentation, pictures: Tensor) -> dict[str, Tensor]:
    """Masks `[B, H, W]` of 0 and 1 by the names of the segmenter, from pictures `[B, H, W, 3]` in 0..1.

    As published: in the size of the picture, logits enlarged bilinearly, and of each pixel the likeliest.
    """
    mean, spread = (pictures.new_tensor(each) for each in (MEAN, SPREAD))
    weight = next(model.parameters())
    logits = model(((pictures - mean) / spread).movedim(-1, 1).to(weight)).logits
    chosen = functional.interpolate(logits.float(), size=pictures.shape[1:3], mode="bilinear").argmax(1)
    names = model.config.id2label
    return {names[number]: (chosen == number).float() for number in sorted(names)}
