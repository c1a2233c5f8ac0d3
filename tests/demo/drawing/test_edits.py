"""The ten edits of creatures, and the directions and concepts that come with the pack."""
from __future__ import annotations

import pytest
import torch

from pit.concepts.directions import TOKEN_SPACE, apply_direction
from pit.concepts.token_files import read_direction, read_tokens
from pit.demo.drawing.creature import ATTRIBUTES
from pit.demo.drawing.edits import EDITS, both_classes
from pit.demo.models.library import CONCEPTS, DIRECTION_FILES, FOLDER, TOKEN_FILES, library_file
from pit.demo.models.weights import IP_ADAPTER, weight_file
from pit.files.records import adapter_stamp
from pit.ip_adapter.files import read_ip_adapter


@pytest.fixture(scope="module")
def stamp() -> str:
    return adapter_stamp(read_ip_adapter(weight_file(IP_ADAPTER)).resampler_state)


def test_there_are_ten_edits_of_values_that_creatures_have():
    assert len(EDITS) == 10
    assert len({edit.attribute for edit in EDITS.values()}) == 10
    for edit in EDITS.values():
        assert edit.before and edit.after and not set(edit.before) & set(edit.after)
        assert {*edit.before, *edit.after} <= set(ATTRIBUTES[edit.attribute])
        assert edit.slot in ATTRIBUTES


@pytest.mark.parametrize("name", EDITS)
def test_every_creature_shows_a_value_of_its_class(name):
    edit = EDITS[name]
    before, after = both_classes(name, 60, 3)
    for creatures, values in ((before, edit.before), (after, edit.after)):
        assert len(creatures) == 60
        assert {creature.attributes[edit.attribute] for creature in creatures} == set(values)


@pytest.mark.parametrize("name", EDITS)
def test_creatures_of_a_class_share_nothing_else(name):
    for creatures in both_classes(name, 200, 3):
        for attribute, options in ATTRIBUTES.items():
            if attribute != EDITS[name].attribute:
                assert {creature.attributes[attribute] for creature in creatures} == set(options), attribute


def test_the_seed_alone_decides_the_creatures():
    name, other = list(EDITS)[:2]
    first = both_classes(name, 5, 1)
    assert both_classes(name, 5, 1) == first
    assert first[0] != first[1]
    for different in (both_classes(name, 5, 2), both_classes(other, 5, 1)):
        assert not any(creature in first[0] + first[1] for creature in different[0] + different[1])


def test_an_unknown_edit_is_refused():
    with pytest.raises(ValueError, match="six legs"):
        both_classes("six legs", 3, 1)


def test_the_library_holds_every_edit_and_concept_under_its_own_name():
    assert list(DIRECTION_FILES) == [f"creature models: {name}" for name in EDITS]
    assert list(TOKEN_FILES) == [f"creature models: {name}" for name in CONCEPTS]
    paths = [*DIRECTION_FILES.values(), *TOKEN_FILES.values()]
    assert len(set(paths)) == len(EDITS) + len(CONCEPTS)
    assert all(path.is_file() for path in paths)
    shipped = [path for kind in ("direction", "tokens") for path in FOLDER.glob(f"creature_{kind}_*")]
    assert set(shipped) == set(paths)


@pytest.mark.parametrize("name", EDITS)
def test_a_shipped_direction_belongs_to_the_shipped_adapter(name, stamp):
    direction = read_direction(library_file("direction", name), name)
    assert (direction.space, direction.adapter) == (TOKEN_SPACE, stamp)
    assert direction.source == f"{name}, drawn creatures"
    assert 0 < direction.deviation < direction.recommended < 3
    assert float(direction.notes["separation"]) > 0.9


@pytest.mark.parametrize("name", CONCEPTS)
def test_a_shipped_concept_belongs_to_the_shipped_adapter(name, stamp):
    tokens = read_tokens(library_file("tokens", name), name)
    assert tokens.adapter == stamp and tokens.notes == {"species": name}
    assert tokens.values.shape == tokens.uncond.shape == (1, 16, tokens.width)
    assert not torch.equal(tokens.values, tokens.uncond)


def test_every_shipped_direction_fits_every_shipped_concept():
    for name, path in DIRECTION_FILES.items():
        values = read_direction(path, name).values
        for concept, file in TOKEN_FILES.items():
            tokens = read_tokens(file, concept)
            edited = apply_direction(tokens.values, values, 1.0)
            assert edited.shape == tokens.values.shape and not torch.equal(edited, tokens.values)
