"""Which part of a scene is worked on, at which size, and how it comes back into the scene."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Place:
    """A part of scenes, to be worked on alone.

    Attributes:
        scenes: whole pictures `[S, H, W, 3]`.
        box: the part of them.
        size: width and height at which it is worked on.
        region: `[1 or S, H, W]` in 0..1, outside of which nothing may change; None for the whole box.
        multiple: of which both sides must be multiples, so that pictures are padded to them.
    """

    scenes: Tensor
    box: Box
    size: tuple[int, int]
    region: Tensor | None = None
    multiple: int = 8

    @property
    def padded(self) -> tuple[int, int]:
        """Width and height of the pictures that are worked on."""
        width, height = (-(-side // self.multiple) * self.multiple for side in self.size)
        return width, height


def find_place(
    scenes: Tensor, region: Tensor | None = None, working_size: int = 512, margin: float = 0.5,
    multiple: int = 8,
) -> Place:
    """What to work on: the scenes as a whole, or the surroundings of a region.

    Args:
        scenes: `[S, H, W, 3]`.
        region: a mask `[1 or S, H, W]`.
        working_size: no more pixels are worked on than a square of this size has, and around a region no
            fewer, if there are as many; 0 takes the scenes as they are.
        margin: what to add on each side of the region, as a share of its size.
    Raises:
        ValueError: scenes or regions are no pictures or not finite, do not fit each other, or the region is
            empty.
    """
    if scenes.ndim != 4 or scenes.shape[-1] != 3 or 0 in scenes.shape or not scenes.is_floating_point():
        raise ValueError(
            f"Expected scenes [S, H, W, 3] with values in 0..1, got shape {list(scenes.shape)} of "
            f"{scenes.dtype}. Connect a picture."
        )
    if not scenes.isfinite().all():
        raise ValueError("Expected a scene with values in 0..1, got NaN or infinity. Check the node before.")
    height, width = scenes.shape[1:3]
    box = 0, 0, width, height
    if region is not None:
        _check_region(region, scenes)
        if working_size:
            box = _surroundings(_bounds(region), (width, height), working_size, margin)
    sides = box[2] - box[0], box[3] - box[1]
    scale = min(1.0, working_size / (sides[0] * sides[1]) ** 0.5) if working_size else 1.0
    size = max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))
    return Place(scenes, box, size, region, multiple)


def working_pictures(place: Place) -> Tensor:
    """The part of each scene to work on, `[S, h, w, 3]`; padding repeats the last row and column."""
    return _padded(_resized(_cut(place.scenes, place.box), place.size), place, "replicate")


def working_region(place: Place) -> Tensor | None:
    """1 for each cell of `multiple` pixels that the region touches, else 0: `[1 or S, 1, h, w]` of cells."""
    if place.region is None:
        return None
    touched = (_cut(place.region, place.box) > 0).float()[..., None]
    padded = _padded(_resized(touched, place.size), place, "constant")
    return (functional.max_pool2d(padded.movedim(-1, 1), place.multiple) > 0).float()


def put_back(place: Place, pictures: Tensor) -> Tensor:
    """Scenes with pictures `[N, h, w, 3]` in their place, `[N, H, W, 3]`; all else is kept to the last bit.

    Picture i goes into scene i modulo their number.

    Raises:
        ValueError: the pictures have another size, or are no multiple of the scenes.
    """
    width, height = place.padded
    if pictures.ndim != 4 or pictures.shape[1:3] != (height, width) or len(pictures) % len(place.scenes):
        raise ValueError(
            f"Expected pictures of {width}x{height} pixels, a multiple of {len(place.scenes)}, got shape "
            f"{list(pictures.shape)}. Decode the latents that Insert Object has prepared, as they are."
        )
    left, top, right, bottom = place.box
    inserted = pictures[:, :place.size[1], :place.size[0], :3].to(place.scenes)
    inserted = _resized(inserted, (right - left, bottom - top))
    times = len(pictures) // len(place.scenes)
    scenes = place.scenes.repeat(times, 1, 1, 1)
    if place.region is None:
        scenes[:, top:bottom, left:right] = inserted
        return scenes
    region = place.region.to(scenes)[:, top:bottom, left:right, None].clamp(0, 1)
    region = region.repeat(len(pictures) // len(region), 1, 1, 1)
    here = scenes[:, top:bottom, left:right]
    # Chosen, not blended, where nothing may change: blending may round.
    scenes[:, top:bottom, left:right] = torch.where(region > 0, here.lerp(inserted, region), here)
    return scenes


def _check_region(region: Tensor, scenes: Tensor) -> None:
    height, width = scenes.shape[1:3]
    if not region.isfinite().all():
        raise ValueError("Expected a region with values in 0..1, got NaN or infinity. Check its mask.")
    # Before the sizes: where nothing is painted, ComfyUI gives an empty mask of 64x64, whatever the picture.
    if not (region.flatten(1) > 0).any(1).all():
        raise ValueError(
            "Expected a region that covers some of each scene, got an empty mask (all zero). Paint where the "
            "object should go, or leave the mask unconnected."
        )
    if region.shape[1:] != (height, width) or len(region) not in (1, len(scenes)):
        raise ValueError(
            f"Expected one mask of the scene's size {width}x{height}, or one for each of {len(scenes)} "
            f"scenes, got {len(region)} of {region.shape[2]}x{region.shape[1]}. Resize the mask to the scene."
        )


def _bounds(region: Tensor) -> Box:
    """The smallest box around all that any of the masks covers."""
    covered = (region > 0).any(0)
    rows, columns = covered.any(1).nonzero(), covered.any(0).nonzero()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _surroundings(bounds: Box, size: tuple[int, int], least: int, margin: float) -> Box:
    """A box around another one, within a picture of a size, with sides of `least` where it has that much."""
    spans = []
    for side, whole in enumerate(size):
        first, last = bounds[side], bounds[side + 2]
        length = min(whole, max(least, round((last - first) * (1 + 2 * margin))))
        # In the middle, but not beyond the border: there the other side gets more.
        start = min(max(0, (first + last - length) // 2), whole - length)
        spans.append((start, start + length))
    (left, right), (top, bottom) = spans
    return left, top, right, bottom


def _cut(batch: Tensor, box: Box) -> Tensor:
    left, top, right, bottom = box
    return batch[:, top:bottom, left:right]


def _resized(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures `[B, h, w, C]` in another width and height, bicubic and antialiased."""
    if pictures.shape[1:3] == (size[1], size[0]):
        return pictures
    channels_first = pictures.movedim(-1, 1)
    resized = functional.interpolate(channels_first, size[::-1], mode="bicubic", antialias=True)
    return resized.movedim(1, -1).clamp(0, 1)


def _padded(pictures: Tensor, place: Place, mode: str) -> Tensor:
    (width, height), (full_width, full_height) = place.size, place.padded
    padding = 0, full_width - width, 0, full_height - height
    return functional.pad(pictures.movedim(-1, 1), padding, mode=mode).movedim(1, -1)
