"""Example Pictures: what is in the list is in the pack, small, and fits what its name says."""
from __future__ import annotations

import pytest
import torch

from pit.demo.examples import EXAMPLES, PART_SETS, PICTURES
from pit.piece_it_together.part_sets import read_part_sets

GROUNDLESS = {"spots", "meadow", "meadow with a creature", *(name for name in EXAMPLES if "parts" in name)}


@pytest.fixture
def give(inside):
    return lambda pictures: inside.pack("nodes.creatures.examples").ExamplePictures.execute(pictures).args


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_choice_gives_pictures_with_their_masks(give, name):
    image, mask = give(name)
    side = 256 if name.startswith("parts") else 512
    assert image.shape == (len(EXAMPLES[name]), side, side, 3) and mask.shape == image.shape[:3]
    assert image.dtype == mask.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1
    assert image.reshape(-1, 3).unique(dim=0).shape[0] > 5
    if name in GROUNDLESS:
        assert mask.min() == 1
        return
    assert (image[mask == 0] == 1).all()  # on white
    assert 0.1 < mask.mean() < 0.8 and mask.max() == 1


def test_the_parts_are_those_of_the_sets():
    sets, skipped = read_part_sets(PART_SETS)
    assert skipped == []
    assert {f"parts of {each.name}": each.pictures for each in sets} == {
        name: files for name, files in EXAMPLES.items() if name.startswith("parts of ")
    }


def test_what_comes_with_the_pack_is_small_and_all_of_it_is_offered():
    files = {file for files in EXAMPLES.values() for file in files}
    assert files == {*PART_SETS.rglob("*.png"), *PICTURES.rglob("*.png")}
    assert sum(file.stat().st_size for file in files) < 250_000


@pytest.mark.parametrize("name", ["dragon", "../../weights", "/etc/passwd", ""])
def test_nothing_else_can_be_asked_for(give, name):
    with pytest.raises(ValueError, match="^Example Pictures expected one of parts of ember, .*, got "):
        give(name)
