"""Pictures as the published processor sees them, and on their way between Pillow and tensors."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from pit.images import (
    clip_pixel_values,
    is_plain,
    labelled_sheet,
    on_white,
    resize_for_encoder,
    to_pil,
    to_tensor,
    white_image,
)
from tests.golden import assert_equal


def noise_image(width: int, height: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


@pytest.mark.golden_keys("pit_clip_pixel_values", r"(?!.*_first_pixel).+")
def test_pixel_values_equal_the_published_processor(golden, key):
    (path,) = (path for path in golden.path("pit_clip_images").iterdir() if path.stem == key)
    published = golden.tensors("pit_clip_pixel_values")[key]
    assert_equal(clip_pixel_values([Image.open(path)], size=published.shape[-1])[0], published)


@pytest.mark.golden_keys("pit_clip_pixel_values", r".+_first_pixel")
def test_pixel_values_of_flat_pictures(golden, key):
    colour, side = re.fullmatch(r"([a-z]+)(\d+)_first_pixel", key).groups()
    pixels = clip_pixel_values([Image.new("RGB", (int(side), int(side)), colour)])[0]
    published = golden.tensors("pit_clip_pixel_values")[key]
    assert_equal(pixels, published[:, None, None].expand_as(pixels))


def test_pixel_values_batch_pictures_of_any_size_in_order():
    images = [noise_image(40, 70), white_image(9), noise_image(300, 20)]
    batch = clip_pixel_values(images, size=64)
    assert batch.shape == (3, 3, 64, 64) and batch.dtype == torch.float32
    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, clip_pixel_values([image], size=64)[0])


def test_gray_is_repeated_and_alpha_dropped():
    gray, rgba = noise_image(50, 30, 1), noise_image(50, 30, 4)
    as_rgb = Image.merge("RGB", [gray] * 3)
    without_alpha = Image.merge("RGB", rgba.split()[:3])
    assert torch.equal(clip_pixel_values([gray]), clip_pixel_values([as_rgb]))
    assert torch.equal(clip_pixel_values([rgba]), clip_pixel_values([without_alpha]))


def test_long_side_is_truncated_before_the_center_crop():
    image = noise_image(101, 67)  # 224 * 101 / 67 = 337.67: rounding would shift the grid
    expected = image.resize((337, 224), Image.Resampling.BICUBIC).crop((56, 0, 280, 224))
    assert resize_for_encoder(image).tobytes() == expected.tobytes()


@pytest.mark.parametrize("width, height", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_extreme_sizes_reach_the_encoder(width, height):
    image = noise_image(width, height)
    pixels = np.asarray(image).astype(float)
    seen = np.asarray(resize_for_encoder(image)).astype(float)
    assert seen.shape == (224, 224, 3)
    if (width, height) == (1, 1):
        assert (seen == pixels[0, 0]).all()
    if width == 500:  # the middle 224 of 112000 columns lie between the two middle pixels
        middle = pixels[0, 248:252]
        assert seen.min() >= middle.min() - 32 and seen.max() <= middle.max() + 32
        assert np.ptp(seen, axis=0).max() == 0


def test_the_picture_shown_is_the_picture_encoded():
    image = noise_image(90, 130, 4)
    assert torch.equal(clip_pixel_values([resize_for_encoder(image)]), clip_pixel_values([image]))


def test_endless_strips_are_refused_before_they_fill_the_memory():
    with pytest.raises(ValueError, match="at most 500 to 1, got 1x501 pixels"):
        clip_pixel_values([Image.new("RGB", (1, 501))])


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="at least one picture"):
        clip_pixel_values([])


@pytest.mark.parametrize("channels, mode", [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_to_pil_keeps_channels_and_values(channels, mode):
    levels = torch.randint(0, 256, (2, 5, 7, channels), generator=torch.Generator().manual_seed(0))
    images = to_pil(levels / 255)
    assert [image.mode for image in images] == [mode, mode] and images[0].size == (7, 5)
    for image, level in zip(images, levels, strict=True):
        assert np.array_equal(np.asarray(image).reshape(5, 7, channels), level.numpy())


def test_to_pil_takes_one_picture_half_precision_and_overshoot():
    image = torch.tensor([-0.2, 0.5, 1.3]).half().expand(4, 6, 3)
    (picture,) = to_pil(image)
    assert picture.size == (6, 4) and picture.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize(
    "shape", [(4, 4), (1, 4, 4, 2), (1, 3, 8, 8), (0, 4, 4, 3), (1, 0, 4, 3), (1, 1, 4, 4, 3)]
)
def test_to_pil_names_the_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"got shape \[" + ", ".join(map(str, shape))):
        to_pil(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_to_pil_refuses_values_that_are_not_colors(value):
    image = torch.zeros(1, 4, 4, 3)
    image[0, 1, 2, 0] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        to_pil(image)


def test_to_pil_refuses_integers():
    with pytest.raises(TypeError, match="torch.uint8"):
        to_pil(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))


def test_to_tensor_inverts_to_pil():
    images = [noise_image(7, 5), white_image(7).crop((0, 0, 7, 5))]
    batch = to_tensor(images)
    assert batch.shape == (2, 5, 7, 3) and batch.dtype == torch.float32
    assert [image.tobytes() for image in to_pil(batch)] == [image.tobytes() for image in images]


def test_to_tensor_refuses_mixed_sizes_and_nothing():
    with pytest.raises(ValueError, match="got 4x4, 6x2"):
        to_tensor([Image.new("RGB", (6, 2)), white_image(4)])
    with pytest.raises(ValueError, match="got no picture"):
        to_tensor([])


def test_on_white_composites_transparency():
    half_red = Image.new("RGBA", (2, 2), (255, 0, 0, 128))
    half_black = Image.new("LA", (2, 2), (0, 128))
    assert on_white(half_red).getpixel((0, 0)) == (255, 127, 127)
    assert on_white(half_black).getpixel((0, 0)) == (127, 127, 127)
    assert on_white(Image.new("L", (2, 2), 9)).getpixel((1, 1)) == (9, 9, 9)


LABEL = 20  # height of the label above a picture of this size or smaller


def test_a_labelled_sheet_holds_every_picture_below_its_label():
    pictures = [noise_image(60, 40), noise_image(60, 40).rotate(180), white_image(60).crop((0, 0, 60, 40))]
    sheet = labelled_sheet(pictures, ["-1", "0", "1"], columns=2)
    assert (sheet.mode, sheet.size) == ("RGB", (2 * 60, 2 * (40 + LABEL)))
    for picture, (left, top) in zip(pictures, [(0, 0), (60, 0), (0, 60)], strict=True):
        shown = sheet.crop((left, top + LABEL, left + 60, top + LABEL + 40))
        assert shown.tobytes() == picture.tobytes()
    assert sheet.crop((60, 60, 120, 120)).tobytes() == white_image(60).tobytes()


def test_a_label_draws_its_words_and_nothing_else():
    def heading(label: str) -> np.ndarray:
        return np.asarray(labelled_sheet([white_image(80)], [label], columns=1))

    none, one, other = (heading(label) for label in ("", "0.5", "-1"))
    assert (none == 255).all()
    assert (one[:LABEL] < 128).any() and (one[LABEL:] == 255).all()
    assert not np.array_equal(one, other)


def test_labels_grow_with_the_pictures():
    small, large = (labelled_sheet([white_image(size)], ["1"], columns=1) for size in (100, 600))
    assert (small.size, large.size) == ((100, 100 + LABEL), (600, 600 + 60))
    inked = [(np.asarray(sheet) < 128).any(axis=(1, 2)).sum() for sheet in (small, large)]
    assert inked[1] > 2 * inked[0]


def test_a_picture_of_another_size_is_fitted_and_transparency_is_white():
    red, clear = Image.new("RGB", (10, 20), "red"), Image.new("RGBA", (60, 40), (0, 0, 0, 0))
    sheet = labelled_sheet([clear, red], ["a", "b"], columns=2)
    assert sheet.size == (120, 40 + LABEL)
    assert sheet.crop((0, LABEL, 60, 60)).tobytes() == Image.new("RGB", (60, 40), "white").tobytes()
    fitted = np.asarray(sheet.crop((60, LABEL, 120, 60)))
    assert (fitted[:, 20:40] == (255, 0, 0)).all()
    assert (fitted[:, :20] == 255).all() and (fitted[:, 40:] == 255).all()


def test_there_must_be_a_label_for_each_picture():
    with pytest.raises(ValueError):
        labelled_sheet([white_image(8), white_image(8)], ["one"], columns=2)


@pytest.mark.parametrize("picture, plain", [
    (Image.new("RGB", (30, 20), (200, 10, 90)), True), (Image.new("L", (30, 20), 128), True),
    (Image.new("RGBA", (30, 20), (0, 0, 0, 0)), True),
    (Image.fromarray(np.tile(np.arange(100, 107, dtype=np.uint8), (20, 4))), True),
    (Image.fromarray(np.tile(np.arange(100, 120, dtype=np.uint8), (20, 1))), False),
    (Image.fromarray(np.dstack([np.full((4, 4), each, np.uint8) for each in (9, 9, 9)])
                     + np.eye(4, dtype=np.uint8)[..., None] * 40), False),
])
def test_a_picture_of_one_color_is_told(picture, plain):
    assert is_plain(picture) == plain
