"""The image projection of the base IP-Adapter: one embedding in, a few tokens out (arXiv 2308.06721)."""
from __future__ import annotations

from torch import Tensor, nn


class ImageProjection(nn.Module):
    """`image_proj` of the published base IP-Adapter files; state-dict keys as there."""

    def __init__(
        self, embedding_dim: int, token_dim: int, tokens: int = 4, operations=nn, *, device=None, dtype=None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.proj = operations.Linear(embedding_dim, tokens * token_dim, **factory)
        self.norm = operations.LayerNorm(token_dim, **factory)
        self.tokens = tokens

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings `[B, E]` -> tokens `[B, T, D]`."""
        return self.norm(self.proj(embedding).unflatten(-1, (self.tokens, -1)))
