"""Masks in files: pictures and arrays, and everything that is none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pit.files.masks import read_mask
from pit.files.pictures import PictureError

MASK = np.array([[0, 255, 7], [255, 0, 0]], np.uint8)


@pytest.mark.parametrize("values", [MASK, MASK.astype(np.int64), MASK.astype(">u2"), np.asfortranarray(MASK)])
def test_arrays_of_whole_numbers_are_read_as_they_are(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    assert (read_mask(tmp_path / "mask.npy") == MASK).all()


@pytest.mark.parametrize("values", [MASK > 100, (MASK > 100).astype(np.float32)])
def test_truth_values_and_fractions_become_0_and_255(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    assert (read_mask(tmp_path / "mask.npy") == np.where(MASK > 100, 255, 0)).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_pictures_give_gray_values_or_the_numbers_of_their_colors(tmp_path, mode):
    values = Image.fromarray(MASK)
    if mode == "P":
        values.putpalette([200, 10, 10] * 256)
    values.convert("RGB" if mode == "RGB" else values.mode).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == MASK).all()


@pytest.mark.parametrize("values", [
    np.zeros((2, 2, 3), np.uint8), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8),
    np.full((2, 2), 256), np.full((2, 2), -1), np.full((2, 2), np.nan), np.full((2, 2), 1.5),
    np.full((2, 2), "a"), np.full((2, 2), 1j),
])
def test_arrays_that_are_no_masks_are_named(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(PictureError, match="Expected a mask .*mask.npy"):
        read_mask(tmp_path / "mask.npy")


def test_no_object_is_ever_unpickled(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([[{"a": 1}]], object), allow_pickle=True)
    with pytest.raises(PictureError, match="Expected an array of numbers"):
        read_mask(tmp_path / "mask.npy")


@pytest.mark.parametrize("content", [
    b"", b"\x93NUMPY", b"no array at all", b"PK\x03\x04", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
    b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999), }",
    b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 3), }       ",
])
def test_damaged_arrays_are_named(tmp_path, content):
    (tmp_path / "mask.npy").write_bytes(content)
    with pytest.raises(PictureError, match="mask.npy"):
        read_mask(tmp_path / "mask.npy")


def test_missing_files_are_named(tmp_path):
    for name in ("mask.npy", "mask.png"):
        with pytest.raises(PictureError, match=name):
            read_mask(tmp_path / name)
