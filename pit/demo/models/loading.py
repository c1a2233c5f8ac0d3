"""Networks that several of the miniature models share, with the shipped weights, in fp32 on the CPU."""
from __future__ import annotations

import torch

from .autoencoder import CreatureAutoencoder
from .vision import CreatureVision
from .weights import AUTOENCODER, VISION, float_weights


def load_creature_autoencoder() -> CreatureAutoencoder:
    """The shipped autoencoder.

    Raises:
        WeightFileError: its file is missing, damaged or of another version.
    """
    autoencoder = CreatureAutoencoder()
    autoencoder.load_state_dict(float_weights(AUTOENCODER))
    return autoencoder.eval().requires_grad_(False)


def load_creature_vision(device: torch.device | str = "cpu") -> CreatureVision:
    """The shipped encoder of pictures; errors as in `load_creature_autoencoder`."""
    vision = CreatureVision()
    vision.load_state_dict(float_weights(VISION))
    return vision.to(device).eval().requires_grad_(False)
