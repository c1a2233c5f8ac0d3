"""The attention loss of PartCraft (arXiv 2407.04604): each part word is to look at its part alone."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, interpolate

from .mapper import places

PUBLISHED, PRESENT = "published", "present"


def maps_in_texts(maps: Tensor, ids: Tensor, word_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The maps of part words in a batch of texts, `[B,M,rows,columns]`, and which are there, `[B,M]`.

    The map of a word that a text lacks is zero.

    Args:
        maps: of all places of the texts, `[B,rows,columns,T]`.
        ids: the tokens of the texts, `[B,T]`.
        word_ids: the token of each part.
    Raises:
        ValueError: a text has a part word twice, of which neither would be the part's.
    """
    found = [places(row, word_ids) for row in ids.tolist()]
    for row in ids.tolist():
        if any(row.count(word) > 1 for word in word_ids):
            raise ValueError("Expected each part word once in a text, got one twice. Leave one out.")
    empty = torch.zeros_like(maps[0, :, :, 0])
    rows = [
        torch.stack([empty if place is None else maps[number, :, :, place] for place in row])
        for number, row in enumerate(found)
    ]
    there = torch.tensor([[place is not None for place in row] for row in found], device=maps.device)
    return torch.stack(rows), there


def attention_loss(maps: Tensor, there: Tensor, masks: Tensor, form: str = PUBLISHED) -> Tensor:
    """The attention loss, a scalar: how far the share of each word in a place is from the mask of its part.

    As published, the maps are normalized over the parts, and a word that is not in the text counts as well:
    each place of its part costs 100, the limit of torch's logarithm, which moves no weight. The form
    "present" leaves these out, so that the value tells how well the words are placed.

    Args:
        maps, there: of `maps_in_texts`.
        masks: 1 where a part is, `[B,M,h,w]`; resized to the maps.
    Raises:
        ValueError: there is no such form.
    """
    if form not in (PUBLISHED, PRESENT):
        raise ValueError(f"Expected the form {PUBLISHED!r} or {PRESENT!r}, got {form!r}. Choose one.")
    masks = masks.to(maps.dtype)
    if masks.shape[2:] != maps.shape[2:]:
        masks = interpolate(masks, maps.shape[2:], mode="nearest")
    shares = maps / maps.sum(dim=1, keepdim=True).clamp(min=1e-6)
    losses = binary_cross_entropy(shares.clamp(0, 1), masks.clamp(0, 1), reduction="none")
    if form == PUBLISHED:
        return losses.mean()
    # Zero, and not NaN, where no text of the batch has a part word.
    counted = there[:, :, None, None].to(losses.dtype).expand_as(losses)
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def covered(masks: Tensor, there: Tensor) -> Tensor:
    """Where the parts are that the text speaks of, `[B,h,w]`: what a masked training learns from.

    The published trainer takes all parts of the picture, which together are all of it.
    """
    return (masks * there[:, :, None, None].to(masks.dtype)).amax(dim=1)
