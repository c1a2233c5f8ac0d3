"""The attribute reader: it tells what a picture shows, and has had no part in training any other model."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ...images import to_tensor
from ..drawing.creature import ATTRIBUTES, SCENES
from .sizes import PICTURE_SIZE, READER
from .weights import READER as READER_FILE
from .weights import read_weights

CLASSES = [len(options) for options in ATTRIBUTES.values()]


@dataclass(frozen=True)
class Reading:
    """What the reader sees in N pictures.

    Attributes:
        attributes: class indices in the order of `ATTRIBUTES`, int64 `[N, A]`.
        scenes: indices into `SCENES`, int64 `[N]`.
        whole: probability that the picture shows one complete creature, `[N]`.
        features: what all of these were read from, `[N, 192]`.
    """

    attributes: Tensor
    scenes: Tensor
    whole: Tensor
    features: Tensor


class CreatureReader(nn.Module):
    """A residual convolutional network with one linear head for each question."""

    def __init__(self, operations=nn, *, device=None, dtype=None):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        widths, squeezed, gathered = READER["channels"], READER["squeezed"], READER["features"]
        self.stem = operations.Conv2d(3, widths[0], 3, stride=2, padding=1, **factory)
        self.stem_norm = operations.GroupNorm(8, widths[0], **factory)
        self.levels = nn.ModuleList(
            nn.ModuleDict({
                "down": operations.Conv2d(before, after, 3, stride=2, padding=1, **factory),
                "down_norm": operations.GroupNorm(8, after, **factory),
                "mix": operations.Conv2d(after, after, 3, padding=1, **factory),
                "mix_norm": operations.GroupNorm(8, after, **factory),
            })
            for before, after in pairwise(widths)
        )
        # `gather` is given every position. Without the squeeze it would have 2.4 million weights.
        self.squeeze = operations.Conv2d(widths[-1], squeezed, 1, **factory)
        cells = (PICTURE_SIZE // 2 ** len(widths)) ** 2
        self.gather = operations.Linear(squeezed * cells, gathered, **factory)
        self.attributes = operations.Linear(gathered, sum(CLASSES), **factory)
        self.scene = operations.Linear(gathered, len(SCENES), **factory)
        self.whole = operations.Linear(gathered, 1, **factory)

    def features(self, pictures: Tensor) -> Tensor:
        """`[N, 3, 128, 128]` in 0..1 -> `[N, 192]`."""
        x = functional.silu(self.stem_norm(self.stem(pictures * 2 - 1)))
        for level in self.levels:
            x = functional.silu(level["down_norm"](level["down"](x)))
            x = x + functional.silu(level["mix_norm"](level["mix"](x)))
        return functional.silu(self.gather(self.squeeze(x).flatten(1)))

    @torch.no_grad()
    def read(self, pictures: Tensor, batch: int = 64) -> Reading:
        """Read pictures `[N, 3, 128, 128]` in 0..1."""
        features = torch.cat([self.features(chunk) for chunk in pictures.split(batch)])
        logits = self.attributes(features).split(CLASSES, dim=1)
        return Reading(
            attributes=torch.stack([part.argmax(dim=1) for part in logits], dim=1),
            scenes=self.scene(features).argmax(dim=1),
            whole=self.whole(features).sigmoid().flatten(),
            features=features,
        )


def load_reader() -> CreatureReader:
    """The shipped reader, in fp32 on the CPU.

    Raises:
        WeightFileError: its weights are missing, damaged or of another version.
    """
    reader = CreatureReader()
    reader.load_state_dict({key: value.float() for key, value in read_weights(READER_FILE).items()})
    return reader.eval().requires_grad_(False)


def as_pictures(images: list[Image.Image]) -> Tensor:
    """PIL pictures of one size to `[N, 3, H, W]` in 0..1."""
    return to_tensor(images).permute(0, 3, 1, 2).contiguous()
