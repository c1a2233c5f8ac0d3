"""Which masks are parts, and how pictures, masks and parts become a dataset."""

import sys

import numpy as np
import pytest
from PIL import Image

from pit.files.pictures import PictureError, file_name
from pit.piece_it_together.training.dataset import read_dataset
from pit.piece_it_together.training.make_parts import make_parts, part_masks, read_masks, save_concept
from pit.piece_it_together.training.part_rules import PartRules

SIDE = 256


def box(left: int, top: int, width: int, height: int, side: int = SIDE) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def parts_of(*masks: np.ndarray, **rules) -> list[np.ndarray]:
    return part_masks(np.stack(masks), PartRules(**rules))


def same(ours: list[np.ndarray], *expected: np.ndarray) -> bool:
    return len(ours) == len(expected) and all(map(np.array_equal, ours, expected))


def concept(folder, name: str, count: int = 2) -> None:
    save_concept(folder, name, Image.new("RGB", (8, 8)), [Image.new("RGB", (4, 4))] * count)


def test_masks_between_the_limits_come_smallest_first():
    tiny, small, large = box(0, 0, 30, 30), box(0, 0, 40, 40), box(60, 60, 100, 100)
    vast = box(0, 170, 256, 80)
    assert same(parts_of(vast, large, tiny, small), small, large)
    assert same(parts_of(tiny, vast, smallest=0.01, largest=0.5), tiny, vast)


def test_no_mask_that_fits_gives_no_parts():
    nothing, everything = np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)
    assert parts_of(nothing, everything, box(0, 0, 5, 5)) == []
    assert part_masks(np.zeros((0, SIDE, SIDE), bool)) == []


def test_gaps_are_closed_specks_opened_and_holes_filled():
    whole = box(80, 80, 80, 80)
    torn = whole & ~box(118, 80, 3, 80) & ~box(90, 90, 15, 15) | box(10, 10, 3, 3) | box(20, 200, 200, 2)
    assert same(parts_of(torn), whole)


def test_a_mask_that_cleaning_makes_too_small_is_dropped():
    stripes = np.zeros((SIDE, SIDE), bool)
    stripes[20:40, ::12] = stripes[20:40, 1::12] = True
    assert stripes.mean() > 0.01 and parts_of(stripes, smallest=0.01) == []


@pytest.mark.parametrize(("side", "reach"), [(1024, 7), (256, 2), (64, 0), (2048, 14)])
def test_the_square_for_cleaning_grows_with_the_picture(side, reach):
    half = side // 2
    block, bar = box(0, 0, half, half, side), box(half, half // 2, half, 2 * reach + 1, side)
    thinner = bar & ~box(half, half // 2 + 2 * reach, half, 1, side)
    assert np.array_equal(parts_of(block | bar, largest=0.6)[0], block | bar)
    if reach:
        assert np.array_equal(parts_of(block | thinner, largest=0.6)[0], block)


def test_of_masks_that_overlap_the_smallest_is_kept():
    small, middle, large = box(50, 50, 40, 40), box(60, 60, 60, 60), box(130, 130, 80, 80)
    assert same(parts_of(large, middle, small), small, large)


def test_the_limit_keeps_the_smallest():
    masks = [box(60 * (i % 4), 60 * (i // 4), 40 + i, 40) for i in range(12)]
    assert same(parts_of(*masks[::-1]), *masks[:8])
    assert same(parts_of(*masks, most=2), *masks[:2])


def test_rules_for_products_drop_the_largest_and_those_at_the_border():
    inner, edge, whole = box(50, 50, 40, 40), box(200, 20, 56, 50), box(40, 100, 120, 100)
    assert same(parts_of(inner, edge, whole), inner, edge, whole)
    assert same(parts_of(inner, edge, whole, drop_largest=True, drop_border=True), inner)


def test_unfit_masks_are_refused():
    with pytest.raises(ValueError, match=r"\[N,H,W\] of type bool, got \[4, 4\] of type float64"):
        part_masks(np.zeros((4, 4)))


def test_a_part_is_what_its_mask_covers_of_the_picture():
    picture = Image.effect_mandelbrot((SIDE, SIDE), (-2, -1, 1, 1), 40).convert("RGB")
    (part,) = make_parts(picture, box(50, 60, 70, 40)[None])
    assert part.tobytes() == picture.crop((50, 60, 120, 100)).tobytes()


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match="picture's size 40x20, got 20x40"):
        make_parts(Image.new("RGB", (40, 20)), np.ones((1, 40, 20), bool))


def test_without_masks_the_parts_of_a_picture_on_plain_ground_are_found():
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[box(40, 40, 60, 50)], pixels[box(40, 90, 60, 90)] = (200, 30, 30), (30, 60, 200)
    red, blue = make_parts(Image.fromarray(pixels))
    for part, size, colour in ((red, (60, 50), (200, 30, 30)), (blue, (60, 90), (30, 60, 200))):
        assert np.abs(np.subtract(part.size, size)).max() <= 2
        assert part.getpixel((part.width // 2, part.height // 2)) == colour


def test_without_masks_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.delitem(sys.modules, "pit.piece_it_together.training.segments", raising=False)
    monkeypatch.setitem(sys.modules, "skimage.color", None)
    with pytest.raises(ModuleNotFoundError, match="without masks: .* pip install scikit-image"):
        make_parts(Image.new("RGB", (4, 4)))


def test_masks_are_read_from_a_folder_for_each_picture(tmp_path):
    (tmp_path / "a").mkdir()
    first, second = box(0, 0, 4, 4, 16), box(8, 8, 4, 4, 16)
    Image.fromarray(first.astype(np.uint8) * 255).save(tmp_path / "a/2.png")
    painted = np.zeros((16, 16, 4), np.uint8)
    painted[second] = 255  # white strokes on a transparent ground
    Image.fromarray(painted).save(tmp_path / "a/10.png")
    (tmp_path / "a/note.txt").touch()
    assert same(list(read_masks(tmp_path, "a")), first, second)


def test_masks_are_read_from_one_picture_of_colors(tmp_path):
    red, white, blend = box(0, 0, 8, 8, 40), box(20, 20, 10, 10, 40), box(8, 0, 1, 8, 40)
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[red], pixels[white], pixels[blend] = (255, 0, 0), 255, (128, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert same(list(read_masks(tmp_path, "a")), red, white)
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    assert read_masks(tmp_path, "black").shape == (0, 40, 40)


def test_missing_mixed_and_broken_masks_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="got neither"):
        read_masks(tmp_path, "a")
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "a/0.png")
    Image.new("L", (5, 4)).save(tmp_path / "a/1.png")
    with pytest.raises(ValueError, match="masks of one size in .*a, got 4x4, 5x4"):
        read_masks(tmp_path, "a")
    (tmp_path / "a/1.png").write_bytes(b"broken")
    with pytest.raises(PictureError, match="1.png cannot be read"):
        read_masks(tmp_path, "a")


@pytest.mark.parametrize(
    "name",
    ["dragon", "\u9f8d \u0434\u0440\u0430\u043a\u043e\u043d", "x" * 300, "\u9f8d" * 200, "a.b.c", ".hidden",
     "CON", "nul.txt", 'what? "this": <that>|*', "trailing. ", "tab\tname", "surrogate\udcff"],
)
def test_concepts_of_any_name_are_read_back(tmp_path, name):
    concept(tmp_path, name)
    (read,) = read_dataset(tmp_path).concepts
    assert read.target.parent == tmp_path / "target" and len(read.parts) == 2
    assert len(file_name(name).encode()) <= 100


def test_plain_names_stay_and_changed_ones_differ():
    assert [file_name(name) for name in ("dragon", "a b.c", "\u9f8d")] == ["dragon", "a b.c", "\u9f8d"]
    assert file_name("fiance\u0301e") == "fianc\u00e9e"
    changed = [file_name(name) for name in ("a?", "a*", "a_", "y" * 101, "y" * 102, "con")]
    assert len(set(changed)) == len(changed)


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../out", "/etc/out", "a/b", "a\\b", "\\\\server\\share", "C:out", "c:\\o", "a/.."],
)
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="which leads to another folder. Use a name without slashes"):
        concept(tmp_path / "dataset", name)
    assert list(tmp_path.rglob("*")) == []


def test_a_concept_is_replaced_whole(tmp_path):
    concept(tmp_path, "a", 3)
    concept(tmp_path, "a", 1)
    assert [path.name for path in (tmp_path / "parts/a").iterdir()] == ["0.png"]


def test_a_concept_without_parts_is_refused(tmp_path):
    with pytest.raises(ValueError, match='at least one part of "a", got none'):
        concept(tmp_path, "a", 0)
    assert list(tmp_path.iterdir()) == []
