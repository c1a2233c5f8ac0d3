"""Parts pasted and cut out as published, and the pictures that the encoder sees, slot by slot."""

import random

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw, ImageOps

from pit.cutouts import cut_out_part, mask_of_part
from pit.images import resize_for_encoder, white_image
from pit.piece_it_together.parts import encoder_pictures, place_part, reference_grid
from tests.golden import number_in


def black_box(image: Image.Image) -> list[int]:
    """x, y, width, height of what is dark."""
    rows, columns = np.nonzero(np.asarray(image.convert("L")) < 128)
    left, top = columns.min(), rows.min()
    return [left, top, columns.max() - left + 1, rows.max() - top + 1]


def blob(size: int = 200, colour: str = "black") -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    image.paste(Image.new("RGB", (size // 2, size // 2), colour), (size // 4, size // 4))
    return image


def encode(parts: list[Image.Image], **options) -> list[Image.Image]:
    defaults = {"reference": None, "reference_slot": False, "placement": "random", "seed": 0}
    return encoder_pictures(parts, **{**defaults, **options})


def raw(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_parts_are_placed_as_published(golden):
    for case in golden.facts("pit_paste_geometry"):
        rng, canvas = random.Random(case["seed"]), tuple(case["background_wh"])
        part = Image.new("RGB", case["image_wh"], "black")
        placed = place_part(part, canvas=canvas, scale=case["scale_arg"], rng=rng)
        assert placed.size == canvas and placed.mode == "RGB"
        assert black_box(placed) == case["pasted_xywh"], case


@pytest.mark.golden_keys("pit_image_ops", r"paste\.result_.+")
def test_pasted_pixels_equal_the_published_ones(golden, key):
    pictures, rng = golden.tensors("pit_image_ops"), random.Random(golden.facts("pit_seeds")["paste"])
    part = Image.fromarray(pictures["paste.part"].numpy())
    placed = place_part(part, canvas=int(number_in(key, "bg")), scale=number_in(key, "scale"), rng=rng)
    assert np.array_equal(np.asarray(placed), pictures[key])


def test_centred_parts_leave_equal_margins_and_draw_nothing():
    rng = random.Random(3)
    placed = place_part(Image.new("RGB", (300, 100)), canvas=200, scale=0.5, placement="centred", rng=rng)
    assert black_box(placed) == [50, 83, 100, 33]
    assert rng.random() == random.Random(3).random()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (1024, 1024)])
def test_parts_of_any_size_find_a_place(size):
    left, top, width, height = black_box(place_part(Image.new("L", size), rng=random.Random(0)))
    assert max(width, height) == 942 and min(width, height) == (942 if size[0] == size[1] else 1)
    assert left + width <= 1024 and top + height <= 1024


def test_transparent_parts_are_placed_on_white():
    part = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    part.paste((0, 0, 255, 255), (0, 0, 5, 10))
    placed = place_part(part, canvas=20, scale=1.0, placement="centred", rng=random.Random(0))
    assert placed.getpixel((3, 10)) == (0, 0, 255) and placed.getpixel((16, 10)) == (255, 255, 255)


@pytest.mark.parametrize("scale", [0, -1, 1.01, float("nan")])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(ValueError, match="scale above 0 and at most 1"):
        place_part(blob(), scale=scale, rng=random.Random(0))


def test_unknown_placements_are_refused():
    with pytest.raises(ValueError, match='got "left"'):
        place_part(blob(), placement="left", rng=random.Random(0))


def test_reference_grid_fills_row_by_row():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (30, 10 + i), colour) for i, colour in enumerate(colours)]
    grid = reference_grid(images, size=64)
    cells = [grid.getpixel(place) for place in ((16, 16), (48, 16), (16, 48), (48, 48))]
    assert grid.size == (64, 64) and cells == [*colours, (255, 255, 255)]


@pytest.mark.parametrize("count", [0, 5])
def test_reference_grid_holds_one_to_four(count):
    with pytest.raises(ValueError, match=f"one to four reference pictures, got {count}"):
        reference_grid([blob()] * count)


def test_cut_out_equals_the_published_one(golden):
    pictures = golden.tensors("pit_image_ops")
    mask = Image.fromarray(255 * pictures["maskcrop.mask"].clamp(max=1).numpy())
    cut = cut_out_part(Image.fromarray(pictures["sketch.input"].numpy()), mask)
    assert np.array_equal(np.asarray(cut), pictures["maskcrop.result"])


def test_soft_masks_fade_to_white():
    mask = Image.new("L", (8, 8))
    mask.paste(128, (2, 3, 4, 4))
    cut = cut_out_part(Image.new("RGB", (8, 8)), mask)
    assert cut.size == (2, 1) and cut.getpixel((0, 0)) == (127, 127, 127)


def test_cut_out_refuses_other_sizes_and_empty_masks():
    with pytest.raises(ValueError, match="size 200x200, got 100x50"):
        cut_out_part(blob(), Image.new("L", (100, 50), 255))
    with pytest.raises(ValueError, match="empty"):
        cut_out_part(blob(), Image.new("L", (200, 200)))
    with pytest.raises(ValueError, match="empty"):  # what LoadImage gives where nothing is painted
        cut_out_part(blob(), Image.new("L", (64, 64)))


def noise(seed: int = 0) -> Image.Image:
    """A picture with something everywhere, 64x48."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shape_mask(kind: str, box: tuple[int, int, int, int]) -> Image.Image:
    """White on an ellipse or a rectangle with a soft edge, as tall as 48 and as wide as 64."""
    mask = Image.new("L", (256, 192))
    getattr(ImageDraw.Draw(mask), kind)([4 * side for side in box], fill=255)
    return mask.resize((64, 48), Image.Resampling.BOX)


OBJECTS = {
    "in the middle": ("ellipse", (20, 10, 44, 38)),
    "as large as the picture": ("ellipse", (0, 0, 63, 47)),
    "at the lower border": ("rectangle", (16, 20, 48, 47)),
    "in a corner": ("rectangle", (0, 0, 20, 20)),
    "along two sides": ("rectangle", (0, 0, 63, 12)),
}


@pytest.mark.parametrize("where", OBJECTS)
@pytest.mark.parametrize("ground", ["black", "white", "grey"])
def test_the_transparency_of_a_cut_out_is_inverted(where, ground):
    """As Load Image gives a PNG whose hidden pixels have one color: RGB, and a mask that is 1 around it."""
    part = shape_mask(*OBJECTS[where])
    seen = part.point(lambda value: 255 * (value > 0))
    picture = Image.composite(noise(), Image.new("RGB", part.size, ground), seen)
    mask, inverted = mask_of_part(picture, ImageOps.invert(part))
    assert inverted and np.array_equal(mask, part)


@pytest.mark.parametrize("where", OBJECTS)
def test_it_is_inverted_too_where_the_hidden_pixels_show_a_picture(where):
    part = shape_mask(*OBJECTS[where])
    mask, inverted = mask_of_part(noise(), ImageOps.invert(part))
    assert inverted and np.array_equal(mask, part)


@pytest.mark.parametrize("where", OBJECTS)
def test_a_painted_part_stays(where):
    """As the mask editor saves it: what is painted is transparent, with its colors still there."""
    part = shape_mask(*OBJECTS[where])
    mask, inverted = mask_of_part(noise(), part)
    assert not inverted and np.array_equal(mask, part)


@pytest.mark.parametrize("where", ["in the middle", "as large as the picture"])
def test_a_painted_part_of_one_color_stays(where):
    part = shape_mask(*OBJECTS[where])
    flat = Image.composite(Image.new("RGB", part.size, "red"), noise(), part)
    assert mask_of_part(flat, part)[1] is False


RING = ImageChops.invert(shape_mask("ellipse", (16, 10, 48, 38)))


def with_alpha(visible: Image.Image) -> Image.Image:
    picture = noise().convert("RGBA")
    picture.putalpha(visible)
    return picture


def test_a_ring_that_reaches_all_corners_is_taken_for_the_ground_where_nothing_tells():
    """What the tooltip and the help page say; mask_covers is there for it."""
    assert mask_of_part(noise(), RING)[1] is True
    assert mask_of_part(with_alpha(Image.new("L", RING.size, 255)), RING)[1] is True


def test_a_ring_that_reaches_all_corners_stays_where_the_picture_shows_it():
    mask, inverted = mask_of_part(with_alpha(RING), RING)
    assert not inverted and np.array_equal(mask, RING)


@pytest.mark.parametrize("where", OBJECTS)
def test_an_alpha_channel_tells_part_and_ground(where):
    part = shape_mask(*OBJECTS[where])
    mask, inverted = mask_of_part(with_alpha(part), ImageOps.invert(part))
    assert inverted and np.array_equal(mask, part)
    assert mask_of_part(with_alpha(part), part) == (part, False)


def test_a_mask_of_everything_or_of_another_size_is_left_to_the_cut():
    assert mask_of_part(noise(), Image.new("L", (64, 48), 255))[1] is False
    assert mask_of_part(noise(), Image.new("L", (64, 64), 0))[1] is False


def test_slots_are_padded_with_white_behind_the_parts():
    seen = encode([blob()])
    assert [(image.size, image.mode) for image in seen] == [((224, 224), "RGB")] * 3
    assert raw(seen[1:]) == raw([white_image(224)] * 2) and raw(seen[:1]) != raw(seen[1:2])


def test_the_reference_counts_among_the_slots_and_comes_first():
    parts = [blob(), blob(colour="red")]
    seen = encode(parts, reference_slot=True)
    assert raw(seen) == raw([white_image(224), *encode(parts)[:2]])
    assert len(encode(parts * 2, reference_slot=True)) == 5


def test_one_reference_is_a_ready_grid_and_more_become_one():
    reds, blues = Image.new("RGB", (40, 80), "red"), Image.new("RGB", (9, 9), "blue")
    one = encode([blob()], reference=[reds], reference_slot=True)[0]
    two = encode([blob()], reference=[reds, blues], reference_slot=True)[0]
    assert one.getcolors() == [(224 * 224, (255, 0, 0))]
    assert [two.getpixel(place) for place in ((50, 50), (170, 50), (100, 170))] == [
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]


def test_parts_are_placed_one_after_the_other_from_one_seed():
    parts = [blob(100), blob(150, "green")]
    rng = random.Random(9)
    expected = [resize_for_encoder(place_part(part, rng=rng), 112) for part in parts]
    assert raw(encode(parts, seed=9, size=112, min_slots=0)) == raw(expected)
    assert raw(encode(parts, seed=10, size=112, min_slots=0)) != raw(expected)


def test_sketches_replace_given_pictures_only():
    seen = encode([blob(), blob(colour="red")], reference_slot=True, sketch_probability=1.0, min_slots=5)
    for part in seen[1:3]:
        pixels = np.asarray(part)
        assert np.ptp(pixels, axis=2).max() == 0 and 0.001 < (pixels[..., 0] < 250).mean() < 0.1
    assert raw([seen[0], *seen[3:]]) == raw([white_image(224)] * 3)


def test_sketches_come_with_their_probability():
    seen = encode([blob(colour="red")] * 16, sketch_probability=0.5)
    sketched = [np.ptp(np.asarray(image), axis=2).max() == 0 for image in seen]
    assert 4 <= sum(sketched) <= 12


def test_no_parts_and_homeless_references_are_refused():
    with pytest.raises(ValueError, match="at least one part"):
        encode([])
    with pytest.raises(ValueError, match="no reference pictures in a layout without a reference slot, got 2"):
        encode([blob()], reference=[blob()] * 2)
