"""The sizes of the miniature models, for training and for ComfyUI's side."""
from __future__ import annotations

from ...ip_adapter.resampler import TOKENS_PER_PICTURE

# In pixels: an eighth of SDXL's 1024, so that latents are 16 x 16; the encoder sees half of that.
PICTURE_SIZE = 128
ENCODER_SIZE = 64
TOKEN_DIM = 64  # published: 2048

VISION = {"channels": (48, 96, 192), "positions": 64}  # three halvings of 64 px leave 8 x 8 positions
RESAMPLER = {"dim": 192, "depth": 2, "dim_head": 32, "heads": 6, "num_queries": TOKENS_PER_PICTURE,
             "embedding_dim": 192, "output_dim": TOKEN_DIM, "ff_mult": 4}
PRIOR = {"embedding_dim": TOKEN_DIM, "hidden_dim": 192, "num_layers": 5, "num_heads": 6}

# SDXL reads the last layer but one. Length and vocabulary are CLIP's, since ComfyUI's tokenizer is used.
TEXT_L = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
TEXT_G = dict(TEXT_L)
TEXT_LENGTH = 77
TEXT_VOCABULARY = 49408

PREVIEW_SIZE = 32
PREVIEW_HIDDEN = 512

READER = {"channels": (32, 64, 128, 192), "squeezed": 32, "features": 192}

# Every width is a multiple of the 32 groups that SDXL normalizes by.
AUTOENCODER_CHANNELS = (32, 64, 64, 96)
UNET_CHANNELS = (64, 128, 128)
UNET_DEPTHS = (0, 2, 1)  # transformer blocks on each level; none on the first, as in SDXL
UNET_HEAD_DIM = 32
# SDXL's own, which ComfyUI takes for granted: the scale of the latents, and six numbers for picture size,
# crop and target size, each embedded in 256.
LATENT_SCALE = 0.13025
TIME_IDS = 6
TIME_ID_DIM = 256
