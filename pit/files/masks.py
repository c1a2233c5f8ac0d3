"""Masks and maps of labels in files: pictures, and the plain arrays of numpy."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from .pictures import PictureError, decode_picture
from .whole import check_ordinary

ARRAY = ".npy"
MOST_VALUES = 80_000_000  # as many as a picture may have pixels


def read_mask(path: Path) -> np.ndarray:
    """The values of a mask or of a map of labels, `[H, W]` uint8.

    A picture gives its gray values, or the numbers of its colors if it has a palette; an array its values, of
    which truth values and fractions become 0 and 255.

    Raises:
        PictureError: it is missing, damaged, too large, or has other dimensions.
    """
    if path.suffix.lower() == ARRAY:
        return _eight_bits(path, _read_array(path))
    picture = decode_picture(path)
    return np.asarray(picture if picture.mode in ("L", "P") else picture.convert("L"))


def _read_array(path: Path) -> np.ndarray:
    try:
        check_ordinary(path)
        # Mapped first: what the header claims is compared with the length of the file, and nothing is read.
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # numpy meets damaged headers with errors of every kind
        reason = " ".join(str(error).split())
        raise PictureError(
            f"Expected an array of numbers, but {path} cannot be read ({reason}). Make it again."
        ) from error
    if array.ndim != 2 or not 1 <= array.size <= MOST_VALUES:
        raise PictureError(f"Expected a mask [H, W] in {path}, got {list(array.shape)}. Make it again.")
    return array


def _eight_bits(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "f" and bool(((array >= 0) & (array <= 1)).all()):
        return np.rint(array * 255).astype(np.uint8)
    if array.dtype.kind in "ui" and 0 <= int(array.min()) and int(array.max()) <= 255:
        return array.astype(np.uint8)
    raise PictureError(
        f"Expected a mask of truth values, of 0..255 or of 0..1 in {path}, got {array.dtype}. Make it again."
    )
