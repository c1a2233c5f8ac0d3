"""The encoders of the command line; inside ComfyUI, those of the graph take their place."""
from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .cache import OperatorEncoders


def load_encoders(
    vision: Path, text: Path | None = None, device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> OperatorEncoders:
    """The image encoder in a file or a folder, and the text encoder in a folder if one is given.

    Raises:
        WeightFileError: one of them is missing, damaged or of another kind.
    """
    # transformers' models take a third of a second.
    from ...training.clip_text import load_clip_text
    from ...training.clip_vision import load_clip_vision

    model = load_clip_vision(vision).to(device, dtype).requires_grad_(False)

    @torch.no_grad()
    def pictures(pixels: Tensor) -> Tensor:
        return model(pixels.to(device, dtype)).image_embeds.float().cpu()

    words = None if text is None else load_clip_text(text, device, dtype)
    return OperatorEncoders(vision.name, model.config.image_size, pictures, words)
