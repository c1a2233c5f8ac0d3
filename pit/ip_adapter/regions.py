"""Regions of a picture: how much of each cell of a layer's grid a mask covers."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

HALVINGS = 3  # the grids of a UNet: of its latents, and of a half, a quarter and an eighth of them
OUTSIDE = 1e-3  # how far beyond 0 and 1 the values of a mask may be by rounding

Size = tuple[int, int]


def checked_mask(mask: Tensor) -> Tensor:
    """A mask `[M, H, W]` in float32, of one in ComfyUI's layouts, `[H, W]`, `[M, H, W]` or `[M, 1, H, W]`.

    Raises ValueError for a mask of no pixels, or of values that are no shares.
    """
    if mask.ndim < 2 or mask.numel() == 0:
        raise ValueError(
            f"Expected a mask of at least one pixel, got one of shape {list(mask.shape)}. Connect another "
            "mask."
        )
    mask = mask.reshape(-1, *mask.shape[-2:]).float()
    low, high = mask.min().item(), mask.max().item()
    # Written so that NaN fails.
    if not (low >= -OUTSIDE and high <= 1 + OUTSIDE):
        raise ValueError(
            f"Expected a mask of values from 0 to 1, got {low:.4g} to {high:.4g}. Scale it, or connect "
            "another one."
        )
    return mask.clamp(0, 1)


def grids(size: Size) -> list[Size]:
    """The grids of a UNet's layers for latents of this size: each has half the cells, rounded up."""
    found = [size]
    for _ in range(HALVINGS):
        found.append(tuple((side + 1) // 2 for side in found[-1]))
    return found


def overlaps(start: Tensor, length: int, whole: Tensor, cells: int, pixels: int) -> Tensor:
    """What the cells along a side of a grid share with the pixels along that side of a mask.

    Args:
        start: where the part of the picture begins that the grid divides, in latent pixels `[B]`.
        length: of that part.
        whole: length of the picture `[B]`.
    Returns:
        `[B, cells, pixels]`, in units of which a cell has `length * pixels`.
    """
    # In whole numbers, so that no rounding lets in what lies on the other side of an edge.
    cell = (start * cells * pixels)[:, None] + torch.arange(cells, device=start.device) * length * pixels
    pixel = torch.arange(pixels, device=start.device) * (whole * cells)[:, None]
    end = torch.minimum((cell + length * pixels)[:, :, None], (pixel + (whole * cells)[:, None])[:, None])
    return (end - torch.maximum(cell[:, :, None], pixel[:, None])).clamp(min=0)


def coverage(mask: Tensor, windows: Tensor, size: Size, grid: Size) -> Tensor:
    """The share of each cell that a mask covers, of a mask that is stretched over the whole picture.

    Args:
        mask: `[B, H, W]`, or `[1, H, W]` for all rows.
        windows: of each row, where the part begins that it shows, and the size of the whole picture, in
            latent pixels `[B, 4]`: top, left, height, width.
        size: height and width of the part.
        grid: how many cells it has in height and width.
    Returns:
        `[B, *grid]`; exactly 1 where the mask is 1 all over a cell.
    """
    top, left, height, width = windows.long().unbind(1)
    rows = overlaps(top, size[0], height, grid[0], mask.shape[1]).to(mask)
    columns = overlaps(left, size[1], width, grid[1], mask.shape[2]).to(mask)
    down = rows @ mask / (size[0] * mask.shape[1])
    return down @ columns.transpose(1, 2) / (size[1] * mask.shape[2])


def resampled(shares: Tensor, grid: Sequence[int]) -> Tensor:
    """Shares of the cells of one grid `[B, h, w]` as those of another one that divides the same part."""
    height, width = shares.shape[1:]
    window = torch.tensor([[0, 0, height, width]], device=shares.device)
    return coverage(shares, window, (height, width), (grid[0], grid[1]))
