"""Where in a picture a UNet looks at each word: the maps of its cross-attention.

As published, a map is the mean over the heads and over the layers that work at a thirty-second of the
picture's size: 16 x 16 for 512 x 512 pixels.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.hooks import RemovableHandle

LEVEL = 4  # how much smaller than the latent; a latent is 8 times smaller than the picture


def map_grid(height: int, width: int, level: int = LEVEL) -> tuple[int, int]:
    """Rows and columns of the maps for a latent of this size; `level` is a power of 2."""
    # Each halving of a UNet rounds up, and so does dividing by a power of 2 at once.
    return -(-height // level), -(-width // level)


def attention_map(q: Tensor, k: Tensor, heads: int, scale: float | None = None) -> Tensor:
    """How much each place looks at each word, `[B,N,T]`: the mean of the heads.

    Args:
        q: queries of the places, `[B,N,heads * e]`.
        k: keys of the words, `[B,T,heads * e]`.
        scale: of the products; 1 / sqrt(e) if None.
    """
    # Head by head: all heads at once would take as many times the memory.
    total: Tensor | float = 0.0
    for query, key in zip(q.chunk(heads, dim=-1), k.chunk(heads, dim=-1), strict=True):
        products = query @ key.transpose(1, 2) * (scale or query.shape[-1] ** -0.5)
        total = total + products.float().softmax(dim=-1)
    return total / heads


class AttentionMaps:
    """The mean of the maps of many layers, and of many steps, without keeping them.

    Args:
        grid: rows and columns; layers with another number of places are left out.
    """

    def __init__(self, grid: tuple[int, int]):
        self.grid = grid
        self.total: Tensor | None = None
        self.count = 0
        self.closed = False

    def wants(self, places: int) -> bool:
        """Whether a layer with so many places belongs to the maps."""
        return places == self.grid[0] * self.grid[1]

    def add(self, q: Tensor, k: Tensor, heads: int, scale: float | None = None) -> None:
        """Take the map of a layer, whose queries and keys are as in `attention_map`."""
        found = attention_map(q, k, heads, scale)
        if self.closed:
            return
        # Not in place: in training, the gradient goes through every layer's map.
        self.total = found if self.total is None else self.total + found
        self.count += 1

    def mean(self) -> Tensor:
        """The maps of all words, `[B,rows,columns,T]`. Raises ValueError if no layer has been added."""
        if self.total is None:
            rows, columns = self.grid
            raise ValueError(
                f"Expected a layer with {rows} x {columns} places, got none. Take another size of picture, "
                "or another base."
            )
        return (self.total / self.count).unflatten(1, self.grid)

    def take(self) -> Tensor:
        """The same, and from now on keep nothing; errors as in `mean`.

        For a layer that is computed again for its gradient, which must do again all that it did before.
        """
        found = self.mean()
        self.total, self.closed = None, True
        return found


@contextmanager
def watched(unet: nn.Module, maps: AttentionMaps) -> Iterator[AttentionMaps]:
    """Within the block, the cross-attention of a diffusers UNet also gives its maps, with their gradient.

    With gradient checkpointing the backward pass belongs into the block as well, since it computes the layers
    again; `maps.mean()` is to be asked for before.
    """
    hooks = watch(unet, maps)
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def watch(unet: nn.Module, maps: AttentionMaps) -> list[RemovableHandle]:
    """As `watched`, until the hooks are removed that it returns."""
    # The layers compute as ever, with whatever processor they have: queries and keys of the few layers that
    # are asked are computed once more. So nothing else pays for it.
    def look(layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        hidden = arguments[0] if arguments else named["hidden_states"]
        words = named.get("encoder_hidden_states")
        if words is not None and maps.wants(hidden.shape[1]):
            maps.add(layer.to_q(hidden), layer.to_k(words), layer.heads, layer.scale)

    layers = [layer for name, layer in unet.named_modules() if name.endswith("attn2")]
    return [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]


def maps_of_words(maps: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The maps `[B,rows,columns,T]` of words that each take some places of the text, `[B,n,rows,columns]`.

    A word of several places has their mean, one without any has zeros.
    """
    rows = [
        maps[..., list(own)].mean(dim=-1) if own else torch.zeros_like(maps[..., 0]) for own in places
    ]
    return torch.stack(rows, dim=1) if rows else maps.new_zeros(len(maps), 0, *maps.shape[1:3])


def as_masks(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps `[B,n,rows,columns]` as masks of a picture, `[B,n,height,width]`, the brightest place 1."""
    large = interpolate(maps, (height, width), mode="bilinear", align_corners=False)
    return large / large.amax(dim=(2, 3), keepdim=True).clamp(min=1e-6)
