"""The words of PartCraft (arXiv 2407.04604): a vector for each part and code, for CLIP's text encoders.

A part is what pictures of a collection share, such as the head; a code tells whose. Each part has one more
word than codes, for pictures that lack the part.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor, nn

# The widths of the text encoders that share a word: SD 1.5, SD 2 and SDXL, by the width of the word.
ENCODERS = {768: (768,), 1024: (1024,), 2048: (768, 1280)}
BASES = {768: "SD 1.5", 1024: "SD 2", 2048: "SDXL"}


class TokenMapper(nn.Module):
    """Part words, with the state-dict keys of the published files.

    Args:
        num_parts: M, how many parts there are.
        num_codes: K, how many codes each has, without the one for "absent".
        dim: d, the width of a word; for SDXL that of both text encoders together.
        num_projections: linear layers behind the table, with ReLU between them; 0 or more.
        operations: where the layers come from, such as ComfyUI's own operations.
    """

    def __init__(
        self, num_parts: int, num_codes: int, dim: int, num_projections: int = 1, *,
        operations: ModuleType = nn, device: torch.device | str | None = None,
    ):
        super().__init__()
        self.num_parts, self.num_codes, self.dim = num_parts, num_codes, dim
        self.embedding = operations.Embedding((num_codes + 1) * num_parts, dim, device=device)
        self.pe = nn.Parameter(torch.randn(num_parts, dim, device=device))
        layers: list[nn.Module] = []
        for _ in range(num_projections):
            layers += [operations.Linear(dim, dim, device=device), nn.ReLU()]
        self.projection = nn.Sequential(*layers[:-1])

    def forward(self, codes: Tensor) -> Tensor:
        """The words `[B,M,d]` of pictures that a code for each part describes, `[B,M]`, as in training.

        The code `num_codes` means that the part is absent.
        """
        return self.words(codes, torch.arange(self.num_parts, device=codes.device))

    def vectors(self, codes: Tensor, parts: Tensor) -> Tensor:
        """The words `[B,n,d]` of codes `[B,n]` of parts `[B,n]`, or `[n]` for all rows, in the order given.

        Raises:
            ValueError: there is no such part, or no such code.
        """
        _check_range("part", parts, self.num_parts)
        _check_range("code", codes, self.num_codes + 1)
        return self.words(codes, parts)

    def words(self, codes: Tensor, parts: Tensor) -> Tensor:
        """As `vectors`, for numbers that are known to be right."""
        rows = parts.long() * (self.num_codes + 1) + codes.long()
        return self.projection(self.embedding(rows) + self.pe[parts.long()])

    def table(self) -> Tensor:
        """All words, `[M,K+1,d]`."""
        codes = torch.arange(self.num_codes + 1, device=self.pe.device)
        parts = torch.arange(self.num_parts, device=self.pe.device)
        return self.words(codes.expand(self.num_parts, -1), parts[:, None])


def _check_range(what: str, numbers: Tensor, count: int) -> None:
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < count:
        raise ValueError(
            f"Expected each {what} to be a number from 0 to {count - 1}, got {int(numbers.min())} to "
            f"{int(numbers.max())}. Take words that these part words have."
        )


def for_encoders(words: Tensor, widths: Sequence[int]) -> tuple[Tensor, ...]:
    """Words `[...,d]` for each text encoder of a base, by their widths: 768 and 1280 for SDXL.

    Raises:
        ValueError: the words were made for another base.
    """
    if words.shape[-1] != sum(widths):
        raise ValueError(
            f"Expected part words {sum(widths)} numbers wide, for {_base(sum(widths))}, got words of "
            f"{words.shape[-1]}, which are for {_base(words.shape[-1])}. Load the base that they were made "
            "with."
        )
    return words.split(tuple(widths), dim=-1)


def _base(width: int) -> str:
    return BASES.get(width, f"a base whose words have {width} numbers")


def places(ids: Sequence[int], word_ids: Sequence[int]) -> list[int | None]:
    """Where each word of a prompt stands among its tokens, None for one that was cut off.

    As published: the i-th mention of a part is the i-th of its tokens. If only one is left of several, every
    mention of the part falls on it, so that the last one counts.

    Args:
        ids: the tokens of the prompt.
        word_ids: the token of each word, in the order of the prompt.
    """
    found: dict[int, list[int]] = {}
    for place, token in enumerate(ids):
        found.setdefault(token, []).append(place)
    seen: Counter[int] = Counter()
    result: list[int | None] = []
    for token in word_ids:
        own = found.get(token, [])
        number = 0 if len(own) == 1 else seen[token]
        result.append(own[number] if number < len(own) else None)
        seen[token] += 1
    return result


def placed(embeddings: Tensor, ids: Tensor, words: Tensor, word_ids: Sequence[int]) -> Tensor:
    """Token embeddings `[B,T,d]` with words `[B,n,d]` in their places; see `places`.

    Args:
        ids: the tokens, `[B,T]`.
        word_ids: the token of each word, the same for all rows; those that a row lacks are left out of it.
    """
    result = embeddings.clone()
    for row, tokens in enumerate(ids.tolist()):
        for number, place in enumerate(places(tokens, word_ids)):
            if place is not None:
                result[row, place] = words[row, number].to(embeddings.dtype)
    return result


@contextmanager
def words_in(encoder: nn.Module, ids: Tensor, words: Tensor, word_ids: Sequence[int]) -> Iterator[None]:
    """Within the block, a text encoder of transformers reads words in their places; arguments of `placed`.

    The tokens of words may lie beyond the encoder's table, so that it needs no rows for them.
    """
    table = encoder.get_input_embeddings()

    def within(layer: nn.Embedding, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (arguments[0].clamp(max=layer.num_embeddings - 1),)

    def put(layer: nn.Embedding, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return placed(output, ids, words, word_ids)

    hooks = table.register_forward_pre_hook(within), table.register_forward_hook(put)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pooled_places(ids: Tensor) -> Tensor:
    """Where SDXL's pooled vector is taken, `[B]`: at the first of the highest token.

    The tokens of part words come after CLIP's own, so that this is the first mention of the last part, and
    the end of the text only where there is no part word. It looks like an oversight, but the published
    trainings of SDXL learned with it.
    """
    return ids.argmax(dim=-1)
