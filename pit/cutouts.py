"""What a mask covers of a picture, cut out and put on white."""
from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from .images import on_white

FLAT = 2
"""How far the values of one color may lie apart, out of 255: lossy files blur even plain ground."""


def cut_out_part(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The part of `image` under `mask` (0 = outside, 255 = inside, soft edges kept), on white, as RGB.

    Cropped to the bounding box of the mask, as the published training parts are.
    Raises ValueError for a mask of another size and for an empty mask.
    """
    mask = mask.convert("L")
    box = mask.getbbox()
    # Before the sizes: where nothing is painted, ComfyUI gives an empty mask of 64x64, whatever the picture,
    # and the size is then not what is wrong.
    if box is None:
        raise ValueError(
            "Expected a mask that covers some of the picture, got an empty one (all zero). Paint the part."
        )
    if mask.size != image.size:
        raise ValueError(
            f"Expected a mask of the picture's size {image.width}x{image.height}, "
            f"got {mask.width}x{mask.height}. Resize the mask to the picture first."
        )
    white = Image.new("RGB", image.size, "white")
    return Image.composite(on_white(image), white, mask).crop(box)


def mask_of_part(image: Image.Image, mask: Image.Image) -> tuple[Image.Image, bool]:
    """The mask, inverted if it covers what lies around the part instead of the part; and whether it was.

    Such a mask is the transparency of a picture that is a cut-out already. Where both are possible, it stays.
    A picture with an alpha channel of its own says which it is; without one, corners and border tell.
    """
    mask = mask.convert("L")
    if mask.size != image.size:
        return mask, False
    covers_ground = _covers_hidden(image, np.asarray(mask))
    if covers_ground is None:
        covers_ground = _covers_ground(np.asarray(on_white(image)), np.asarray(mask))
    return (ImageOps.invert(mask), True) if covers_ground else (mask, False)


def _covers_hidden(image: Image.Image, mask: np.ndarray) -> bool | None:
    """Whether a mask covers what is transparent in a picture; None if its alpha channel does not tell."""
    if "A" not in image.getbands():
        return None
    hidden, covered = np.asarray(image.getchannel("A")) < 128, mask >= 128
    if not hidden.any() or not covered.any() or covered.all():
        return None
    return bool(hidden[covered].mean() > 0.5)


def _covers_ground(picture: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a mask `[H, W]` covers the ground of a picture `[H, W, 3]`, both uint8."""
    covered = mask >= 128
    frame = np.concatenate([covered[0], covered[-1], covered[1:-1, 0], covered[1:-1, -1]])
    if covered.all() or not frame.any():
        return False
    # Objects end before the corners of their picture; what reaches all four of them is around one. An object
    # that the border cuts off, such as a bust, takes a single piece of it and leaves most to the ground.
    corners = covered[[0, 0, -1, -1], [0, -1, 0, -1]]
    if frame.mean() > 0.5 and (corners.all() or corners.sum() >= 2 and _border_pieces(~covered) == 1):
        return True
    solid = mask >= 255 - FLAT
    hidden = picture[solid]
    # Programs write one color where nothing is to be seen. A part may have a single color as well, but it
    # does not lie along half of the border.
    flat = solid.sum() > covered.sum() / 2 and int(np.ptp(hidden, axis=0).max()) <= FLAT
    return bool(flat and frame.mean() > 0.4)


def _border_pieces(mask: np.ndarray) -> int:
    """Into how many pieces the border of a mask `[H, W]` falls, on the way around."""
    around = np.concatenate([mask[0], mask[1:-1, -1], mask[-1, ::-1], mask[-2:0:-1, 0]])
    return int((around & ~np.roll(around, 1)).sum())
