"""A small picture of what tokens mean, made without the renderer, to be shown while they are sampled."""
from __future__ import annotations

from torch import Tensor, nn

from ...images import CLIP_MEAN, CLIP_STD
from .sizes import PREVIEW_HIDDEN, PREVIEW_SIZE, TOKEN_DIM, TOKENS_PER_PICTURE


class TokenPreview(nn.Module):
    """Two layers that were trained together with the image encoder, on its tokens with added noise."""

    def __init__(self, operations=nn, *, device=None, dtype=None):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.layers = nn.Sequential(
            operations.Linear(TOKENS_PER_PICTURE * TOKEN_DIM, PREVIEW_HIDDEN, **factory), nn.SiLU(),
            operations.Linear(PREVIEW_HIDDEN, 3 * PREVIEW_SIZE * PREVIEW_SIZE, **factory),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """IP+ tokens `[B, 16, D]` -> pixel values, normalized as for CLIP, `[B, 3, 32, 32]`."""
        return self.layers(tokens.flatten(1)).unflatten(-1, (3, PREVIEW_SIZE, PREVIEW_SIZE))

    def pictures(self, tokens: Tensor) -> Tensor:
        """IP+ tokens `[B, 16, D]` -> pictures `[B, 32, 32, 3]` in 0..1."""
        pixels = self(tokens).permute(0, 2, 3, 1)
        return (pixels * pixels.new_tensor(CLIP_STD) + pixels.new_tensor(CLIP_MEAN)).clamp(0, 1)
