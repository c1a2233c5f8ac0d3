"""The miniature image encoder: a small convolutional trunk in place of CLIP's vision transformer."""
from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from .sizes import EMBEDDING, EMBEDDING_DIM, VISION


class Pooling(nn.Module):
    """One vector from features: weighted means of them, each of which finds a part, then two layers."""

    def __init__(self, operations, **factory):
        super().__init__()
        width, queries, values = VISION["channels"][-1], EMBEDDING["queries"], EMBEDDING["values"]
        self.scores = operations.Linear(width, queries, **factory)
        self.values = operations.Linear(width, values, **factory)
        self.hidden = operations.Linear(queries * values, EMBEDDING["hidden"], **factory)
        self.out = operations.Linear(EMBEDDING["hidden"], EMBEDDING_DIM, **factory)
        self.norm = operations.LayerNorm(EMBEDDING_DIM, elementwise_affine=False, **factory)

    def forward(self, features: Tensor) -> Tensor:
        """`[B, 64, 192]` -> `[B, 256]` of zero mean and unit spread."""
        weights = self.scores(features).softmax(dim=1)
        means = weights.transpose(1, 2) @ self.values(features)
        return self.norm(self.out(functional.silu(self.hidden(means.flatten(1)))))


class CreatureVision(nn.Module):
    """Pictures `[B, 3, 64, 64]`, normalized as for CLIP, to penultimate features and one pooled embedding."""

    def __init__(self, operations=nn, *, device=None, dtype=None):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        widths = VISION["channels"]
        self.down = nn.ModuleList(
            operations.Conv2d(before, after, 3, stride=2, padding=1, **factory)
            for before, after in pairwise((3, *widths))
        )
        self.mix = nn.ModuleList(operations.Conv2d(width, width, 3, padding=1, **factory) for width in widths)
        self.down_norm = nn.ModuleList(operations.GroupNorm(8, width, **factory) for width in widths)
        self.mix_norm = nn.ModuleList(operations.GroupNorm(8, width, **factory) for width in widths)
        self.position = operations.Embedding(VISION["positions"], widths[-1], **factory)
        self.pooling = Pooling(operations, **factory)

    def levels(self, pixel_values: Tensor) -> list[Tensor]:
        """Feature maps after each halving: `[B, C, S / 2, S / 2]`, `S / 4`, `S / 8`, of normalized pixels."""
        maps = [pixel_values]
        layers = zip(self.down, self.down_norm, self.mix, self.mix_norm, strict=True)
        for down, down_norm, mix, mix_norm in layers:
            x = functional.silu(down_norm(down(maps[-1])))
            maps.append(x + functional.silu(mix_norm(mix(x))))
        return maps[1:]

    def features(self, pixel_values: Tensor) -> Tensor:
        """`[B, 3, 64, 64]` -> `[B, 64, 192]`, the positions row by row."""
        x = self.levels(pixel_values)[-1]
        # The resampler attends to a set: without these it could not know where a feature was.
        return x.flatten(2).transpose(1, 2) + self.position.weight.to(x)

    def embed(self, pixel_values: Tensor) -> Tensor:
        """`[B, 3, 64, 64]` -> embeddings `[B, 256]`."""
        return self.pooling(self.features(pixel_values))

    def forward(
        self, pixel_values: Tensor, intermediate_output: int = -2
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        """What ComfyUI's vision models return: last and penultimate features, and the pooled embedding."""
        features = self.features(pixel_values)
        return features, features, self.pooling(features), None
