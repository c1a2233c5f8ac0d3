"""Training the miniature models from scratch, stage by stage, with fixed seeds."""
from __future__ import annotations

TRAINING_SEED = 7
# In the order in which they need one another: the UNets, for example, draw in the autoencoder's latents.
STAGES = (
    "data", "reader", "encoder", "autoencoder", "decoder", "unet", "text_unet", "prior", "export", "loras",
    "library", "pops", "object_insertion", "parts2whole", "dino", "part_words",
)
