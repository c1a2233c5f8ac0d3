"""The reference pictures of Parts2Whole: labels, masks, how they are placed, and how they are wired up."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..images import on_white, to_pil, to_tensor
from ..messages import ShortError, quoted
from .attention import IMAGE_TOKENS

LABELS = (
    "upper body clothes", "lower body clothes", "whole body clothes", "hair or headwear", "face", "shoes",
)
"""Those that the published model was trained on; any other words are embedded just the same."""
LETTERBOX, CROP, STRETCH = "letterbox", "crop", "stretch"
FITS = (LETTERBOX, CROP, STRETCH)
MULTIPLE = 8  # of which sides must be: Stable Diffusion's VAE makes one latent pixel of 8 by 8


@dataclass(frozen=True)
class Reference:
    """A reference picture.

    Attributes:
        image: `[1, H, W, C]` in 0..1; a transparent one is put on white, and its alpha is the mask by
            default.
        label: what the part is.
        mask: `[1, H, W]` or `[H, W]` in 0..1, 1 where the part is; None for all of the picture.
        strength: how often it counts: at 2 as if it were given twice, at 0 as if it were not there.
    """

    image: Tensor
    label: str
    mask: Tensor | None = None
    strength: float = 1.0


class Placed(NamedTuple):
    """References in the size of the picture to make: pictures `[R, 3, H, W]`, masks `[R, 1, H, W]`, 0..1."""

    pictures: Tensor
    masks: Tensor


def check_references(references: Sequence[Reference]) -> None:
    """What can be told before a picture is looked at.

    Raises:
        ValueError: there are none, or one has no label, a label of another, a mask of another size, or a
            strength that is negative or not finite.
    """
    if not references:
        raise ValueError("Expected at least one reference picture, got none. Add one with its label.")
    seen: dict[str, int] = {}
    for number, reference in enumerate(references, 1):
        label = " ".join(reference.label.split()).casefold()
        if not label:
            raise ValueError(f"Expected a label for reference {number}, got none. Say which part it shows.")
        if label in seen:
            raise ShortError(
                f"Expected every reference to have a label of its own, got {quoted(reference.label)} for "
                f"references {seen[label]} and {number}. Rename or remove one of them."
            )
        seen[label] = number
        if not (math.isfinite(reference.strength) and reference.strength >= 0):
            raise ShortError(
                f"Expected the strength of {quoted(reference.label)} to be 0 or more, got "
                f"{reference.strength}."
            )
        _check_mask(reference)


def _check_mask(reference: Reference) -> None:
    if reference.mask is None:
        return
    size, found = list(reference.image.shape[-3:-1]), list(reference.mask.shape[-2:])
    if reference.mask.ndim not in (2, 3) or reference.mask.numel() != math.prod(size) or size != found:
        raise ShortError(
            f"Expected one mask of the size of {quoted(reference.label)}, {size[1]}x{size[0]}, got the shape "
            f"{list(reference.mask.shape)}. Take the mask that belongs to this picture."
        )


def placed(references: Sequence[Reference], width: int, height: int, fit: str = LETTERBOX) -> Placed:
    """References as the reference UNet sees them.

    Args:
        fit: "letterbox" keeps all of a picture and adds white that is masked out, "crop" fills the size from
            the middle, "stretch" changes the aspect, as published.
    Raises:
        ValueError: what `check_references` finds; sides that are no multiple of 8; several pictures in one
            reference; values that are not finite; a mask that leaves nothing.
    """
    check_references(references)
    check_size(width, height)
    if fit not in FITS:
        raise ValueError(f"Expected {', '.join(FITS)} as the fit of references, got {quoted(fit)}.")
    pairs = [_placed(reference, (width, height), fit) for reference in references]
    pictures = to_tensor([picture for picture, _ in pairs]).movedim(-1, 1)
    masks = torch.stack([to_tensor([mask])[0, ..., 0] for _, mask in pairs])
    return Placed(pictures, masks[:, None])


def check_size(width: int, height: int, multiple: int = MULTIPLE) -> None:
    """Raise ValueError unless both sides are multiples of a number."""
    if width < multiple or height < multiple or width % multiple or height % multiple:
        raise ValueError(
            f"Expected a width and a height that are multiples of {multiple}, got {width}x{height}."
        )


def _placed(reference: Reference, size: tuple[int, int], fit: str) -> tuple[Image.Image, Image.Image]:
    pictures = to_pil(reference.image)
    if len(pictures) != 1:
        raise ShortError(
            f"Expected one picture of {quoted(reference.label)}, got {len(pictures)}. Take one from the "
            "batch."
        )
    fitted = _fitted(pictures[0].convert("RGBA"), size, fit, (255, 255, 255, 0))
    # The alpha, of which the white that was added has none.
    mask = fitted.getchannel("A")
    if reference.mask is not None:
        given = to_pil(reference.mask.reshape(1, *reference.mask.shape[-2:], 1))[0]
        mask = _fitted(given, size, fit, 0)
    if not mask.getbbox():
        got = "one that shows only what the crop cuts off" if fit == CROP else "an empty one"
        raise ShortError(
            f"Expected a mask that shows some of {quoted(reference.label)}, got {got}. Draw the part, or "
            "take the mask away to use all of the picture."
        )
    return on_white(fitted), mask


def _fitted(image: Image.Image, size: tuple[int, int], fit: str, empty: int | tuple) -> Image.Image:
    bicubic = Image.Resampling.BICUBIC
    if fit == LETTERBOX:
        return ImageOps.pad(image, size, bicubic, empty)
    return ImageOps.fit(image, size, bicubic) if fit == CROP else image.resize(size, bicubic)


@dataclass(frozen=True)
class Wiring:
    """How labels, prompt and masks reach the networks.

    Attributes:
        own_labels: each reference has its own label, and the denoising UNet the prompt. Otherwise the first
            label takes the place of all of them, the prompt included.
        masks: they are used.
        all_images: all image tokens are image tokens. Otherwise only the last six are, and those before them
            words.
        rounded: what the reference UNet writes is rounded to float16.
    """

    own_labels: bool
    masks: bool
    all_images: bool
    rounded: bool

    def texts(self, labels: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """What the two UNets are told.

        Args:
            labels: embedded labels `[R, 77, D]`; prompt: the embedded prompt `[B, 77, D]`.
        Returns:
            Labels of the references `[R, 77, D]`, and the text of the denoising UNet `[B, 77, D]`.
        """
        if self.own_labels:
            return labels, prompt
        return labels[:1].expand_as(labels), labels[:1].expand_as(prompt)

    def tokens(self, text: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """What cross-attention takes for words `[B, L, D]` and for image tokens `[B, n, D]`, of the two.

        Raises:
            ValueError: image tokens are to be words, and are of another width than these.
        """
        words = 0 if self.all_images else max(0, images.shape[1] - IMAGE_TOKENS)
        if not words:
            return text, images
        if images.shape[-1] != text.shape[-1]:
            raise ValueError(
                f"Expected at most {IMAGE_TOKENS} references as published, since the image tokens of this "
                f"model are no words, got {images.shape[1]}. Wire it as trained."
            )
        return torch.cat([text, images[:, :words]], 1), images[:, words:]

    def masks_of(self, masks: Tensor) -> Tensor:
        """The masks that act, of those that were given."""
        return masks if self.masks else torch.ones_like(masks)


AS_TRAINED, AS_PUBLISHED = "as trained", "as published"
WIRINGS = {
    AS_TRAINED: Wiring(own_labels=True, masks=True, all_images=True, rounded=False),
    # With the mistakes of the published pipeline: it overwrites its own prompt by the label of the first
    # reference, and its scripts pass the masks under a name that it does not read.
    AS_PUBLISHED: Wiring(own_labels=False, masks=False, all_images=False, rounded=True),
}


def wiring(name: str = AS_TRAINED) -> Wiring:
    """A wiring by its name. Raises ValueError for another one."""
    if name not in WIRINGS:
        raise ValueError(f"Expected {' or '.join(WIRINGS)} as the wiring, got {quoted(name)}.")
    return WIRINGS[name]
