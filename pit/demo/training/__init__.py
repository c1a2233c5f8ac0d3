"""Training the miniature models from scratch, stage by stage, with fixed seeds."""
from __future__ import annotations

TRAINING_SEED = 7
STAGES = ("data", "reader", "encoder", "autoencoder", "unet", "prior", "export", "loras", "library")
