"""From pictures and masks to targets and their parts, as the published training data is made."""
from __future__ import annotations

from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from ...cutouts import cut_out_part
from ...files.pictures import decode_picture, file_name, list_pictures, save_picture
from ...packages import needed_for
from .part_rules import DEFAULT_RULES, SMALLEST_PART, PartRules

_REACH = 7  # pixels of the 15-pixel square beside its middle, on a picture whose longer side is 1024


def part_masks(masks: np.ndarray, rules: PartRules = DEFAULT_RULES) -> list[np.ndarray]:
    """Those of `masks` `[N,H,W]` bool that are parts, `[H,W]` each: cleaned, smallest first, no overlaps.

    The published way: the area lies within the rules; closing and opening with a square of 15 pixels (made
    for pictures of 1024 pixels; scaled with the longer side); holes filled; the area again; a mask that
    overlaps one already taken is left out.

    Raises ValueError for another shape or type.
    """
    if masks.ndim != 3 or masks.dtype != bool:
        raise ValueError(
            f"Expected masks [N,H,W] of type bool, got {list(masks.shape)} of type {masks.dtype}."
        )
    candidates = list(masks)
    if rules.drop_largest and candidates:
        candidates.pop(int(np.argmax([mask.sum() for mask in candidates])))
    if rules.drop_border:
        candidates = [mask for mask in candidates if not _touches_border(mask)]
    cleaned = [_clean(mask) for mask in candidates if rules.allow(mask)]
    return _without_overlaps(sorted(filter(rules.allow, cleaned), key=np.sum))[:rules.most]


def make_parts(
    image: Image.Image, masks: np.ndarray | None = None, rules: PartRules = DEFAULT_RULES
) -> list[Image.Image]:
    """The parts of `image` as crops on white (RGB), smallest first; an empty list if no mask is a part.

    `masks` `[N,H,W]` bool, or None: then `segment` looks for them, which needs plain ground.

    Raises ValueError for masks of another size than the picture; without masks UnevenGroundError, and
    ModuleNotFoundError if scikit-image is not installed.
    """
    if masks is None:
        masks = _found_masks(image, rules.smallest)
    elif masks.shape[1:] != (image.height, image.width):
        size = "x".join(map(str, masks.shape[:0:-1]))
        raise ValueError(
            f"Expected masks of the picture's size {image.width}x{image.height}, got {size}. "
            "Make the masks from this very picture, or resize them to it."
        )
    return [cut_out_part(image, _to_picture(mask)) for mask in part_masks(masks, rules)]


def read_masks(folder: Path, name: str, smallest: float = SMALLEST_PART) -> np.ndarray:
    """The masks `[N,H,W]` bool of the picture `name` (without ending) in a folder of masks.

    Either the pictures in `folder/name/`, each with one part in white, or `folder/name.png` with one color
    per part; black and transparent are no part. Colors that cover less than `smallest` of the picture (such
    as blends along edges) are no masks. Raises FileNotFoundError if there is neither, PictureError for an
    unreadable one, and ValueError for masks of different sizes.
    """
    files = list_pictures(folder / name)[0] if (folder / name).is_dir() else []
    if files:
        return _stack([np.asarray(_on_black(path).convert("L")) > 127 for path in files], folder / name)
    colored = folder / f"{name}.png"
    if not colored.is_file():
        raise FileNotFoundError(f"Expected masks in {folder / name} or {colored}, got neither.")
    red, green, blue = np.asarray(_on_black(colored)).astype(np.int32).transpose(2, 0, 1)
    codes = red << 16 | green << 8 | blue
    colors, areas = np.unique(codes, return_counts=True)
    kept = colors[(colors > 0) & (areas > smallest * codes.size)]
    return codes == kept[:, None, None]


def save_concept(folder: Path, name: str, target: Image.Image, parts: list[Image.Image]) -> None:
    """Write a target and its parts: `folder/target/NAME.png` and `folder/parts/NAME/0.png` and so on.

    NAME is `name`, changed only if file systems would not take it (then a few digits keep it unlike others).
    A concept of the same name is replaced. The target comes last, so an interrupted one is no concept.

    Raises ValueError for no parts and for names that lead out of the folder; OSError if it cannot be written.
    """
    if not parts:
        raise ValueError(f'Expected at least one part of "{name}", got none.')
    stem = file_name(name)
    place = folder / "parts" / stem
    place.mkdir(parents=True, exist_ok=True)
    (folder / "target").mkdir(exist_ok=True)
    for number, part in enumerate(parts):
        save_picture(place / f"{number}.png", part)
    for number in count(len(parts)):
        surplus = place / f"{number}.png"
        if not surplus.exists():
            break
        surplus.unlink()
    save_picture(folder / "target" / f"{stem}.png", target)


def _found_masks(image: Image.Image, smallest: float) -> np.ndarray:
    with needed_for("Finding parts without masks"):
        from .segments import segment  # here, because scikit-image takes a while to import
    return segment(image, smallest)


def _clean(mask: np.ndarray) -> np.ndarray:
    """Closed, opened, filled. Beyond the picture's border nothing is added and nothing eaten away."""
    size = 2 * round(_REACH * max(mask.shape) / 1024) + 1
    pixels = mask.astype(np.uint8)
    grow, shrink = ndimage.maximum_filter, ndimage.minimum_filter
    for step in (grow, shrink, shrink, grow):
        pixels = step(pixels, size=size, mode="nearest")
    return ndimage.binary_fill_holes(pixels)


def _without_overlaps(masks: list[np.ndarray]) -> list[np.ndarray]:
    taken, kept = False, []
    for mask in masks:
        if not (mask & taken).any():
            kept.append(mask)
            taken = mask | taken
    return kept


def _touches_border(mask: np.ndarray) -> bool:
    return bool(mask[[0, -1]].any() or mask[:, [0, -1]].any())


def _to_picture(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask.astype(np.uint8) * 255)


def _on_black(path: Path) -> Image.Image:
    image = decode_picture(path).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")


def _stack(masks: list[np.ndarray], folder: Path) -> np.ndarray:
    sizes = sorted({f"{mask.shape[1]}x{mask.shape[0]}" for mask in masks})
    if len(sizes) > 1:
        raise ValueError(f"Expected masks of one size in {folder}, got {', '.join(sizes)}.")
    return np.stack(masks)
