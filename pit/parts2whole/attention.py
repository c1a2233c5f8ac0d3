"""What the denoising UNet attends to: itself and the references, words and image tokens (arXiv 2404.15267).

Nothing here knows which library runs the UNet: the functions take queries, keys and values as its layers have
projected them, and the attention that it has chosen for this machine.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..ip_adapter.attention import ImageKeyValue, attend_to_tokens
from ..unet import Attention, multi_head_attention

IMAGE_TOKENS = 6
"""How many image tokens the published model was trained on; unused ones are zeros."""


class ReferenceTokens(NamedTuple):
    """What one layer reads of all references, M tokens.

    Attributes:
        tokens: `[1, M, C]`, or `[B, M, C]` with references of its own for each picture.
        bias: added to the logits of these tokens, `[1, M]` or `[B, M]`; None where it is 0.
    """

    tokens: Tensor
    bias: Tensor | None


class KeysAndValues(NamedTuple):
    """Reference tokens as a layer attends to them: the same in all steps, so that they are computed once.

    Attributes:
        keys, values: `[1, M, C]` or `[B, M, C]`.
        bias: as in `ReferenceTokens`.
    """

    keys: Tensor
    values: Tensor
    bias: Tensor | None


def keys_and_values(
    references: ReferenceTokens, to_k: Callable[[Tensor], Tensor], to_v: Callable[[Tensor], Tensor],
) -> KeysAndValues:
    """References as a layer of the denoising UNet attends to them, by its own projections.

    Args:
        to_k, to_v: projections without a bias, so that the key and the value of a zero token are zero.
    """
    return KeysAndValues(to_k(references.tokens), to_v(references.tokens), references.bias)


def attend_with_references(
    q: Tensor, k: Tensor, v: Tensor, heads: int, references: KeysAndValues, reads: Sequence[bool],
    attention: Attention = multi_head_attention,
) -> Tensor:
    """Self-attention in which some rows of the batch also attend to the references.

    Args:
        q, k, v: of the layer's own tokens, `[B, N, C]`.
        references: one set for all rows that read, or one for each: the i-th row that reads takes set i
            modulo their number.
        reads: for each row whether it reads the references; rows of a negative prompt do not.
        attention: is called with the keyword `mask` where the references have a bias.
    Returns:
        `[B, N, C]`.
    """
    parts, seen = [], 0
    for rows, reading in _runs(reads):
        own = q[rows], k[rows], v[rows]
        if reading:
            chosen = _sets(references, seen, len(own[0]))
            seen += len(own[0])
            parts.append(_attend(*own, heads, chosen, attention))
        else:
            parts.append(attention(*own, heads))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _runs(reads: Sequence[bool]) -> Iterator[tuple[slice, bool]]:
    """Neighboring rows of one kind, as slices: slices of a batch are views, and copy nothing."""
    start = 0
    for reading, rows in groupby(reads):
        end = start + len(list(rows))
        yield slice(start, end), reading
        start = end


def _sets(references: KeysAndValues, first: int, count: int) -> KeysAndValues:
    """The sets that a run of rows reads."""
    def chosen(each: Tensor) -> Tensor:
        if len(each) == 1:
            return each.expand(count, *each.shape[1:])
        if len(each) == count and not first % count:
            return each
        return each[[(first + row) % len(each) for row in range(count)]]

    keys, values, bias = references
    return KeysAndValues(chosen(keys), chosen(values), None if bias is None else chosen(bias))


def _attend(
    q: Tensor, k: Tensor, v: Tensor, heads: int, references: KeysAndValues, attention: Attention
) -> Tensor:
    own = k.shape[1]
    k, v = torch.cat([k, references.keys.to(k)], 1), torch.cat([v, references.values.to(v)], 1)
    # Without a mask wherever it can be: the fastest kernels take none.
    if references.bias is None:
        return attention(q, k, v, heads)
    # One row for all heads and queries: kernels align masks by copying them, and expanded to [N, N + M] for
    # each head, a copy would take more memory than all the rest.
    mask = functional.pad(references.bias.to(q), (own, 0))[:, None, None]
    return attention(q, k, v, heads, mask=mask)


def padded_image_tokens(embeds: Tensor) -> Tensor:
    """Image tokens of n references, `[B, n, D]`, filled up with zeros to six as in training.

    The published code takes the last six tokens for image tokens, and those before them for words. With more
    than six references, all of them are image tokens here, and none is filled up.
    """
    # Zeros are not masked: with a key of zero they take part of the weight, and the model has learned so.
    return functional.pad(embeds, (0, 0, 0, max(0, IMAGE_TOKENS - embeds.shape[1])))


def attend_decoupled(
    layer: ImageKeyValue, q: Tensor, k: Tensor, v: Tensor, images: Tensor, heads: int,
    scale: Tensor | float = 1.0, attention: Attention = multi_head_attention,
) -> Tensor:
    """Decoupled cross-attention, before `to_out`: attention to the words, and to the image tokens.

    Args:
        layer: the projections of the image tokens.
        q: queries of both `[B, N, C]`; k, v: of the words `[B, L, C]`.
        images: image tokens `[B, n, D]`, see `padded_image_tokens`.
        scale: weight of the image half.
    """
    return attention(q, k, v, heads) + attend_to_tokens(layer, q, images, scale, heads, attention)
