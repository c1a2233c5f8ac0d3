"""Pictures of creatures and of their parts."""
from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from ..models.sizes import ENCODER_SIZE, PICTURE_SIZE
from .anatomy import Figure, start_figure
from .canvas import WHITE, Canvas, ellipse
from .creature import PARTS, Creature, visible_slots
from .head import paint_ear, paint_eyes, paint_horns, paint_mouth
from .limbs import paint_arm, paint_body, paint_legs, paint_tail, paint_wing
from .pose import LEAN_TURN, NEUTRAL
from .scenes import draw_scene

FOOT = (50, 94)  # where a creature stands

# From back to front; True for the limbs in front of the body. Wings, the largest, come first, so that they
# hide nothing; the face comes late, so that nothing hides it.
ORDER = (
    ("wings", False), ("arms", False), ("tail", False), ("ears", False), ("horns", False), ("legs", False),
    ("body", False), ("ears", True), ("arms", True), ("eyes", False), ("mouth", False), ("wings", True),
    ("tail", True),
)
LIMB_PAINTERS = {"wings": paint_wing, "arms": paint_arm, "tail": paint_tail, "ears": paint_ear}
PAINTERS = {
    "horns": paint_horns, "legs": paint_legs, "body": paint_body, "eyes": paint_eyes, "mouth": paint_mouth,
}
PART_LABELS = {part: label for label, part in enumerate(PARTS, start=1)}
# Of a label map as a picture, by label; those of published maps of body parts, violet where there is none.
LABEL_COLORS = (
    (68, 1, 84), (72, 40, 120), (62, 74, 137), (49, 104, 142), (38, 130, 142), (31, 158, 137), (53, 183, 121),
    (109, 205, 89), (180, 222, 44), (253, 231, 37),
    # What stands beside a creature, which no published label names.
    (214, 69, 65), (243, 156, 109),
)


def paint_creature(creature: Creature, canvas: Canvas, parts: Collection[str] = PARTS, only: str | None = None
                   ) -> None:
    """Draw some of a creature's parts in their places, each with its label of `PART_LABELS`.

    `only` names a part that is drawn alone: of wings, ears and arms a single one.
    """
    figure, pose = start_figure(creature, canvas, only), creature.pose
    shown = visible_slots(creature) & set(parts)
    # Leaning reaches farther to the sides, and one foot lower.
    tilt = abs(pose.lean)
    leaning = canvas.placed(0, -2 * tilt, turn=LEAN_TURN * pose.lean, grow=1 - 0.15 * tilt, around=FOOT)
    with leaning, canvas.placed(mirrored=pose.mirrored, around=FOOT):
        for part, near in ORDER:
            if part in shown and creature.attributes[part] != "none" and only in (None, part):
                canvas.label = PART_LABELS[part]
                paint_part(figure, part, near)
    canvas.label = 0


def paint_part(figure: Figure, part: str, near: bool) -> None:
    """Draw those limbs of a part that are in front of the body, or the others; or a part without limbs."""
    if part in PAINTERS:
        PAINTERS[part](figure)
    else:
        for limb in figure.limbs[part]:
            if limb.near == near:
                LIMB_PAINTERS[part](figure, limb)


def draw_shape(creature: Creature, pixels: int, only: str | None = None) -> Image.Image:
    """The creature, or one part of it, on a transparent background (RGBA)."""
    canvas = Canvas(pixels)
    if only is None:
        paint_shadow(creature, canvas)
    paint_creature(creature, canvas, only=only)
    return canvas.finish()


def paint_shadow(creature: Creature, canvas: Canvas) -> None:
    """The shadow on the ground, to be painted before the creature: alone, a part has none."""
    # The pen replaces pixels instead of blending them: on top, a translucent shape would punch a hole.
    figure = start_figure(creature, canvas)
    canvas.shape(ellipse(*FOOT, figure.width * 1.25, 3), (60, 50, 80, 60))


def draw_parts(creature: Creature, parts: Collection[str], pixels: int) -> Image.Image:
    """Some of a creature's parts, in place, on a transparent background (RGBA)."""
    canvas = Canvas(pixels)
    paint_creature(creature, canvas, parts)
    return canvas.finish()


def draw_label_map(creature: Creature, pixels: int) -> np.ndarray:
    """Which part is at each pixel, by `PART_LABELS`; 0 = none. uint8 `[pixels, pixels]`."""
    return labeled_canvas(creature, pixels).finish_map()


def draw_masks(creature: Creature, parts: Sequence[str], pixels: int) -> np.ndarray:
    """How much of each pixel of the picture each of these parts covers, float32 `[P, pixels, pixels]`."""
    canvas = labeled_canvas(creature, pixels)
    return canvas.finish_masks([PART_LABELS[part] for part in parts])


def labeled_canvas(creature: Creature, pixels: int) -> Canvas:
    """The creature without its shadow on a canvas that keeps its labels."""
    canvas = Canvas(pixels, labeled=True)
    paint_creature(creature, canvas)
    return canvas


def label_picture(found: np.ndarray) -> Image.Image:
    """A label map in `LABEL_COLORS` (RGB)."""
    return Image.fromarray(np.array(LABEL_COLORS, np.uint8)[found])


def draw_creature(creature: Creature, pixels: int = PICTURE_SIZE) -> Image.Image:
    """The whole creature in its scene, `pixels` x `pixels` (RGB)."""
    picture = draw_shape(creature, pixels)
    backdrop = draw_scene(creature.scene, pixels).copy()
    backdrop.paste(picture, (0, 0), picture)
    return backdrop


def encoder_view(shape: Image.Image) -> Image.Image:
    """What the image encoder sees of a whole creature from `draw_shape`: on white, 64 x 64 (RGB)."""
    plain = Image.new("RGB", shape.size, WHITE)
    plain.paste(shape, (0, 0), shape)
    return seen_by_encoder(plain)


def whole_view(creature: Creature) -> Image.Image:
    """The whole creature, as the image encoder saw it in training."""
    return encoder_view(draw_shape(creature, PICTURE_SIZE))


def seen_by_encoder(picture: Image.Image) -> Image.Image:
    """A square picture as the image encoder sees it, 64 x 64 (RGB)."""
    # Bicubic, like CLIP's own preprocessing, which pictures go through outside of training.
    return picture.resize((ENCODER_SIZE, ENCODER_SIZE), Image.Resampling.BICUBIC)


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
    drawn = draw_shape(replace(creature, pose=NEUTRAL), pixels * 2, only=part)
    crop = drawn.crop(drawn.getbbox())
    scale = pixels * share / max(crop.size)
    crop = crop.resize([max(1, round(side * scale)) for side in crop.size], Image.Resampling.LANCZOS)
    frame = Image.new("RGB", (pixels, pixels), WHITE)
    free = [pixels - side for side in crop.size]
    frame.paste(crop, tuple(side // 2 if rng is None else rng.randint(0, side) for side in free), crop)
    return frame
