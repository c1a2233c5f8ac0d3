"""Image embeddings as they travel between operators, and the conditions that operators read.

Conditions as in pOps (arXiv 2406.01300): the slots that held the words of a text hold embeddings of pictures,
one each. An empty slot is zero in normalized space, the mean of all pictures.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from ..concepts.concepts import Concepts
from ..concepts.directions import EMBEDDING_SPACE
from ..files.records import answers_differ
from ..images import clip_pixel_values, on_white
from .modes import MOST_PARTS
from .prior import PriorTransformer

RAW, NORMALIZED = "raw", "normalized"
SQUASHED, CROPPED, LETTERBOXED = "squashed", "cropped", "letterboxed"
FITS = (SQUASHED, CROPPED, LETTERBOXED)
# Published encoders, by the width of their embeddings and by that of their own layers.
ENCODERS = {1280: "ViT-bigG", 1024: "ViT-H", 768: "ViT-L"}
LAYERS = {1664: "ViT-bigG", 1280: "ViT-H", 1024: "ViT-L"}
SQUASHED_PIXELS = 512  # the published inference goes by this size


@dataclass(frozen=True)
class Embedding(Concepts):
    """A batch of image embeddings, one per picture, and the space that they lie in.

    Attributes:
        values: `[B, E]` float32.
        negative: raw embedding of all-zero pixel values `[1, E]`, which decoders take as the negative; None =
            not known.
        encoder: what messages call the image encoder; "" = not known.
        space: `RAW`, as the encoder gives them, or `NORMALIZED` by the statistics of an operator.
    """

    negative: Tensor | None = None
    encoder: str = ""
    space: str = RAW
    what: ClassVar[str] = "image embeddings"

    def of_another_encoder(self, other: Embedding) -> bool:
        """Whether the encoders of both are known and differ."""
        # What an encoder makes of the same pixels tells it from all others, whatever file it comes from.
        return self.width != other.width or answers_differ(self.negative, other.negative)

    def check_alike(self, other: Embedding) -> None:
        """Raise ValueError unless both are of one encoder, as far as is known, and both raw or normalized."""
        check_same_encoder(self, other)
        if self.space != other.space:
            raise ValueError(
                f"Expected embeddings in one space, got {self.space} ones from {_described(self)} and "
                f"{other.space} ones from {_described(other)}. Take raw ones, as operators give them."
            )

    def direction_spaces(self) -> tuple[str, ...]:
        """See `Concepts`. Raises ValueError for normalized ones, on which distances are others."""
        if self.space != RAW:
            raise ValueError(
                f"Expected raw embeddings for a direction, got {self.space} ones from {_described(self)}. "
                "Take raw ones, as operators give them."
            )
        return (EMBEDDING_SPACE,)

    @property
    def encoder_answer(self) -> Tensor | None:
        """See `Concepts`."""
        return self.negative

    def inherited(self, sources: Sequence[Embedding]) -> dict[str, Any]:
        """See `Concepts`: what any of the sources knows of their encoder."""
        known = best_known(sources)
        return {"negative": known.negative, "encoder": known.encoder}


def best_known(embeddings: Sequence[Embedding]) -> Embedding:
    """One of those of one encoder: the first that knows its negative, by which the encoder is told."""
    return next((each for each in embeddings if each.negative is not None), embeddings[0])


def check_same_encoder(*embeddings: Embedding) -> None:
    """Raise ValueError unless all are of one width and, as far as is known, of one encoder."""
    first = embeddings[0]
    for other in embeddings[1:]:
        if first.of_another_encoder(other):
            raise ValueError(
                f"Expected embeddings of one image encoder, got those from {_described(first)} and those "
                f"from {_described(other)}. Encode all pictures with the same CLIP vision model."
            )


def check_fits(embedding: Embedding, width: int, name: str) -> None:
    """Raise ValueError unless an embedding has the width that something reads, and finite values.

    Args:
        name: what messages call the reader.
    """
    if embedding.width != width:
        published = f", {ENCODERS[width]} as published" if width in ENCODERS else ""
        raise ValueError(
            f"{name} expected image embeddings of width {width}, got those from {_described(embedding)}. Use "
            f"the image encoder that it was trained with{published}."
        )
    check_finite(embedding, name)


def check_decodable(embedding: Embedding, name: str) -> None:
    """Raise ValueError unless an embedding is finite and raw, as all that draws embeddings reads them."""
    if embedding.space != RAW:
        raise ValueError(
            f"{name} expected a raw embedding, got a {embedding.space} one from {embedding.source}. Pass it "
            "through an operator, or load it as raw if it is."
        )
    check_finite(embedding, name)


def check_finite(embedding: Embedding, name: str) -> None:
    """Raise ValueError if an embedding, or the negative that belongs to it, is not finite."""
    held = [embedding.values] if embedding.negative is None else [embedding.values, embedding.negative]
    if not all(each.isfinite().all() for each in held):
        raise ValueError(
            f"{name} expected finite numbers, got NaN or infinite values in the embedding from "
            f"{embedding.source}. Make it again."
        )


def normalized(embedding: Embedding, operator: PriorTransformer) -> Tensor:
    """The values in the operator's space `[B, E]` float32, wherever they lie now."""
    # Never twice: the values of a normalized embedding already are what the operator reads.
    values = embedding.values.float()
    return values if embedding.space == NORMALIZED else operator.normalized(values)


def raw(embedding: Embedding, operator: PriorTransformer) -> Tensor:
    """The values as an encoder gives them `[B, E]` float32, wherever they lie now."""
    values = embedding.values.float()
    return operator.raw(values) if embedding.space == NORMALIZED else values


def _described(embedding: Embedding) -> str:
    encoder = f"{embedding.encoder}, " if embedding.encoder else ""
    return f"{embedding.source} ({encoder}width {embedding.width})"


def picture_condition(
    slots: Sequence[Tensor | None], strengths: Sequence[float] | Tensor | None = None
) -> Tensor:
    """The condition of texturing, union, scene and clothes: a slot for each picture, `[B, n, E]`.

    Args:
        slots: normalized embeddings `[B, E]` each, or one for all rows; None = left out.
        strengths: for each slot, or `[B, n]`: 1 is as given, 0 as left out, between them on the way from the
            mean of all pictures. A slot that is left out stays visible as zero, as in training.
    Raises:
        ValueError: there are no slots or too many of them, nothing but empty ones, batches of different
            sizes, or strengths that do not fit.
    """
    given = [slot for slot in slots if slot is not None]
    if not 1 <= len(slots) <= MOST_PARTS:
        raise ValueError(f"Expected 1 to {MOST_PARTS} pictures, got {len(slots)}. Leave some out.")
    if not given:
        raise ValueError("Expected at least one embedding, got none. Connect one.")
    count = common_count([len(slot) for slot in given])
    empty = torch.zeros(count, given[0].shape[-1]).to(given[0])
    filled = [empty if slot is None else slot.expand(count, -1) for slot in slots]
    tokens = torch.stack(filled, dim=1)
    if strengths is None:
        return tokens
    scales = torch.as_tensor(strengths, dtype=tokens.dtype, device=tokens.device)
    if scales.shape not in ((len(slots),), (count, len(slots))) or not scales.isfinite().all():
        raise ValueError(
            f"Expected a finite strength for each of {len(slots)} pictures, got {scales.tolist()}."
        )
    return tokens * scales[..., None]


def word_condition(picture: Tensor, words: Sequence[Tensor], strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """The condition of instruct: the picture, then the tokens of the words, with a mask.

    Args:
        picture: normalized embeddings `[B, E]`, or `[1, E]` for all words.
        words: for each row the last hidden state of the text encoder `[L, E]`, after its final layer norm and
            from the first token to that of the end; one for all rows will do. They are not normalized. Zeros
            follow those of a text encoder that is narrower than the pictures' embeddings.
        strength: of the picture.
    Returns:
        Condition `[B, 1 + longest, E]`, and its mask.
    Raises:
        ValueError: there are no words, batches of different sizes, or words that are wider than pictures.
    """
    if not words or any(not len(each) for each in words):
        raise ValueError("Expected at least one word, got none. Write one, such as shiny.")
    widest = max(each.shape[-1] for each in words)
    if widest > picture.shape[-1]:
        raise ValueError(f"Expected words of a width up to {picture.shape[-1]}, got {widest}.")
    count = common_count([len(picture), len(words)])
    pictures = (strength * picture).expand(count, -1)
    texts = list(words) * count if len(words) == 1 else words
    return in_one_batch([
        torch.cat([row[None], functional.pad(text.to(row), (0, len(row) - text.shape[-1]))])
        for row, text in zip(pictures, texts, strict=True)
    ])


def in_one_batch(conditions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Conditions `[n, E]` of different lengths as `[B, longest, E]`, with the mask `[B, longest]`."""
    lengths = torch.tensor([len(each) for each in conditions], device=conditions[0].device)
    tokens = torch.nn.utils.rnn.pad_sequence(list(conditions), batch_first=True)
    return tokens, torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None]


def common_count(counts: Sequence[int]) -> int:
    """How many rows batches give together; those of one row are for all. Raises ValueError if they differ."""
    many = sorted(set(counts) - {1})
    if len(many) > 1 or 0 in counts:
        raise ValueError(
            f"Expected as many embeddings in each input, or one, got {' and '.join(map(str, counts))}. Pick "
            "as many of each, or single ones."
        )
    return many[0] if many else 1


def pixel_values(pictures: Sequence[Image.Image], fit: str = SQUASHED, size: int = 224) -> Tensor:
    """What the image encoder sees of pictures, `[B, 3, size, size]` float32.

    Args:
        fit: `SQUASHED` to a square, as the published inference does; `CROPPED` to the center square, as the
            published training does; or `LETTERBOXED`, the whole picture on white.
    Raises:
        ValueError: an unknown fit, no picture, or one that is far too long.
    """
    if fit not in FITS:
        raise ValueError(f"Expected one of {', '.join(FITS)}, got {fit!r}.")
    return clip_pixel_values([_fitted(on_white(picture), fit) for picture in pictures], size)


def _fitted(picture: Image.Image, fit: str) -> Image.Image:
    if fit == SQUASHED:
        return picture.resize((SQUASHED_PIXELS, SQUASHED_PIXELS), Image.Resampling.BICUBIC)
    if fit == LETTERBOXED:
        # Made smaller first: the square of a long picture can be hundreds of times as large as the picture.
        picture.thumbnail((2 * SQUASHED_PIXELS, 2 * SQUASHED_PIXELS), Image.Resampling.BICUBIC)
        side = max(picture.size)
        return ImageOps.pad(picture, (side, side), Image.Resampling.BICUBIC, color="white")
    return picture
