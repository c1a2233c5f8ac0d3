"""The sizes of the miniature models: one place, read by training and by ComfyUI's side."""
from __future__ import annotations

from ...ip_adapter.resampler import TOKENS_PER_PICTURE

PICTURE_SIZE = 128
ENCODER_SIZE = 64
TOKEN_DIM = 64

VISION = {"channels": (48, 96, 192), "positions": 64}
RESAMPLER = {"dim": 192, "depth": 2, "dim_head": 32, "heads": 6, "num_queries": TOKENS_PER_PICTURE,
             "embedding_dim": 192, "output_dim": TOKEN_DIM, "ff_mult": 4}
PRIOR = {"embedding_dim": TOKEN_DIM, "hidden_dim": 192, "num_layers": 5, "num_heads": 6}

TEXT_L = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
TEXT_G = dict(TEXT_L)
TEXT_LENGTH = 77
TEXT_VOCABULARY = 49408

PREVIEW_SIZE = 32
PREVIEW_HIDDEN = 512

READER = {"channels": (32, 64, 128, 192), "squeezed": 32, "features": 192}

AUTOENCODER_CHANNELS = (32, 64, 64, 96)
UNET_CHANNELS = (64, 128, 128)
UNET_DEPTHS = (0, 2, 1)  # transformer blocks per level; the first level has none, as in SDXL
UNET_HEAD_DIM = 32
LATENT_SCALE = 0.13025
TIME_IDS = 6
TIME_ID_DIM = 256
