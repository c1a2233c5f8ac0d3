"""DINOv2 in ComfyUI's own class, and what it sees at each place of pictures."""
from __future__ import annotations

import comfy.model_management
import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor

KIND = "dinov2"
PICTURES_AT_ONCE = 8  # bounds the memory, and lets Cancel in between


def check_dino(node: str, clip_vision: ClipVisionModel, socket: str = "its CLIP_VISION") -> None:
    """Raise ValueError for another kind of encoder in a socket of a node."""
    if clip_vision.model_type != KIND:
        raise ValueError(
            f"{node} expected a DINOv2 as {socket}, got a {clip_vision.model_type}. Load one with "
            "Load DINOv2, or the large one with Load CLIP Vision."
        )


@torch.inference_mode()
def features_of(clip_vision: ClipVisionModel, pixels: Tensor) -> Tensor:
    """What the last layer sees, `[B,d,h,w]` float32 on the CPU: as published without the last norm."""
    comfy.model_management.load_models_gpu([clip_vision.patcher])
    model, rows = clip_vision.model, pixels.shape[-2] // clip_vision.config["patch_size"]
    seen = [
        model.encoder(model.embeddings(chunk.to(clip_vision.load_device)))[0][:, 1:].float().cpu()
        for chunk in pixels.split(PICTURES_AT_ONCE)
    ]
    return torch.cat(seen).unflatten(1, (rows, -1)).movedim(-1, 1).clone()
