"""CLIP vision models for the command line, by transformers.

Inside ComfyUI its own CLIP_VISION takes their place and gives the same tokens.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ..files.checked import MOST_LAYERS, computable, without_wrappers
from ..files.plain_json import read_json
from ..files.weights import WeightFileError, read_state
from ..messages import quoted

WEIGHT_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
# What the weights do not tell, by their width: attention heads and activation of the CLIP models that a
# single file can be. OpenAI trained ViT-L with a quick approximation of GELU, OpenCLIP its ViT-H (the encoder
# of IP-Adapter-plus for SDXL) and ViT-bigG with the exact one; the wrong one shifts all features silently.
KNOWN_WIDTHS = {1024: (16, "quick_gelu"), 1280: (16, "gelu"), 1664: (16, "gelu")}
EMBEDDINGS = "vision_model.embeddings."
LAYER = "vision_model.encoder.layers."


def load_clip_vision(path: Path) -> CLIPVisionModelWithProjection:
    """A CLIP vision model from a folder or a single file, on the CPU; see `load_encoder`.

    Raises:
        WeightFileError: missing, damaged, of another model, or of sizes that neither file nor config tells.
    """
    file = _weight_file(path) if path.is_dir() else path
    state, _ = read_state(file)
    # A complete CLIP model also has text weights; old files list the positions, which are not weights.
    state = {
        key: computable(tensor) for key, tensor in without_wrappers(state).items()
        if key.startswith(("vision_model.", "visual_projection.")) and not key.endswith("position_ids")
    }
    if f"{EMBEDDINGS}patch_embedding.weight" not in state:
        raise WeightFileError(
            f"{file}: expected a CLIP vision model in transformers' keys ({EMBEDDINGS}patch_embedding.weight "
            "and so on), got none of them. Take a file from ComfyUI's models/clip_vision, or the folder "
            "image_encoder of the published IP-Adapter."
        )
    config_file = file.with_name("config.json")
    config = _read_config(config_file) if config_file.is_file() else _config_of(file, state)
    model = _empty_model(file, config)
    _require_same_shapes(file, state, model)
    model.load_state_dict(state, assign=True)
    embeddings = model.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]  # in no file, so still on "meta"
    return model.eval()


def _empty_model(path: Path, config: CLIPVisionConfig) -> CLIPVisionModelWithProjection:
    """A model of these sizes without memory. Raises WeightFileError if there is no such model."""
    try:
        if config.num_hidden_layers > MOST_LAYERS:  # each is built before the first weight is looked at
            raise ValueError(f"it has {quoted(config.num_hidden_layers)} layers")
        # On the meta device nothing is allocated or initialized at random, only to be overwritten.
        with torch.device("meta"):
            return CLIPVisionModelWithProjection(config)
    except Exception as error:  # torch and transformers refuse odd sizes with errors of every kind
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{path}: expected the sizes of a CLIP vision model, got others ({reason}). Fetch the file and "
            "its config.json again."
        ) from error


def _weight_file(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise WeightFileError(
            f"{folder}: expected a config.json beside the weights, got none. Fetch the folder again."
        )
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightFileError(
        f"{folder}: expected one of {', '.join(WEIGHT_FILES)}, got none of them. Fetch the folder again."
    )


def _read_config(path: Path) -> CLIPVisionConfig:
    try:
        content = read_json(path)
        # The config of a complete CLIP model holds that of its vision part.
        content = content.get("vision_config", content)
        if content.get("model_type", "clip_vision_model") != "clip_vision_model":
            raise ValueError(f"its model type is {content['model_type']}")
        return CLIPVisionConfig.from_dict(content)
    except Exception as error:  # transformers raises errors of its own, which change with its version
        reason = " ".join(str(error).split())
        raise WeightFileError(
            f"{path}: expected the config of a CLIP vision model, got something else ({reason}). Fetch it "
            "again, or remove it to have the sizes read from the weights."
        ) from error


def _config_of(path: Path, state: dict[str, Tensor]) -> CLIPVisionConfig:
    """The sizes of a single file, inferred from the shapes of its weights."""
    def shape(key: str) -> list[int]:
        if key not in state:
            raise WeightFileError(
                f"{path}: expected a tensor {key}, got none. It is incomplete or belongs to another model."
            )
        return list(state[key].shape)

    patches = shape(f"{EMBEDDINGS}patch_embedding.weight")
    if len(patches) != 4 or patches[0] not in KNOWN_WIDTHS:
        raise WeightFileError(
            f"{path}: expected ViT-L, ViT-H or ViT-bigG, of width {', '.join(map(str, KNOWN_WIDTHS))}, got a "
            f"patch embedding of shape {patches}. For any other model, put its config.json beside it."
        )
    heads, activation = KNOWN_WIDTHS[patches[0]]
    numbers = (re.match(rf"{re.escape(LAYER)}(\d{{1,9}})\.", key) for key in state)
    # One position for each patch of a square picture, and one for the class token.
    side = round((shape(f"{EMBEDDINGS}position_embedding.weight")[0] - 1) ** 0.5)
    return CLIPVisionConfig(
        hidden_size=patches[0], num_channels=patches[1], patch_size=patches[2], image_size=side * patches[2],
        num_attention_heads=heads, hidden_act=activation,
        num_hidden_layers=1 + max((int(number[1]) for number in numbers if number), default=0),
        intermediate_size=shape(f"{LAYER}0.mlp.fc1.weight")[0],
        projection_dim=shape("visual_projection.weight")[0],
    )


def _require_same_shapes(path: Path, state: dict[str, Tensor], model: nn.Module) -> None:
    found: dict[str, Any] = {key: list(tensor.shape) for key, tensor in state.items()}
    expected = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    wrong = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
    if wrong:
        key = wrong[0]
        raise WeightFileError(
            f"{path} does not fit its config in {len(wrong)} tensors: expected {key} to be "
            f"{expected.get(key, 'absent')}, got {found.get(key, 'no such tensor')}. It is damaged or "
            "belongs to another model."
        )
