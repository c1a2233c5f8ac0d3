"""The attribute reader: it reads drawn creatures, and loads its weights completely or not at all."""

import random
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from pit.demo.drawing.composition import THING_LABEL, compose, draw_composition, draw_map
from pit.demo.drawing.creature import ATTRIBUTES, COLOR_NAMES, SCENES, UNSEEN, sample_creature
from pit.demo.drawing.draw import draw_creature
from pit.demo.drawing.pose import sample_pose
from pit.demo.drawing.scenes import SCENE_NAMES
from pit.demo.drawing.things import THINGS, sample_thing
from pit.demo.measure.scores import is_whole, targets_of
from pit.demo.models import weights
from pit.demo.models.reader import (
    COUNTS,
    MAP_LABELS,
    MAP_SIZE,
    CreatureReader,
    Reading,
    as_pictures,
    load_reader,
)
from pit.demo.models.sizes import PICTURE_SIZE, READER
from pit.demo.models.weights import VERSION
from pit.files.weights import WeightFileError, write_state
from tests.demo.drawn import draw_flawed

FRESH = 200


def random_reader(seed=0):
    torch.manual_seed(seed)
    return CreatureReader().eval()


def noise(count):
    return torch.rand(count, 3, PICTURE_SIZE, PICTURE_SIZE, generator=torch.Generator().manual_seed(0))


def save(reader, folder, version=VERSION):
    write_state(folder / weights.READER, reader.state_dict(), {"version": version})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in place of the shipped weights."""
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def fresh():
    """Creatures that no training has seen, and what the shipped reader reads in them and in flawed ones."""
    rng = random.Random("fresh creatures")
    creatures = [sample_creature(rng, 0.0, scene=rng.choice(SCENES)) for _ in range(FRESH)]
    reader = load_reader()
    reading = reader.read(as_pictures([draw_creature(creature, PICTURE_SIZE) for creature in creatures]))
    return creatures, reading, reader.read(as_pictures([draw_flawed(each, rng) for each in creatures]))


@pytest.fixture(scope="module")
def composed():
    """Posed creatures beside one or two things, things alone, and what the shipped reader reads in them."""
    rng = random.Random("fresh compositions")
    compositions = []
    for number in range(FRESH):
        creature = replace(sample_creature(rng, 0.0), pose=sample_pose(rng)) if number % 4 else None
        things = [sample_thing(rng) for _ in range(1 + number % 2)]
        compositions.append(compose(creature, things, scene=rng.choice(SCENE_NAMES), rng=rng))
    return compositions, load_reader().read(as_pictures([draw_composition(each) for each in compositions]))


def test_a_reading_answers_every_question_for_every_picture():
    reading = random_reader().read(noise(5))
    assert reading.attributes.shape == (5, len(ATTRIBUTES)) and reading.attributes.dtype == torch.int64
    options = torch.tensor([len(values) for values in ATTRIBUTES.values()])
    assert (reading.attributes >= 0).all() and (reading.attributes < options).all()
    assert reading.scenes.shape == (5,) and (reading.scenes < len(SCENE_NAMES)).all()
    assert reading.whole.shape == (5,) and ((0 <= reading.whole) & (reading.whole <= 1)).all()
    assert reading.features.shape == (5, READER["features"])
    assert reading.things.shape == (5, len(THINGS) * len(COLOR_NAMES))
    assert ((0 <= reading.things) & (reading.things <= 1)).all()
    assert reading.counts.shape == (5,) and (reading.counts < COUNTS).all()
    assert reading.maps.shape == (5, MAP_SIZE, MAP_SIZE) and reading.maps.dtype == torch.uint8
    assert (reading.maps < MAP_LABELS).all()


def test_the_reader_fits_into_three_megabytes():
    assert 2 * sum(weight.numel() for weight in random_reader().parameters()) <= 3_000_000


def test_pictures_are_read_the_same_in_any_batch():
    reader, pictures = random_reader(), noise(5)
    apart, together = reader.read(pictures, batch=2), reader.read(pictures)
    assert torch.allclose(apart.features, together.features, atol=1e-5)
    assert torch.equal(apart.attributes, together.attributes)


def test_joined_readings_have_all_that_each_had():
    reader, pictures = random_reader(), noise(3)
    one, together = reader.read(pictures[:1]), reader.read(pictures)
    joined = Reading.joined([one, reader.read(pictures[1:])])
    for field in fields(Reading):
        both = getattr(joined, field.name), getattr(together, field.name)
        assert torch.allclose(*(value.float() for value in both), atol=1e-5), field.name


def test_saved_weights_read_the_same(folder):
    reader, pictures = random_reader(), noise(3)
    save(reader, folder)
    assert torch.equal(load_reader().read(pictures).features, reader.read(pictures).features)
    assert not torch.allclose(random_reader(1).read(pictures).features, reader.read(pictures).features)


def test_missing_weights_say_what_to_do(folder):
    with pytest.raises(WeightFileError, match=f"{weights.READER} .* got no such file. Install the pack"):
        load_reader()


def test_weights_of_another_version_are_refused(folder):
    save(random_reader(), folder, version="0")
    with pytest.raises(WeightFileError, match=f"version {VERSION} .* got version 0 of {weights.READER}"):
        load_reader()


def test_weights_that_were_cut_off_are_refused(folder):
    save(random_reader(), folder)
    path = folder / weights.READER
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightFileError, match=weights.READER):
        load_reader()


def test_the_shipped_reader_reads_fresh_creatures(fresh):
    creatures, reading, _ = fresh
    targets = torch.stack([targets_of(creature) for creature in creatures])
    right, shown = reading.attributes == targets, targets != UNSEEN
    accuracies = (right & shown).sum(dim=0) / shown.sum(dim=0)
    assert accuracies.mean() >= 0.97, dict(zip(ATTRIBUTES, accuracies.tolist(), strict=True))
    assert accuracies.min() >= 0.9
    scenes = torch.tensor([SCENES.index(creature.scene) for creature in creatures])
    assert (reading.scenes == scenes).float().mean() >= 0.97


def test_the_shipped_reader_tells_complete_creatures_from_flawed_ones(fresh):
    _, reading, flawed = fresh
    assert is_whole(reading).float().mean() >= 0.9
    assert (~is_whole(flawed)).float().mean() >= 0.9


def test_the_shipped_reader_reads_small_and_posed_creatures(composed):
    compositions, reading = composed
    rows = [number for number, each in enumerate(compositions) if each.creature]
    targets = torch.stack([targets_of(compositions[row].creature) for row in rows])
    right, shown = reading.attributes[rows] == targets, targets != UNSEEN
    assert (right & shown).sum() / shown.sum() >= 0.95
    assert is_whole(reading)[rows].float().mean() >= 0.9


def test_the_shipped_reader_reads_things(composed):
    compositions, reading = composed
    pairs = torch.zeros_like(reading.things, dtype=torch.bool)
    for row, composition in enumerate(compositions):
        for thing, _ in composition.things:
            pairs[row, THINGS.index(thing.kind) * len(COLOR_NAMES) + COLOR_NAMES.index(thing.color)] = True
    assert ((reading.things > 0.5) == pairs).all(dim=1).float().mean() >= 0.95
    counts = torch.tensor([len(composition.things) for composition in compositions])
    assert (reading.counts == counts).float().mean() >= 0.95


def test_the_shipped_reader_draws_label_maps(composed):
    compositions, reading = composed
    truth = np.stack([draw_map(each, MAP_SIZE).clip(max=THING_LABEL) for each in compositions])
    found, drawn = reading.maps.numpy(), truth > 0
    assert (found == truth)[drawn].mean() >= 0.85 and (found == truth)[~drawn].mean() >= 0.97


def test_every_other_file_of_another_version_is_refused(folder):
    write_state(folder / weights.IP_PRIOR, {"x": torch.zeros(1)}, {"version": "1"})
    with pytest.raises(WeightFileError, match="got version 1 of creature_ip_prior.safetensors"):
        weights.weight_file(weights.IP_PRIOR)
