"""From the files of an example to the pictures that are encoded, as the published trainer makes them.

What is random there in every step is drawn here once for each of a number of versions.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ...cutouts import cut_out_part
from ...files.masks import read_mask
from ...files.pictures import PictureError, decode_picture, open_picture
from ...files.plain_json import read_json
from ...images import on_white
from .layouts import Example
from .patches import patch_inside, placed

COVERED = 250  # of 255: what counts as inside the mask of a texture, as published
WHITE_SHARE = 0.5  # of the objects of scenes, which are shown on white instead of a background
LEAST_BACKGROUND = 50  # pixels: what is left of a scene around its object must be as wide
UNION_SCALES = (0.8, 0.95)
# Labels of mattmdjaga/human_parsing_dataset that are garments: hat, sunglasses, upper clothes, skirt, pants,
# dress, belt, shoes, bag, scarf; and hair, as published.
GARMENTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17)
LEAST_SIDE, LEAST_PIXELS = 60, 1800

Pictures = dict[str, list[Image.Image]]


@dataclass(frozen=True)
class Versions:
    """How many versions there are of what is random, and what decides them."""

    count: int
    seed: int
    backgrounds: Sequence[Path] = ()

    def each(self, name: str) -> Iterator[random.Random]:
        """A generator for each version."""
        # By names, not by a running number, which would change with every example that is added.
        return (random.Random(f"{self.seed}/{name}/{number}") for number in range(self.count))

    def background_of(self, name: str, number: int) -> Path | None:
        """The background for a version, if there are any; with one more of them, few versions change."""
        def order(path: Path) -> str:
            return hashlib.sha256(f"{self.seed}/{name}/{number}/{path.name}".encode()).hexdigest()

        on_white_ground = random.Random(f"{self.seed}/{name}/{number}/ground").random() < WHITE_SHARE
        return None if on_white_ground else min(self.backgrounds, key=order, default=None)


def prepare(mode: str, example: Example, versions: Versions) -> Pictures:
    """The pictures of an example, RGB, by the names that their embeddings get.

    Raises:
        PictureError: a file cannot be read, or does not fit the others.
    """
    return PREPARED[mode](example, versions)


def prepare_texture(example: Example, versions: Versions) -> Pictures:
    """All pictures of the object, and of each a patch of what it is made of for each version."""
    paths = example.files["pictures"]
    pictures = [open_picture(path) for path in paths]
    sizes = {picture.size for picture in pictures}
    if len(sizes) > 1:
        raise PictureError(f"Expected pictures of one size in {example.name}, got several. Make them alike.")
    covered, box = mask_in_picture(example, pictures[0].size)
    most = max(1, min(box[2] - box[0], box[3] - box[1]) // 2)
    patches = [
        patch_inside(picture, covered, most, rng)
        for path, picture in zip(paths, pictures, strict=True)
        for rng in versions.each(f"{example.name}/{path.name}")
    ]
    return {"target": pictures, "second": patches}


def mask_in_picture(example: Example, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """Where the object is: `[H, W]` bool, and its box. Without a box.json, the mask is of the whole picture.

    Raises PictureError if the two do not fit together, or nothing is covered.
    """
    [path] = example.files["mask"]
    mask, whole = read_mask(path) >= COVERED, (0, 0, *size)
    box = read_box(example.files["box"][0], size) if "box" in example.files else whole
    width, height = box[2] - box[0], box[3] - box[1]
    # The published boxes are rounded, so that a mask may be a pixel larger or smaller than its box.
    if max(abs(mask.shape[1] - width), abs(mask.shape[0] - height)) > (2 if box != whole else 0):
        raise PictureError(
            f"Expected a mask of {width}x{height} pixels in {path}, as its box or else its picture, got "
            f"{mask.shape[1]}x{mask.shape[0]}. Make it again."
        )
    covered = np.zeros((size[1], size[0]), bool)
    inside = mask[:height, :width]
    covered[box[1]:box[1] + inside.shape[0], box[0]:box[0] + inside.shape[1]] = inside
    if not covered.any():
        raise PictureError(f"Expected a mask that covers something in {path}, got an empty one. Paint it.")
    return covered, Image.fromarray(covered).getbbox() if box == whole else box


def read_box(path: Path, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box within a picture of this size. Raises PictureError for anything else."""
    try:
        content = read_json(path)
        left, top, right, bottom = (round(float(content[key])) for key in ("x1", "y1", "x2", "y2"))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise PictureError(f"Expected a box in {path}, got something else ({error!r}). Repair it.") from error
    box = (max(0, left), max(0, top), min(size[0], right), min(size[1], bottom))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise PictureError(
            f"Expected a box inside the {size[0]}x{size[1]} pixels of its picture in {path}, got "
            f"{[left, top, right, bottom]}. Repair it."
        )
    return box


def prepare_scene(example: Example, versions: Versions) -> Pictures:
    """The picture, its object on white or on another background, and the scene without the object."""
    picture = open_picture(example.files["picture"][0])
    mask = mask_of_size(example.files["mask"][0], picture.size)
    grounds = [versions.background_of(example.name, number) for number in range(versions.count)]
    objects = [Image.composite(picture, ground_of(path, picture.size), mask) for path in grounds]
    if "inpainted" in example.files:
        inpainted = open_picture(example.files["inpainted"][0])
        return {"target": [picture], "first": objects, "second": [inpainted]}
    around = np.asarray(mask) == 0
    most = min(picture.size) // 2
    patches = [
        patch_inside(picture, around, most, rng)
        for rng in versions.each(example.name) if around.any()
    ]
    if min((patch.width for patch in patches), default=0) < LEAST_BACKGROUND:
        raise PictureError(
            f"Expected NAME_inpainted.jpg, or {LEAST_BACKGROUND} pixels of background around the object in "
            f"{example.first}, got less. Inpaint the object."
        )
    return {"target": [picture], "first": objects, "second": patches}


def mask_of_size(path: Path, size: tuple[int, int]) -> Image.Image:
    """A mask of a picture of this size, mode L. Raises PictureError if it is of another size, or empty."""
    mask = Image.fromarray(read_mask(path))
    if mask.size != size:
        raise PictureError(
            f"Expected a mask of {size[0]}x{size[1]} pixels in {path}, as its picture, got "
            f"{mask.width}x{mask.height}. Make it again."
        )
    if mask.getbbox() is None:
        raise PictureError(f"Expected a mask that covers something in {path}, got an empty one. Paint it.")
    return mask


def ground_of(path: Path | None, size: tuple[int, int]) -> Image.Image:
    """A background of this size, white for none. The published code pastes it whatever its size."""
    if path is None:
        return Image.new("RGB", size, "white")
    return ImageOps.fit(open_picture(path), size, Image.Resampling.BICUBIC)


def prepare_union(example: Example, versions: Versions) -> Pictures:
    """The picture, and each of its things at random sizes and places on white."""
    picture = open_picture(example.files["picture"][0])
    found: Pictures = {"target": [picture]}
    for name, path in zip(("first", "second"), example.files["objects"], strict=True):
        thing = without_border(path)
        found[name] = [
            placed(thing, picture.size, rng.uniform(*UNION_SCALES), rng)
            for rng in versions.each(f"{example.name}/{path.name}")
        ]
    return found


def without_border(path: Path) -> Image.Image:
    """A cut-out on white, without the transparent border that it may have."""
    picture = decode_picture(path)
    box = picture.getchannel("A").getbbox() if "A" in picture.getbands() else (0, 0, *picture.size)
    if box is None:
        raise PictureError(f"Expected a cut-out in {path}, got a picture that is transparent all over.")
    return on_white(picture.crop(box))


def prepare_instruct(example: Example, versions: Versions) -> Pictures:
    """The picture, from which all words lead."""
    return {"target": [open_picture(example.files["picture"][0])]}


def prepare_clothes(example: Example, versions: Versions) -> Pictures:
    """The whole, and its parts on white. Garments that are not there have no part.

    The published code shows a white picture for a garment that is not there, but nothing for a small one.
    """
    picture = open_picture(example.files["picture"][0])
    if "parts" in example.files:
        return {"target": [picture], "parts": [open_picture(path) for path in example.files["parts"]]}
    [path] = example.files["labels"]
    labels = read_mask(path)
    if labels.shape != (picture.height, picture.width):
        raise PictureError(
            f"Expected labels of {picture.width}x{picture.height} pixels in {path}, as its picture, got "
            f"{labels.shape[1]}x{labels.shape[0]}. Make them again."
        )
    parts = [part for label in GARMENTS if (part := garment(picture, labels == label)) is not None]
    if not parts:
        raise PictureError(
            f"Expected the labels of garments in {path}, {GARMENTS[0]} to {GARMENTS[-1]}, got none that "
            "covers enough. Choose another picture."
        )
    return {"target": [picture], "parts": parts}


def garment(picture: Image.Image, covered: np.ndarray) -> Image.Image | None:
    """What a mask covers, on white; None if that is too little to be seen."""
    if covered.sum() < LEAST_PIXELS:
        return None
    part = cut_out_part(picture, Image.fromarray(covered.astype(np.uint8) * 255))
    return part if min(part.size) >= LEAST_SIDE else None


PREPARED: Mapping[str, Callable[[Example, Versions], Pictures]] = {
    "texture": prepare_texture, "scene": prepare_scene, "union": prepare_union,
    "instruct": prepare_instruct, "clothes": prepare_clothes,
}
