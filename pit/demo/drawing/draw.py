"""Pictures of creatures and of their parts."""
from __future__ import annotations

import random
from collections.abc import Collection

from PIL import Image

from ..models.sizes import ENCODER_SIZE
from .anatomy import start_figure
from .canvas import WHITE, ellipse
from .creature import PARTS, Creature
from .head import paint_ears, paint_eyes, paint_horns, paint_mouth
from .limbs import paint_arms, paint_body, paint_legs, paint_tail, paint_wings
from .scenes import draw_scene

# From back to front. Wings, the largest, come first, so that they hide nothing; the face comes last, so that
# nothing hides it.
PAINTERS = {
    "wings": paint_wings,
    "tail": paint_tail,
    "ears": paint_ears,
    "horns": paint_horns,
    "legs": paint_legs,
    "body": paint_body,
    "arms": paint_arms,
    "eyes": paint_eyes,
    "mouth": paint_mouth,
}


def draw_shape(creature: Creature, pixels: int, supersample: int, only: str | None = None) -> Image.Image:
    """The creature, or one part of it, on a transparent background (RGBA)."""
    figure = start_figure(creature, pixels, supersample, only)
    if only is None:
        # The shadow comes first: the pen replaces pixels instead of blending them, so a translucent shape on
        # top would punch a hole. A part drawn alone has none: the shadow would enlarge its bounding box.
        figure.canvas.shape(ellipse(50, 94, figure.width * 1.25, 3), (60, 50, 80, 60))
    for part, paint in PAINTERS.items():
        if only in (None, part) and creature.attributes[part] != "none":
            paint(figure)
    return figure.canvas.finish()


def draw_parts(creature: Creature, parts: Collection[str], pixels: int, supersample: int = 2) -> Image.Image:
    """Some of a creature's parts, in place, on a transparent background (RGBA)."""
    figure = start_figure(creature, pixels, supersample)
    for part, paint in PAINTERS.items():
        if part in parts and creature.attributes[part] != "none":
            paint(figure)
    return figure.canvas.finish()


def draw_creature(creature: Creature, pixels: int = 128, supersample: int = 2) -> Image.Image:
    """The whole creature in its scene, `pixels` x `pixels` (RGB)."""
    picture = draw_shape(creature, pixels, supersample)
    backdrop = draw_scene(creature.scene, pixels).copy()
    backdrop.paste(picture, (0, 0), picture)
    return backdrop


def encoder_view(shape: Image.Image) -> Image.Image:
    """What the image encoder sees of a whole creature from `draw_shape`: on white, 64 x 64 (RGB)."""
    plain = Image.new("RGB", shape.size, WHITE)
    plain.paste(shape, (0, 0), shape)
    # Bicubic, like CLIP's own preprocessing, which pictures go through outside of training.
    return plain.resize((ENCODER_SIZE, ENCODER_SIZE), Image.Resampling.BICUBIC)


def draw_part(creature: Creature, part: str, pixels: int = 64, *, share: float = 0.9,
              rng: random.Random | None = None) -> Image.Image:
    """One part alone on a white square (RGB).

    Args:
        share: the longer side of the part, as a share of the side of the square.
        rng: places the part at random; without it, in the center.
    Raises:
        ValueError: there is no such part, or this creature does not have it.
    """
    if part not in PARTS:
        raise ValueError(f"Expected one of the parts {', '.join(PARTS)}, got {part!r}.")
    if creature.attributes[part] == "none":
        raise ValueError(
            f"Expected one of the parts that this creature has, {', '.join(creature.parts)}, got {part!r}."
        )
    # At twice the size, because the crop of a small part is enlarged to its share of the square.
    drawn = draw_shape(creature, pixels * 2, 2, only=part)
    crop = drawn.crop(drawn.getbbox())
    scale = pixels * share / max(crop.size)
    crop = crop.resize([max(1, round(side * scale)) for side in crop.size], Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (pixels, pixels), WHITE)
    free = [pixels - side for side in crop.size]
    frame.paste(crop, tuple(side // 2 if rng is None else rng.randint(0, side) for side in free), crop)
    return frame
