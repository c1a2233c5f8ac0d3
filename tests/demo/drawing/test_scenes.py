"""The grounds: as before where models know them, each unlike all others, and plain ones exact."""

from itertools import combinations, product

import numpy as np
import pytest

from pit.demo.drawing.creature import ALL_SCENE_WORDS, SCENE_WORDS, SCENES
from pit.demo.drawing.scenes import SCENE, SCENE_NAMES, draw_scene, plain_scene
from pit.demo.models.words import WORDS

SIZES = [64, 128, 192, 256, 512]


def pixels_of(name: str, size: int = 128) -> np.ndarray:
    return np.asarray(draw_scene(name, size)).astype(int)


def test_there_are_twelve_scenes_besides_white_and_each_has_words():
    assert len(SCENE) == 12 and SCENE_NAMES == ["white", *SCENE]
    assert len(set(SCENE_WORDS.values())) == len(SCENE_NAMES)
    for phrase in SCENE_WORDS.values():
        assert phrase == "" or phrase.startswith(" ")
        assert set(phrase.split()) <= set(WORDS)


@pytest.mark.parametrize("size", SIZES)
def test_a_scene_has_the_size_that_was_asked_for(size):
    for name in ("white", "candy", "night_meadow"):
        picture = draw_scene(name, size)
        assert (picture.mode, picture.size) == ("RGB", (size, size))


@pytest.mark.parametrize("name", SCENE)
def test_a_scene_is_the_same_every_time_and_at_every_size(name):
    first = draw_scene(name, 128).tobytes()
    draw_scene.cache_clear()
    assert draw_scene(name, 128).tobytes() == first
    reduced = np.asarray(draw_scene(name, 512).reduce(4)).astype(int)
    assert np.abs(reduced - pixels_of(name)).mean() < 1.5


# Colors of the first edition, at (x, y) of 128 x 128 pixels.
KNOWN = {
    "sky": {(64, 0): (150, 206, 250), (18, 26): (255, 255, 255), (64, 127): (231, 245, 254)},
    "night": {(2, 2): (28, 30, 75), (102, 22): (255, 244, 200), (64, 120): (40, 34, 70)},
    "meadow": {(64, 0): (196, 232, 255), (90, 110): (134, 204, 104), (12, 120): (112, 188, 96)},
    "lava": {(64, 0): (92, 28, 48), (64, 120): (70, 26, 40), (110, 120): (255, 180, 60)},
    "night_meadow": {(2, 2): (28, 30, 75), (102, 22): (255, 244, 200), (90, 110): (134, 204, 104)},
    "sky_lava": {(18, 26): (255, 255, 255), (64, 120): (70, 26, 40), (110, 120): (255, 180, 60)},
}


@pytest.mark.parametrize("name", KNOWN)
def test_scenes_that_models_know_look_as_they_did(name):
    picture = draw_scene(name, 128)
    for place, color in KNOWN[name].items():
        assert picture.getpixel(place) == pytest.approx(color, abs=1), place


def test_the_scenes_of_creatures_can_all_be_drawn():
    assert SCENES == SCENE_NAMES
    pictures = {draw_scene(name, 64).tobytes() for name in ALL_SCENE_WORDS}
    assert len(pictures) == len(ALL_SCENE_WORDS)


def test_every_scene_is_unlike_all_others():
    for first, second in combinations(SCENE_NAMES, 2):
        one, other = pixels_of(first), pixels_of(second)
        assert np.linalg.norm((one - other).mean((0, 1))) > 25, (first, second)
        assert np.abs(one - other).mean() > 22, (first, second)


@pytest.mark.parametrize("name", SCENE)
def test_the_middle_is_free(name):
    """No edge that a creature or a thing could have: below the sky's figures and above the ground."""
    middle = pixels_of(name, 100)[30:75, 35:65]
    # Far trunks, rays, waves and dunes are soft; lines around figures stand out by more than 100.
    assert np.abs(np.diff(middle, axis=1)).max() < 80
    assert np.ptp(middle.mean(1), axis=0).max() < 140


@pytest.mark.parametrize("name", [name for name in SCENE if name != "sky"])
def test_the_ground_is_in_the_lower_part(name):
    """What is on the ground differs from the sky alone, and the upper part does not know the ground."""
    whole, above = pixels_of(name, 100), pixels_of(f"{name}_sky", 100)
    assert (np.abs(whole - above).max(2)[94] > 4).all()
    assert np.array_equal(whole[:20], above[:20])


def test_any_two_scenes_mix_into_the_sky_of_one_and_the_ground_of_the_other():
    for first, second in product(SCENE, repeat=2):
        mixed = pixels_of(f"{first}_{second}", 100)
        assert np.array_equal(mixed[:20], pixels_of(first, 100)[:20])
        if second != "sky":  # which has no ground
            assert np.array_equal(mixed[98:], pixels_of(second, 100)[98:])


@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (255, 255, 0), (13, 200, 77)])
def test_a_plain_ground_has_exactly_its_color(color):
    for size in (64, 256):
        picture = np.asarray(plain_scene(color, size))
        assert picture.shape == (size, size, 3) and (picture == color).all()
    assert (np.asarray(plain_scene(np.array(color), 8)) == color).all()


def test_white_is_white():
    assert (np.asarray(draw_scene("white", 256)) == 255).all()


@pytest.mark.parametrize("name", [
    "", "moon", "white_meadow", "meadow_white", "night_", "_night", "night_moon", "sky_night_lava", "Sky",
    "sky ",
])
def test_an_unknown_scene_is_named(name):
    with pytest.raises(ValueError, match="one of the scenes white, sky, .*candy, or two .* got '" + name):
        draw_scene(name, 64)


@pytest.mark.parametrize("color", [
    (0, 0), (0, 0, 0, 0), (0, 0, 256), (-1, 0, 0), (0.5, 0, 0), "red", (), (float("nan"), 0, 0),
    ("1", "2", "3"),
])
def test_a_color_that_is_none_is_named(color):
    with pytest.raises(ValueError, match="three whole numbers from 0 to 255 as a color, got"):
        plain_scene(color, 64)
