"""Creatures of all species as folders: what lies where, and what it depends on."""

import pytest

from pit.demo.drawing.creature import SPECIES, typical_attributes
from pit.demo.species import species_creatures, write_species


class Canceled(Exception):
    """Stands for a user who cancels."""


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_each_species_has_a_folder_of_its_pure_members(tmp_path):
    told = []
    creatures = write_species(tmp_path, 2, 5, lambda done, total: told.append((done, total)))
    assert names(tmp_path) == sorted(f"{each}/5-000{number}.png" for each in SPECIES for number in (0, 1))
    assert told[-1] == (16, 16) and creatures == species_creatures(2, 5)
    for creature in creatures:
        assert creature.attributes == typical_attributes(creature.species)


def test_other_seeds_add_creatures_and_the_same_seed_draws_the_same(tmp_path):
    write_species(tmp_path, 1, 5)
    first = (tmp_path / "ember" / "5-0000.png").read_bytes()
    write_species(tmp_path, 1, 6)
    write_species(tmp_path, 1, 5)
    assert len(names(tmp_path)) == 2 * len(SPECIES)
    assert (tmp_path / "ember" / "5-0000.png").read_bytes() == first
    assert species_creatures(3, 5)[::3] == species_creatures(1, 5)


def test_what_cancels_it_ends_it(tmp_path):
    def cancel(done, total):
        if done == 3:
            raise Canceled

    with pytest.raises(Canceled):
        write_species(tmp_path, 1, 5, cancel)
    assert len(names(tmp_path)) == 3
