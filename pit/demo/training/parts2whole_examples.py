"""What the creatures' Parts2Whole learns from: drawn and encoded once, in files of some hundred pictures."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...images import clip_pixel_values
from ..drawing.captions import plain_caption
from ..drawing.composition import Composition, draw_composition, draw_map
from ..drawing.creature import PARTS
from ..drawing.draw import LABEL_COLORS, PART_LABELS, draw_label_map
from ..models.sizes import ENCODER_SIZE, LATENT_FACTOR, LATENT_SIZE, PICTURE_SIZE
from ..models.text import TextEncoder
from ..wholes import EVERYTHING, LABELS, Whole, sample_reference, sample_whole
from .autoencoder import encode_pictures
from .encoded import Encoders, in_files, load_encoders
from .stage import Run

MARGIN = LATENT_FACTOR // 2  # pixels that masks are wider by which were not drawn exactly
EXACT, WIDE, NO_MASK = MASKS = range(3)


@dataclass(frozen=True)
class References:
    """Creatures that parts come from, N of each.

    Attributes:
        shown: what their pictures show.
        latents: fp16 `[N, 12, 16, 16]`.
        embeddings: of the pictures, fp16 `[N, 256]`.
        masks: which parts each latent pixel belongs to, uint8 `[N, 2, 9, 16, 16]`: exactly, and widely.
    """

    shown: list[Composition]
    latents: Tensor
    embeddings: Tensor
    masks: Tensor

    def mask(self, number: int, label: str, kind: int) -> Tensor:
        """The mask of a part, or of the whole creature, in 0..1, `[1, 16, 16]`; `kind` is one of `MASKS`."""
        if kind == NO_MASK:
            return torch.ones(1, LATENT_SIZE, LATENT_SIZE)
        found = self.masks[number, kind]
        if label == EVERYTHING:
            return found.amax(dim=0, keepdim=True).float()
        return found[PARTS.index(label)][None].float()


@dataclass(frozen=True)
class Targets:
    """Wholes, N of each.

    Attributes:
        wholes: what they are made from.
        latents: fp16 `[N, 12, 16, 16]`.
        maps: label maps of the figures, uint8 `[N, 256, 256]`.
        places: which parts of the creature each latent pixel shows, uint8 `[N, 9, 16, 16]`.
    """

    wholes: list[Whole]
    latents: Tensor
    maps: Tensor
    places: Tensor

    def shows(self, number: int, labels: Sequence[str]) -> Tensor:
        """Where a target shows any of these parts, in 0..1, `[16, 16]`."""
        parts = PARTS if EVERYTHING in labels else labels
        found = self.places[number, [PARTS.index(part) for part in parts]]
        return found.amax(dim=0).float() if len(found) else torch.zeros(LATENT_SIZE, LATENT_SIZE)


class Texts:
    """Labels and captions as the UNets read them."""

    def __init__(self, text: TextEncoder, captions: Sequence[str]):
        """Embed all labels, the captions and the empty one."""
        self.lines = ["", *LABELS, *sorted(set(captions))]
        with torch.no_grad():
            self.embedded = torch.cat([text([line]) for line in self.lines])
        self.places = {line: number for number, line in enumerate(self.lines)}

    def of(self, lines: Sequence[str]) -> Tensor:
        """`[n, 77, 96]`."""
        return self.embedded[[self.places[line] for line in lines]]


@dataclass(frozen=True)
class Examples:
    """All that the training draws from."""

    references: References
    targets: Targets
    texts: Texts

    @cached_property
    def captions(self) -> list[str]:
        """A caption for each target: where it is, and no more."""
        return [plain_caption(whole.target) for whole in self.targets.wholes]


def draw_examples(run: Run, references: int, targets: int, text: TextEncoder) -> Examples:
    """Draw and encode so many pictures; what an earlier run has encoded is read again."""
    shown = [sample_reference(random.Random(f"{run.seed}/{i}/reference")) for i in range(references)]
    creatures = [each.creature for each in shown]
    wholes = [sample_whole(random.Random(f"{run.seed}/{i}/whole"), creatures) for i in range(targets)]
    encoders = load_encoders(run.device)
    of_references = in_files(run, "references", references, lambda rows: encode_references(
        run, encoders, [shown[row] for row in rows]
    ))
    of_targets = in_files(run, "targets", targets, lambda rows: encode_targets(
        run, encoders, [wholes[row] for row in rows]
    ))
    texts = Texts(text, [plain_caption(whole.target) for whole in wholes])
    return Examples(References(shown, **of_references), Targets(wholes, **of_targets), texts)


@torch.no_grad()
def encode_references(run: Run, encoders: Encoders, shown: Sequence[Composition]) -> dict[str, Tensor]:
    """The tensors of `References`."""
    pictures = [draw_composition(each, PICTURE_SIZE) for each in shown]
    masks = np.stack([latent_masks(draw_map(each, PICTURE_SIZE)) for each in shown])
    pixels = clip_pixel_values(pictures, ENCODER_SIZE).to(run.device)
    with run.autocast():
        embeddings = encoders.vision.embed(pixels)
    return {
        "latents": latents_of(run, encoders, pictures), "embeddings": embeddings.half().cpu(),
        "masks": torch.from_numpy(masks),
    }


def encode_targets(run: Run, encoders: Encoders, wholes: Sequence[Whole]) -> dict[str, Tensor]:
    """The tensors of `Targets`."""
    pictures = [draw_composition(whole.target, PICTURE_SIZE) for whole in wholes]
    maps = np.stack([draw_label_map(whole.figure, PICTURE_SIZE) for whole in wholes])
    true = [draw_label_map(whole.target.creature, PICTURE_SIZE) for whole in wholes]
    places = np.stack([latent_masks(each)[WIDE] for each in true])
    return {
        "latents": latents_of(run, encoders, pictures), "maps": torch.from_numpy(maps),
        "places": torch.from_numpy(places),
    }


def latents_of(run: Run, encoders: Encoders, pictures: Sequence[Image.Image]) -> Tensor:
    """Latents of pictures, fp16 `[N, 12, 16, 16]`."""
    pixels = np.stack([np.asarray(picture) for picture in pictures])
    with run.autocast():
        return encode_pictures(encoders.autoencoder, pixels, run.device).half()


def latent_masks(found: np.ndarray) -> np.ndarray:
    """Masks of all parts from a label map `[256, 256]`, uint8 `[2, 9, 16, 16]`: exactly, and widely.

    Of an exact mask, a UNet sees the first pixel of each latent pixel, as `token_mask` does. That misses what
    is thin, so that people draw their masks wider.
    """
    parts = np.stack([found == PART_LABELS[part] for part in PARTS])
    exact = parts[:, ::LATENT_FACTOR, ::LATENT_FACTOR]
    around = np.pad(parts, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))[:, :PICTURE_SIZE, :PICTURE_SIZE]
    blocks = around.reshape(len(PARTS), LATENT_SIZE, LATENT_FACTOR, LATENT_SIZE, LATENT_FACTOR)
    return np.stack([exact, blocks.any(axis=(2, 4))]).astype(np.uint8)


def pose_pictures(maps: Tensor) -> Tensor:
    """Label maps uint8 `[B, H, W]` as pictures in `LABEL_COLORS`, `[B, 3, H, W]` in 0..1."""
    colors = torch.tensor(LABEL_COLORS, dtype=torch.float32) / 255
    return colors[maps.long()].movedim(-1, 1)
