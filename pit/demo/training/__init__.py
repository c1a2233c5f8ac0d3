"""Training the miniature models from scratch, stage by stage, with fixed seeds."""
from __future__ import annotations

TRAINING_SEED = 7
# In the order in which they need one another: the autoencoder, for example, is judged by the encoder.
STAGES = ("data", "reader", "encoder", "autoencoder", "unet", "prior", "export", "loras", "library")
