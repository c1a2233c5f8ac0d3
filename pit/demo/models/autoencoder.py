"""The autoencoder: pictures of 128 px to latents of 4 x 16 x 16 and back."""
from __future__ import annotations

from diffusers import AutoencoderKL

from .sizes import AUTOENCODER_CHANNELS, LATENT_SCALE, PICTURE_SIZE


def build_autoencoder() -> AutoencoderKL:
    """SDXL's autoencoder at miniature widths, with random weights."""
    blocks = len(AUTOENCODER_CHANNELS)
    return AutoencoderKL(
        sample_size=PICTURE_SIZE, latent_channels=4, scaling_factor=LATENT_SCALE,
        block_out_channels=AUTOENCODER_CHANNELS, layers_per_block=1, norm_num_groups=32,
        down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks,
    )
