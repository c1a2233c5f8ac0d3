"""The autoencoder: pictures of 256 px to latents of 12 x 16 x 16 and back."""
from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .sizes import AUTOENCODER_BLOCKS, AUTOENCODER_CHANNELS, LATENT_CHANNELS

GROUP = 8  # channels that are normalized together


class Block(nn.Module):
    """Two convolutions beside a way past them."""

    def __init__(self, width: int, operations, **factory):
        super().__init__()
        self.norm1 = operations.GroupNorm(width // GROUP, width, **factory)
        self.conv1 = operations.Conv2d(width, width, 3, padding=1, **factory)
        self.norm2 = operations.GroupNorm(width // GROUP, width, **factory)
        self.conv2 = operations.Conv2d(width, width, 3, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, h, w]`, changed a little."""
        y = self.conv1(functional.silu(self.norm1(x)))
        return x + self.conv2(functional.silu(self.norm2(y)))


class Encoder(nn.Module):
    """Pictures to latents."""

    def __init__(self, operations, **factory):
        super().__init__()
        widths = AUTOENCODER_CHANNELS
        self.first = operations.Conv2d(3 * 4, widths[0], 3, padding=1, **factory)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, operations, **factory) for _ in range(count)))
            for width, count in zip(widths, AUTOENCODER_BLOCKS["encoder"], strict=True)
        )
        self.down = nn.ModuleList(
            operations.Conv2d(before, after, 3, stride=2, padding=1, **factory)
            for before, after in pairwise(widths)
        )
        self.norm = operations.GroupNorm(widths[-1] // GROUP, widths[-1], **factory)
        self.last = operations.Conv2d(widths[-1], LATENT_CHANNELS, 3, padding=1, **factory)

    def forward(self, pictures: Tensor) -> Tensor:
        """`[B, 3, H, W]` in -1..1 -> `[B, 12, H / 16, W / 16]`."""
        x = self.first(functional.pixel_unshuffle(pictures, 2))
        for number, level in enumerate(self.levels):
            x = level(x if number == 0 else self.down[number - 1](x))
        return self.last(functional.silu(self.norm(x)))


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, operations, **factory):
        super().__init__()
        widths = AUTOENCODER_CHANNELS[::-1]
        self.first = operations.Conv2d(LATENT_CHANNELS, widths[0], 3, padding=1, **factory)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(width, operations, **factory) for _ in range(count)))
            for width, count in zip(widths, AUTOENCODER_BLOCKS["decoder"][::-1], strict=True)
        )
        self.up = nn.ModuleList(
            operations.Conv2d(before, after, 3, padding=1, **factory)
            for before, after in pairwise(widths)
        )
        self.norm = operations.GroupNorm(widths[-1] // GROUP, widths[-1], **factory)
        self.last = operations.Conv2d(widths[-1], 3 * 4, 3, padding=1, **factory)

    def forward(self, latents: Tensor) -> Tensor:
        """`[B, 12, h, w]` -> `[B, 3, 16 h, 16 w]`, in -1..1 but for errors."""
        x = self.first(latents)
        for number, level in enumerate(self.levels):
            if number > 0:
                x = self.up[number - 1](functional.interpolate(x, scale_factor=2.0, mode="nearest"))
            x = level(x)
        return functional.pixel_shuffle(self.last(functional.silu(self.norm(x))), 2)


class CreatureAutoencoder(nn.Module):
    """A convolutional autoencoder whose latents have zero mean and unit spread in every channel."""

    def __init__(self, operations=nn, *, device=None, dtype=None):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.encoder, self.decoder = Encoder(operations, **factory), Decoder(operations, **factory)
        # Of the latents between the two, measured when they are trained.
        self.register_buffer("mean", torch.zeros(LATENT_CHANNELS, 1, 1, **factory))
        self.register_buffer("spread", torch.ones(LATENT_CHANNELS, 1, 1, **factory))

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures `[B, 3, H, W]` in -1..1, both sides multiples of 16, to latents `[B, 12, H/16, W/16]`."""
        latents = self.encoder(pictures)
        return (latents - self.mean.to(latents)) / self.spread.to(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents `[B, 12, h, w]` to pictures `[B, 3, 16 h, 16 w]`."""
        return self.decoder(latents * self.spread.to(latents) + self.mean.to(latents))

    def pictures(self, latents: Tensor) -> Tensor:
        """Latents `[B, 12, h, w]` to pictures `[B, 3, 16 h, 16 w]` in 0..1."""
        return (self.decode(latents) / 2 + 0.5).clamp(0, 1)

    def mean_and_spread(self, pictures: Tensor) -> Tensor:
        """Latents as trainings cache them, with their spread behind, which is zero: `[B, 24, H/16, W/16]`."""
        latents = self.encode(pictures)
        return torch.cat([latents, torch.zeros_like(latents)], dim=1)
