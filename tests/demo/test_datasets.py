"""Creatures written as a dataset: what lies where, what it depends on, and what becomes of cut-off files."""

import numpy as np
import pytest
from PIL import Image

from pit.demo.datasets import draw_part_crop, write_creature_dataset
from pit.demo.drawing.creature import SPECIES, creature_from_seed
from pit.demo.drawing.draw import draw_creature
from pit.demo.models.sizes import PICTURE_SIZE
from pit.piece_it_together.training.dataset import read_dataset


class Cancelled(Exception):
    """Stands for a user who cancels."""


def write(folder, count=3, seed=5, coherence=0.5, on_progress=lambda done, total: None):
    write_creature_dataset(folder, count, seed, coherence, on_progress)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_the_folder_reads_as_a_dataset(tmp_path):
    write(tmp_path)
    dataset = read_dataset(tmp_path)
    assert dataset.layout == "folders" and dataset.skipped == ()
    assert len(dataset.concepts) == 3
    for concept in dataset.concepts:
        assert len(concept.parts) >= 3  # every creature has a body, eyes and a mouth
        target = Image.open(concept.target)
        assert target.mode == "RGB" and target.size == (PICTURE_SIZE, PICTURE_SIZE)
        corners = np.asarray(target)[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == 255).all()


@pytest.mark.parametrize("species", SPECIES)
def test_parts_fill_their_crops_on_white(species):
    creature = creature_from_seed(0, 1.0, species)
    for part in creature.parts:
        crop = draw_part_crop(creature, part)
        drawn = np.asarray(crop.convert("L")) < 255
        assert crop.mode == "RGB" and max(crop.size) <= PICTURE_SIZE
        # Faint pixels at the rim may round to white, but a white frame of two pixels would be a wrong crop.
        assert all(side.any() for side in (drawn[:2], drawn[-2:], drawn[:, :2], drawn[:, -2:]))


def test_a_part_is_as_large_as_in_the_picture():
    creature = creature_from_seed(0, 1.0, "ember")
    mouth = np.asarray(draw_part_crop(creature, "mouth")).astype(int)
    whole = np.asarray(draw_creature(creature)).astype(int)
    height, width = mouth.shape[:2]
    inked = mouth.sum(2) < 700
    differences = [
        np.abs(whole[y:y + height, x:x + width] - mouth)[inked].mean()
        for y in range(PICTURE_SIZE - height) for x in range(PICTURE_SIZE - width)
    ]
    assert min(differences) < 16 < np.median(differences)


def test_it_depends_on_the_seed_and_a_larger_count_extends_the_folder(tmp_path):
    for name, options in {"a": {}, "b": {"count": 2}, "c": {"seed": 6}}.items():
        write(tmp_path / name, **options)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert b.items() < a.items()
    assert a.keys().isdisjoint(c) and set(a.values()).isdisjoint(c.values())
    write(tmp_path / "b")
    assert contents(tmp_path / "b") == a


def test_seeds_and_coherences_can_share_a_folder(tmp_path):
    write(tmp_path, count=1)
    first = contents(tmp_path)
    write(tmp_path, count=1, seed=6)
    write(tmp_path, count=1, coherence=1)
    assert first.items() < contents(tmp_path).items()
    assert len(read_dataset(tmp_path).concepts) == 3


def test_a_canceled_run_resumes_and_complete_concepts_are_not_drawn_again(tmp_path):
    def cancel(done, total):
        assert total == 3
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        write(tmp_path / "a", on_progress=cancel)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.png")}
    assert len(list((tmp_path / "a" / "target").iterdir())) == 2
    seen = []
    write(tmp_path / "a", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    write(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_cut_off_or_incomplete_concept_is_drawn_again(tmp_path):
    write(tmp_path)
    whole = contents(tmp_path)
    targets = sorted((tmp_path / "target").iterdir())
    targets[0].write_bytes(targets[0].read_bytes()[:-20])
    targets[1].unlink()
    (tmp_path / "parts" / targets[2].stem / "1.png").unlink()
    write(tmp_path)
    assert contents(tmp_path) == whole


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got a count of 0"):
        write(tmp_path, count=0)
    with pytest.raises(ValueError, match="coherence between 0 and 1, got 1.5"):
        write(tmp_path, coherence=1.5)
    assert list(tmp_path.iterdir()) == []
