"""The attribute reader: it tells what a picture shows, and has had no part in training any other model."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ...images import to_tensor
from ..drawing.composition import THING_LABEL
from ..drawing.creature import ATTRIBUTES, COLOR_NAMES
from ..drawing.scenes import SCENE_NAMES
from ..drawing.things import THINGS
from .sizes import PICTURE_SIZE, READER
from .weights import READER as READER_FILE
from .weights import float_weights

CLASSES = [len(options) for options in ATTRIBUTES.values()]
COUNTS = 4  # no, one or two things, or more
MAP_SIZE = PICTURE_SIZE // 4
MAP_LABELS = THING_LABEL + 1  # `PART_LABELS`, 0 for the ground, and one for every thing
GROUP = 8  # channels that are normalized together


@dataclass(frozen=True)
class Reading:
    """What the reader sees in N pictures.

    Attributes:
        attributes: class indices in the order of `ATTRIBUTES`, int64 `[N, A]`.
        scenes: indices into `SCENE_NAMES`, int64 `[N]`; of no meaning on a plain color.
        whole: probability that the picture shows exactly one complete creature, whatever stands beside it,
            `[N]`.
        features: what all of these were read from, `[N, 224]`.
        things: probability that a thing of this kind and color is there, `[N, K * C]`; the pair of
            `THINGS[k]` and `COLOR_NAMES[c]` is number `k * C + c`.
        counts: the number of things, int64 `[N]`; 3 = three or more.
        maps: what is at each place: one of `PART_LABELS`, `THING_LABEL` for any thing, or 0, the ground;
            uint8 `[N, 64, 64]`.
    """

    attributes: Tensor
    scenes: Tensor
    whole: Tensor
    features: Tensor
    things: Tensor
    counts: Tensor
    maps: Tensor

    @classmethod
    def joined(cls, readings: Sequence[Reading]) -> Reading:
        """Several readings as one."""
        return cls(*(
            torch.cat([getattr(reading, field.name) for reading in readings]) for field in fields(cls)
        ))

    def cpu(self) -> Reading:
        """The same on the CPU."""
        return Reading(*(getattr(self, field.name).cpu() for field in fields(self)))


class Logits(NamedTuple):
    """What the heads say about N pictures, all but the maps."""

    features: Tensor
    attributes: Tensor  # `[N, sum(CLASSES)]`
    scenes: Tensor  # `[N, 13]`
    whole: Tensor  # `[N]`
    things: Tensor  # `[N, K * C]`
    counts: Tensor  # `[N, COUNTS]`


class NormalizedConv(nn.Module):
    """A convolution of 3 x 3, normalized and activated."""

    def __init__(self, before: int, after: int, operations, *, stride: int = 1, **factory):
        super().__init__()
        self.conv = operations.Conv2d(before, after, 3, stride=stride, padding=1, **factory)
        self.norm = operations.GroupNorm(after // GROUP, after, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, h, w]` -> `[N, C', h / stride, w / stride]`."""
        return functional.relu(self.norm(self.conv(x)))


class Level(nn.Module):
    """Half the resolution, then convolutions beside a way past each."""

    def __init__(self, before: int, after: int, count: int, operations, **factory):
        super().__init__()
        self.down = NormalizedConv(before, after, operations, stride=2, **factory)
        self.mix = nn.ModuleList(NormalizedConv(after, after, operations, **factory) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, h, w]` -> `[N, C', h / 2, w / 2]`."""
        x = self.down(x)
        for mix in self.mix:
            x = x + mix(x)
        return x


class Gather(nn.Module):
    """One vector from two feature maps: weighted means of the fine one, and the coarse one place by place."""

    def __init__(self, operations, **factory):
        super().__init__()
        width, coarse = READER["channels"][-2:]
        queries, values, squeezed = READER["queries"], READER["values"], READER["squeezed"]
        # Each query finds a part, wherever it is and however large.
        self.scores = operations.Conv2d(width, queries, 1, **factory)
        self.values = operations.Conv2d(width, values, 1, **factory)
        # Means cannot count: two creatures have the same ones as one. That takes places.
        self.squeeze = operations.Conv2d(coarse, squeezed, 1, **factory)
        cells = (PICTURE_SIZE // 2 ** len(READER["channels"])) ** 2
        self.out = operations.Linear(queries * values + squeezed * cells, READER["features"], **factory)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """`[N, C, 16, 16]` and `[N, C, 8, 8]` -> `[N, 224]`."""
        weights = self.scores(fine).flatten(2).softmax(dim=2)
        values = self.values(fine).flatten(2)
        means = weights.to(values) @ values.transpose(1, 2)
        places = self.squeeze(coarse).flatten(1)
        return functional.silu(self.out(torch.cat([means.flatten(1), places], dim=1)))


class MapDecoder(nn.Module):
    """A label map of a quarter of the picture's size from the features of three levels."""

    def __init__(self, operations, **factory):
        super().__init__()
        (high, middle, low), (first, second) = READER["channels"][1:4], READER["map_channels"]
        self.narrow = operations.Conv2d(low, first, 1, **factory)
        self.middle = operations.Conv2d(middle, first, 1, **factory)
        self.mix_middle = NormalizedConv(first, second, operations, **factory)
        self.high = operations.Conv2d(high, second, 1, **factory)
        self.mix_high = NormalizedConv(second, second, operations, **factory)
        self.out = operations.Conv2d(second, MAP_LABELS, 1, **factory)

    def forward(self, high: Tensor, middle: Tensor, low: Tensor) -> Tensor:
        """Features at 64 x 64, 32 x 32 and 16 x 16 -> logits `[N, MAP_LABELS, 64, 64]`."""
        x = self.mix_middle(doubled(self.narrow(low)) + self.middle(middle))
        return self.out(self.mix_high(doubled(x) + self.high(high)))


class CreatureReader(nn.Module):
    """A residual convolutional network with a linear head for each question, and a decoder of label maps."""

    def __init__(self, operations=nn, *, device=None, dtype=None):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        widths, gathered = READER["channels"], READER["features"]
        self.stem = operations.Conv2d(3, widths[0], 3, stride=2, padding=1, **factory)
        self.levels = nn.ModuleList(
            Level(before, after, count, operations, **factory)
            for (before, after), count in zip(pairwise(widths), READER["blocks"], strict=True)
        )
        self.join = NormalizedConv(widths[-2], widths[-2], operations, **factory)
        self.gather = Gather(operations, **factory)
        self.decoder = MapDecoder(operations, **factory)
        self.attributes = operations.Linear(gathered, sum(CLASSES), **factory)
        self.scene = operations.Linear(gathered, len(SCENE_NAMES), **factory)
        self.whole = operations.Linear(gathered, 1, **factory)
        self.counts = operations.Linear(gathered, COUNTS, **factory)
        self.things = operations.Conv2d(widths[-2], len(THINGS) * len(COLOR_NAMES), 1, **factory)

    def trunk(self, pictures: Tensor) -> list[Tensor]:
        """`[N, 3, 256, 256]` in 0..1 -> features `[N, C, S, S]` for S = 64, 32, 16 and 8."""
        x, found = functional.relu(self.stem(pictures * 2 - 1)), []
        for level in self.levels:
            x = level(x)
            found.append(x)
        # What is at a place depends on what is around it.
        found[-2] = self.join(found[-2] + doubled(found[-1]))
        return found

    def heads(self, levels: list[Tensor]) -> Logits:
        """What the features of the trunk say."""
        features = self.gather(*levels[-2:])
        # There is a thing where any place shows it.
        things = self.things(levels[-2]).float().flatten(2)
        return Logits(
            features=features,
            attributes=self.attributes(features),
            scenes=self.scene(features),
            whole=self.whole(features).flatten(),
            things=things.logsumexp(dim=2) - math.log(things.shape[2]),
            counts=self.counts(features),
        )

    def maps(self, levels: list[Tensor]) -> Tensor:
        """Logits of the label maps from the features of the trunk, `[N, MAP_LABELS, 64, 64]`."""
        return self.decoder(*levels[:3])

    @torch.no_grad()
    def read(self, pictures: Tensor, batch: int = 32) -> Reading:
        """Read pictures `[N, 3, 256, 256]` in 0..1."""
        return Reading.joined([self._read(chunk) for chunk in pictures.split(batch)])

    def _read(self, pictures: Tensor) -> Reading:
        levels = self.trunk(pictures)
        logits = self.heads(levels)
        attributes = logits.attributes.split(CLASSES, dim=1)
        return Reading(
            attributes=torch.stack([part.argmax(dim=1) for part in attributes], dim=1),
            scenes=logits.scenes.argmax(dim=1),
            whole=logits.whole.sigmoid(),
            features=logits.features,
            things=logits.things.sigmoid(),
            counts=logits.counts.argmax(dim=1),
            maps=self.maps(levels).argmax(dim=1).to(torch.uint8),
        )


def doubled(x: Tensor) -> Tensor:
    """`[N, C, h, w]` -> `[N, C, 2 h, 2 w]`."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def load_reader() -> CreatureReader:
    """The shipped reader, in fp32 on the CPU.

    Raises:
        WeightFileError: its weights are missing, damaged or of another version.
    """
    reader = CreatureReader()
    reader.load_state_dict(float_weights(READER_FILE))
    return reader.eval().requires_grad_(False)


def as_pictures(images: list[Image.Image]) -> Tensor:
    """PIL pictures of one size to `[N, 3, H, W]` in 0..1."""
    return to_tensor(images).permute(0, 3, 1, 2).contiguous()
