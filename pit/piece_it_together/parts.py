"""From a part to what the encoder sees: placed on white, laid out in slots.

Random numbers are drawn in the order of the published code, so that a seed gives the published pictures.
"""
from __future__ import annotations

import random

from PIL import Image

from ..images import on_white, resize_for_encoder, white_image
from .sketch import bezier_sketch

_CANVAS = 1024
MIN_SLOTS = 3
"""White slots fill up to this number at inference, as published, so training must know them."""


def place_part(
    part: Image.Image,
    *,
    canvas: int | tuple[int, int] = _CANVAS,
    scale: float | None = 0.92,
    placement: str = "random",
    rng: random.Random,
) -> Image.Image:
    """`part` on a white RGB picture, as large as `scale` of the canvas allows (Lanczos).

    `canvas` is the side of a square, or width and height. The published paste: sizes are truncated;
    `scale=None` first draws the scale from 0.4 to 0.8; then "random" draws x and y, in this order, whereas
    "centred" draws nothing. Transparency is composited on white. Parts so slender that the published formula
    crashes keep one pixel of width.

    Raises ValueError for another placement and for a scale outside 0..1.
    """
    if placement not in ("random", "centred"):
        raise ValueError(f'Expected the placement "random" or "centred", got "{placement}".')
    if scale is None:
        scale = rng.uniform(0.4, 0.8)
    if not 0 < scale <= 1:
        raise ValueError(f"Expected a scale above 0 and at most 1 (fills the canvas), got {scale}.")
    size = (canvas, canvas) if isinstance(canvas, int) else canvas
    width, height = _placed_size(part, size, scale)
    free_x, free_y = size[0] - width, size[1] - height
    x, y = free_x // 2, free_y // 2
    if placement == "random":
        x, y = rng.randint(0, free_x), rng.randint(0, free_y)
    result = Image.new("RGB", size, "white")
    result.paste(on_white(part).resize((width, height), Image.Resampling.LANCZOS), (x, y))
    return result


def reference_grid(images: list[Image.Image], size: int = _CANVAS) -> Image.Image:
    """Up to four pictures as a 2 x 2 grid, row by row, on a white `size` x `size` RGB picture.

    Each picture is stretched to its cell; with fewer than four, the last cells stay white. Training puts four
    whole objects of one kind here. Raises ValueError for no picture and for more than four.
    """
    if not 1 <= len(images) <= 4:
        raise ValueError(f"Expected one to four reference pictures, got {len(images)}.")
    grid = white_image(size)
    half = size // 2
    for i, image in enumerate(images):
        cell = on_white(image).resize((half, half), Image.Resampling.BICUBIC)
        grid.paste(cell, (i % 2 * half, i // 2 * half))
    return grid


def encoder_pictures(
    parts: list[Image.Image],
    *,
    reference: list[Image.Image] | None,
    reference_slot: bool,
    placement: str,
    seed: int,
    sketch_probability: float = 0.0,
    min_slots: int = MIN_SLOTS,
    size: int = 224,
) -> list[Image.Image]:
    """The pictures that the encoder sees, slot by slot: `size` x `size`, RGB.

    The layout of the published inference: with `reference_slot` the reference comes first (white if there is
    none), then each part as placed by `place_part`, then white up to `min_slots` in all. A single reference
    picture is taken to be a grid already and is stretched; two to four go through `reference_grid`. Each
    given picture turns into a sketch with `sketch_probability` (published: 0.5). All chance comes from
    `seed`.

    Raises ValueError for no parts, and for reference pictures without a reference slot.
    """
    if not parts:
        raise ValueError("Expected at least one part, got none.")
    if reference and not reference_slot:
        raise ValueError(
            f"Expected no reference pictures in a layout without a reference slot, got {len(reference)}. "
            "Leave them out, or use a layout with a reference slot."
        )
    rng = random.Random(seed)
    slots = [white_image(size)] if reference_slot else []
    if reference:
        slots = [sketch_or_not(_reference_picture(reference), sketch_probability, rng)]
    for part in parts:
        # The published canvas, although the encoder sees less: a sketch has its lines on that scale.
        placed = place_part(part, placement=placement, rng=rng)
        slots.append(sketch_or_not(placed, sketch_probability, rng))
    slots += [white_image(size)] * (min_slots - len(slots))
    return [resize_for_encoder(slot, size) for slot in slots]


def sketch_or_not(image: Image.Image, probability: float, rng: random.Random) -> Image.Image:
    """`image`, or with `probability` a sketch of it: 8 to 15 curves, one in ten dropped, as published.

    A probability of 0 draws nothing from `rng`, as published: the places drawn after it depend on that.
    """
    if probability > 0 and rng.random() < probability:
        return bezier_sketch(image, curves=rng.randint(8, 15), drop_probability=0.1, rng=rng)
    return image


def _placed_size(part: Image.Image, canvas: tuple[int, int], scale: float) -> tuple[int, int]:
    # Truncated twice, and the height from the truncated width, as published: the pixels depend on it.
    aspect = part.width / part.height
    width = max(int(min(canvas[0], canvas[1] * aspect) * scale), 1)
    height = min(max(int(width / aspect), 1), max(int(canvas[1] * scale), 1))
    return width, height


def _reference_picture(images: list[Image.Image]) -> Image.Image:
    if len(images) > 1:
        return reference_grid(images)
    # Bicubic, because the published code leaves the filter to Pillow, whose default that is.
    return on_white(images[0]).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC)
