"""Training the miniature DINO without any label: parts are what has a color of its own.

In a line drawing, each place points at the places of the same picture that should have its color, as in
"Tracking Emerges by Colorizing Videos" (arXiv 1806.09594). A second view of the picture, placed elsewhere and
with its colors changed at random, is taught to see the same (self-distillation, as in DINO, arXiv
2104.14294), so that neither color nor place alone tells a part.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...encoders.dino import MEAN, STD
from ...files.weights import write_state
from ..models.dino import PATCH, SEEN, WIDTH, build_dino, dino_state
from ..models.part_files import DINO
from ..models.sizes import PICTURE_SIZE
from .export import METADATA
from .stage import Run, Stage, train_stage

if TYPE_CHECKING:
    from transformers import Dinov2Model

STAGE = Stage("dino", steps=3200, batch=16, learning_rate=1e-3, warmup=50)
SIDE = SEEN // PATCH  # places in a row
# What the numbers of a place tell: whether it is before the ground, its part, the shape of that, its color.
# Clusters follow the first two, which are by far the largest; within a part, the others tell looks apart.
TOLD = {"figure": 1, "part": 24, "style": WIDTH - 57, "color": 32}
LENGTHS = {"figure": 6.0, "part": 8.0, "style": 1.5, "color": 1.5}
# Few places would do for large parts alone; a low temperature would leave parts as wide as they happen to be.
POINTED_AT, TEMPERATURE = 96, 0.25
STYLE_TEMPERATURE = 0.1
# Colors of one part differ in lightness, where it is shaded or has a pattern, rather than in hue.
LIGHTNESS, GRAY, ALIKE = 0.35, 0.08, 0.06
GROUND = 0.2  # by how much the ground may differ from the border of a picture, as where a shadow lies
AGREEMENT, FIGURE, STYLE, COLOR, LENGTH = 0.5, 0.3, 0.1, 2.0, 0.1  # weights of the losses


class TaughtDino(nn.Module):
    """The encoder, and what reads colors off it, which is not shipped."""

    def __init__(self, operations=nn) -> None:
        super().__init__()
        self.dino = build_dino()
        prepare(self.dino)
        self.colors = operations.Linear(TOLD["color"], 3)

    def forward(self, pictures: Tensor) -> Tensor:
        """What is seen at each place of pictures `[B, 3, 224, 224]` in 0..1, `[B, 256, d]`."""
        mean, std = (torch.tensor(values, device=pictures.device)[:, None, None] for values in (MEAN, STD))
        return self.dino.encoder(self.dino.embeddings((pictures - mean) / std))[0][:, 1:]


@torch.no_grad()
def prepare(dino: Dinov2Model) -> None:
    """Random weights through which signals keep their size, and waves for places.

    DINOv2's own are smaller, and tell no place from another: with them, the first steps take far longer.
    """
    for weight in dino.parameters():
        if weight.ndim in (2, 4):
            weight.normal_(std=weight[0].numel() ** -0.5)
    middles = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    rates = math.pi / 2 * 2 ** torch.linspace(0, 3, 8)
    waves = torch.cat([
        wave(axis.flatten()[:, None] * rates) for axis in (columns, rows) for wave in (torch.sin, torch.cos)
    ], dim=1)
    mixed = waves @ torch.randn(waves.shape[1], WIDTH) / 4
    dino.embeddings.position_embeddings[0, 1:] = 0.7 * mixed


@dataclass(frozen=True)
class Views:
    """Two views of B pictures, each placed at random.

    Attributes:
        lines, colored: a line drawing of the first, and the second with other colors, `[B, 3, 224, 224]` in
            0..1.
        hues: of each place of the first, see `hues_of`, `[B, 256, 3]`.
        figures: whether each of them is before the ground, 1 or 0, `[B, 256]`.
        colors: of each place of the second as it is shown, `[B, 256, 3]`.
        places: for each place of the second, where the first shows the same, `[B, 16, 16, 2]` in -1..1.
    """

    lines: Tensor
    colored: Tensor
    hues: Tensor
    figures: Tensor
    colors: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Views:
        """The same, on a device."""
        return Views(*(value.to(device) for value in vars(self).values()))


def train_dino(run: Run, data: dict[str, np.ndarray], weights: Path) -> None:
    """Train the encoder on creatures on white, or resume its training, and write it to the folder `weights`.

    Args:
        data: the drawn data set, of which no label is read.
    """
    torch.manual_seed(run.seed)
    model = TaughtDino().to(run.device)
    trained = train_stage(run, STAGE, model, lambda step, generator: loss_of(
        run, model, draw_views(data["clean"], generator).to(run.device), generator
    ))
    state, metadata = dino_state(trained.dino)
    write_state(weights / DINO, state, METADATA | metadata)


def loss_of(run: Run, model: TaughtDino, views: Views, generator: torch.Generator) -> Tensor:
    """All losses of two views, weighted."""
    with run.autocast():
        seen = model(torch.cat([views.lines, views.colored])).float()
    figures, parts, styles, colors = (each.chunk(2) for each in seen.split(list(TOLD.values()), dim=2))
    (first, second), (shape, same_shape) = map(directions, (parts, styles))
    likeness = likeness_of(views.hues)
    rarity = 1 / (likeness.mean(dim=2) + 0.05)
    pointed_at = torch.rand(rarity.shape, generator=generator).topk(POINTED_AT, dim=1).indices
    known = torch.stack([rarity, views.figures], dim=2)
    there, inside = moved(torch.cat([known, first, shape], dim=2), views.places)
    told_rarity, told_figures, told_parts, told_shape = there.split(
        [1, 1, TOLD["part"], TOLD["style"]], dim=2
    )
    agreed = (functional.normalize(told_parts, dim=2).detach() * second).sum(dim=2)
    return (
        pointing_loss(first, likeness, rarity, pointed_at.to(first.device))
        + AGREEMENT * mean_over(1 - agreed, inside)
        + FIGURE * figure_loss(figures[0], views.figures[..., None], torch.ones_like(inside))
        + FIGURE * figure_loss(figures[1], told_figures, inside)
        + STYLE * style_loss(told_shape, same_shape, inside * told_rarity[..., 0])
        + COLOR * (model.colors(colors[1]) - views.colors).square().mean()
        + LENGTH * length_loss({"part": parts, "style": styles, "color": colors})
    )


# Losses ---------------------------------------------------------------------------------------------------


def pointing_loss(parts: Tensor, likeness: Tensor, rarity: Tensor, pointed_at: Tensor) -> Tensor:
    """How rarely places point at others of their own color.

    Args:
        parts: what is seen of the part of each place, of unit length, `[B, 256, d]`.
        likeness: of the colors of any two places, 0..1, `[B, 256, 256]`.
        rarity: how much each place counts, `[B, 256]`.
        pointed_at: the places that can be pointed at, `[B, S]`.
    """
    itself = pointed_at[:, None] == torch.arange(parts.shape[1], device=parts.device)[:, None]
    others = parts.gather(1, pointed_at[..., None].expand(-1, -1, parts.shape[2]))
    pointing = (parts @ others.transpose(1, 2) / TEMPERATURE).masked_fill(itself, -math.inf).softmax(dim=2)
    likeness = likeness.gather(2, pointed_at[:, None].expand(-1, parts.shape[1], -1)).masked_fill(itself, 0)
    reached, most = (pointing * likeness).sum(dim=2), likeness.amax(dim=2)
    # Where no other place has the color, there is nothing to learn.
    errors = most.clamp(min=1e-4).log() - reached.clamp(min=1e-4).log()
    return mean_over(errors, rarity)


def style_loss(told: Tensor, seen: Tensor, importance: Tensor) -> Tensor:
    """How hard it is to tell which of B pictures a place is in from its shape in the other view.

    The pictures show the same place, and so most often the same part: what differs is its style.

    Args:
        told, seen: styles in the first view and in the second, of unit length, `[B, 256, d]`.
        importance: how much each place counts, `[B, 256]`.
    """
    logits = torch.einsum("bpd,opd->bop", told, seen) / STYLE_TEMPERATURE
    own = torch.arange(len(seen), device=seen.device)[:, None].expand(-1, seen.shape[1])
    return mean_over(functional.cross_entropy(logits, own, reduction="none"), importance)


def figure_loss(found: Tensor, figures: Tensor, weights: Tensor) -> Tensor:
    """How far the first number of places is from what it says of figures, both `[B, 256, 1]`."""
    return mean_over((found / LENGTHS["figure"] - (2 * figures - 1)).square()[..., 0], weights)


def length_loss(numbers: Mapping[str, Sequence[Tensor]]) -> Tensor:
    """By what factor numbers of each kind are off their lengths, `[B, 256, d]` for each view."""
    # A factor, since they begin ten times too long, and would be all that the first steps are about.
    return sum(
        ((each.norm(dim=2) + 1e-3) / LENGTHS[kind]).log().square().mean()
        for kind, views in numbers.items() for each in views
    ) / 2


def directions(views: Sequence[Tensor]) -> list[Tensor]:
    """Numbers of both views, of unit length."""
    return [functional.normalize(each, dim=2) for each in views]


def mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of values; both `[B, 256]`."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)


def likeness_of(hues: Tensor) -> Tensor:
    """How alike the hues `[B, 256, 3]` of any two places are, 0..1, `[B, 256, 256]`."""
    return torch.exp(-torch.cdist(hues, hues).square() / ALIKE)


def moved(values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Values `[B, 256, d]` as the other view sees them, and where it sees any: 1 or 0, `[B, 256]`."""
    maps = values.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    found = functional.grid_sample(maps, places, align_corners=False).flatten(2).transpose(1, 2)
    return found, (places.abs().amax(dim=3) < 1).flatten(1).float()


# Views ----------------------------------------------------------------------------------------------------


def draw_views(pictures: np.ndarray, generator: torch.Generator) -> Views:
    """Views of pictures at random; of uint8 `[N, 256, 256, 3]`."""
    rows = torch.randint(len(pictures), (STAGE.batch,), generator=generator).numpy()
    shown = torch.from_numpy(pictures[rows]).permute(0, 3, 1, 2).float() / 255
    first, second = (placements(STAGE.batch, generator) for _ in range(2))
    true, colored = placed(shown, first), recolored(placed(shown, second), generator)
    places = functional.affine_grid(
        (torch.linalg.inv(first) @ second)[:, :2], [STAGE.batch, 1, SIDE, SIDE], align_corners=False
    )
    border, figures = figures_in(true)
    # A place of the ground has the color of the ground, however much of a figure is in it.
    hues = hues_of(torch.where(figures[..., None] > 0, middles_of(true), border[:, None]))
    return Views(line_drawing(true), colored, hues, figures, middles_of(colored), places)


def placements(count: int, generator: torch.Generator) -> Tensor:
    """Where views lie in pictures: a little turned, stretched and moved, half mirrored; `[N, 3, 3]`."""
    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    angle, scale = between(-0.1, 0.1), between(0.85, 1.2) * SEEN / PICTURE_SIZE
    wide, high = scale * between(0.93, 1.07), scale * between(0.93, 1.07)
    mirror = (between(0, 1) < 0.5) * 2.0 - 1
    found = torch.zeros(count, 3, 3)
    found[:, 0] = torch.stack([mirror * wide * angle.cos(), -high * angle.sin(), between(-0.08, 0.08)], dim=1)
    found[:, 1] = torch.stack([mirror * wide * angle.sin(), high * angle.cos(), between(-0.08, 0.08)], dim=1)
    found[:, 2, 2] = 1
    return found


def placed(pictures: Tensor, where: Tensor) -> Tensor:
    """The views `[B, 3, 224, 224]` that lie there in pictures `[B, 3, H, W]`."""
    grid = functional.affine_grid(where[:, :2], [len(pictures), 3, SEEN, SEEN], align_corners=False)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def recolored(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures `[B, 3, H, W]` in 0..1 with other colors, a little or much; black and white stay."""
    axis = torch.linspace(0, 1, 3)
    same = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")[::-1])
    table = torch.rand(len(pictures), *same.shape, generator=generator)
    table[:, :, 0, 0, 0], table[:, :, 2, 2, 2] = 0, 1
    strength = torch.rand(len(pictures), 1, 1, 1, 1, generator=generator)
    grid = (pictures.permute(0, 2, 3, 1) * 2 - 1)[:, None]
    return functional.grid_sample(same + strength * (table - same), grid, align_corners=True)[:, :, 0]


def line_drawing(pictures: Tensor) -> Tensor:
    """Dark lines on gray where the colors of `[B, 3, H, W]` in 0..1 change."""
    across = functional.pad((pictures[..., 2:] - pictures[..., :-2]).abs(), (1, 1))
    down = functional.pad((pictures[..., 2:, :] - pictures[..., :-2, :]).abs(), (0, 0, 1, 1))
    change = (across + down).amax(dim=1, keepdim=True)
    return (0.5 - 0.5 * torch.tanh(3 * change)).expand_as(pictures)


def middles_of(pictures: Tensor) -> Tensor:
    """The mean color in the middle of each place, away from most outlines, `[B, 256, 3]`."""
    margin = 3
    inner = pictures[..., margin:-margin, margin:-margin]
    return functional.avg_pool2d(inner, PATCH - 2 * margin, PATCH).flatten(2).transpose(1, 2)


def hues_of(colors: Tensor) -> Tensor:
    """What is much the same all over a part of one color `[..., 3]`: the hue, and some of the lightness.

    On the gray axis, the hue is near 0.
    """
    lightness = colors.mean(dim=-1, keepdim=True)
    vivid = colors - lightness
    return vivid / (vivid.norm(dim=-1, keepdim=True) + GRAY) + LIGHTNESS * lightness


def figures_in(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Of pictures `[B, 3, 224, 224]` the color of the border, `[B, 3]`, and where figures are, `[B, 256]`.

    The ground is what is joined to the border by its color: 0, and the others 1.
    """
    sides = torch.cat([pictures[..., [0, -1], :].flatten(2), pictures[..., [0, -1]].flatten(2)], dim=2)
    border = sides.median(dim=2).values
    plain = (pictures - border[..., None, None]).abs().amax(dim=1, keepdim=True) < GROUND
    plain = (functional.avg_pool2d(plain.float(), PATCH // 2) > 0.5).float()
    ground = functional.pad(torch.zeros_like(plain[..., 1:-1, 1:-1]), (1, 1, 1, 1), value=1.0) * plain
    for _ in range(ground.shape[-1]):
        ground = functional.max_pool2d(ground, 3, stride=1, padding=1) * plain
    return border, (functional.avg_pool2d(1 - ground, 2) > 0.5).float().flatten(1)
