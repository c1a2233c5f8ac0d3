"""The sizes of the miniature models, for training and for ComfyUI's side."""
from __future__ import annotations

from ...ip_adapter.resampler import TOKENS_PER_PICTURE

# In pixels. Latents are a 16th of the picture, so that UNets work on 16 x 16; the encoder sees 64 px.
PICTURE_SIZE = 256
ENCODER_SIZE = 64
LATENT_FACTOR = 16
LATENT_SIZE = PICTURE_SIZE // LATENT_FACTOR
LATENT_CHANNELS = 12
TOKEN_DIM = 64  # published: 2048

VISION = {"channels": (48, 96, 192), "positions": 64}  # three halvings of 64 px leave 8 x 8 positions
# One vector for a whole picture, the role of CLIP's `image_embeds`, gathered by a few queries.
EMBEDDING_DIM = 256
EMBEDDING = {"queries": 12, "values": 64, "hidden": 448}
BASE_TOKENS = 4  # of the base IP-Adapter, which draws from that vector
RESAMPLER = {"dim": 192, "depth": 2, "dim_head": 32, "heads": 6, "num_queries": TOKENS_PER_PICTURE,
             "embedding_dim": 192, "output_dim": TOKEN_DIM, "ff_mult": 4}
PRIOR = {"embedding_dim": TOKEN_DIM, "hidden_dim": 152, "num_layers": 5, "num_heads": 4}

# SDXL reads the last layer but one. Length and vocabulary are CLIP's, since ComfyUI's tokenizer is used.
TEXT_L = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
TEXT_G = dict(TEXT_L)
# SD 1.5 reads the last layer.
TEXT_SD15 = {"hidden_size": 96, "intermediate_size": 384, "num_attention_heads": 3, "num_hidden_layers": 3}
TEXT_LENGTH = 77
TEXT_VOCABULARY = 49408

PREVIEW_SIZE = 32
PREVIEW_HIDDEN = 128

# Blocks are those after each of the last four halvings.
READER = {"channels": (16, 40, 88, 128, 128), "blocks": (1, 2, 1, 1), "queries": 12, "values": 96,
          "squeezed": 12, "features": 224, "map_channels": (64, 48)}

# From half the size of a picture down to its latents; a pixel unshuffle makes the first halving.
AUTOENCODER_CHANNELS = (48, 64, 96, 128)
AUTOENCODER_BLOCKS = {"encoder": (1, 1, 1, 2), "decoder": (2, 2, 2, 3)}
# Every width is a multiple of the 32 groups that SDXL normalizes by.
UNET_CHANNELS = (64, 128, 128)
UNET_DEPTHS = (0, 2, 1)  # transformer blocks on each level; none on the first, as in SDXL
UNET_HEAD_DIM = 32
SD15_CHANNELS = (64, 96, 128)
SD15_HEAD_DIM = 32
# SDXL's own, which ComfyUI takes for granted: six numbers for picture size, crop and target size, each
# embedded in 256.
TIME_IDS = 6
TIME_ID_DIM = 256
