"""The creatures' operators: what they learn from, that trainings resume, and what is written."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from pit.demo.drawing.instructions import INSTRUCTIONS
from pit.demo.models.operator_files import OPERATOR_FILES, OPERATORS, operator_file
from pit.demo.models.operators import word_states
from pit.demo.models.sizes import EMBEDDING_DIM, TEXT_G
from pit.demo.models.text import TextEncoders
from pit.demo.models.vision import CreatureVision
from pit.demo.models.weights import VERSION
from pit.demo.training import pops, pops_examples
from pit.demo.training.data import open_dataset
from pit.demo.training.pops_examples import CHANGES, CreatureExamples, drawn_change
from pit.demo.training.stage import Run
from pit.files.weights import read_state
from pit.pops.files import load_operator, read_operator
from pit.pops.modes import mode_in
from pit.pops.prior import PriorTransformer
from pit.pops.training.recipes import Sizes
from pit.pops.training.task import OperatorTask

SEED, ROWS, STEPS = 1, 6, 6
DEFAULT_SIZES = pops.SIZES


class Stopped(Exception):
    """Stands for a run that is cut off."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return open_dataset(tmp_path_factory.mktemp("data"), ROWS, SEED, 1, lambda done: None)


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return CreatureVision().eval().requires_grad_(False), TextEncoders().eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(pops, "SIZES", Sizes(16, 1, 2))
    monkeypatch.setattr(pops, "RECIPE", replace(pops.RECIPE, steps=STEPS, batch=4))
    monkeypatch.setattr(pops, "SAVE_EVERY", 2)
    monkeypatch.setattr(pops, "CHUNK", 4)
    for module in (pops, pops_examples):
        monkeypatch.setattr(module, "THINGS_DRAWN", 3)


def toy_run(folder) -> Run:
    return Run(folder, torch.device("cpu"), torch.float32, SEED)


def train(folder, mode, data, models):
    return load_operator(pops.train_operator(toy_run(folder), mode, data, *models)).state_dict()


# Changes --------------------------------------------------------------------------------------------------


def changes(mode, count=80):
    return [CHANGES[mode](SEED, index, count) for index in range(count)]


def differing(change):
    before, after = (each.creature.attributes for each in (change.before, change.after))
    return {name for name in before if before[name] != after[name]}


def test_a_texture_changes_pattern_and_color_of_the_body_alone():
    for change in changes("texture"):
        worn = pops_examples.training_creature(SEED, change.given).attributes
        assert differing(change) <= {"pattern", "body_color"}
        assert all(change.after.creature.attributes[name] == worn[name] for name in ("pattern", "body_color"))
        assert replace(change.after, creature=change.before.creature) == change.before


def test_a_scene_changes_the_ground_alone():
    for change in changes("scene"):
        ground = {"scene": change.before.scene, "ground": change.before.ground}
        assert replace(change.after, **ground) == change.before
        assert (change.given.scene, change.given.ground) == (change.after.scene, change.after.ground)
        assert change.given.creature is None and change.undone.creature is None


def test_a_union_adds_one_thing():
    found = changes("union")
    for change in found:
        added = pops_examples.training_thing(SEED, change.given)
        assert [thing for thing, _ in change.after.things] == [*(t for t, _ in change.before.things), added]
        assert change.after.creature == change.before.creature and change.undone is None
    assert {len(change.after.things) for change in found} == {1, 2}


def test_words_change_what_they_name():
    for change in changes("instruct"):
        said, was = INSTRUCTIONS[change.given], INSTRUCTIONS[change.undone]
        assert differing(change) == ({said.attribute} if said != was else set())
        assert said.followed(change.before.creature) == change.after.creature


@pytest.mark.parametrize("mode", CHANGES)
def test_every_picture_shows_a_creature_and_some_are_alone_on_white(mode):
    found = changes(mode)
    assert all(change.before.creature for change in found)
    assert 0.2 < np.mean([change.alone for change in found]) < 0.75
    assert found == changes(mode)


def test_a_creature_is_placed_anew_within_the_picture(data):
    view = pops_examples.placed_view(data["clean"][0], random.Random(0))
    assert view.shape == data["views"][0].shape and (view != 255).any()
    assert not np.array_equal(view, data["views"][0])


# Samples --------------------------------------------------------------------------------------------------


def test_samples_undo_changes_and_say_what_is_so_already():
    row = {
        "before": torch.zeros(2, 3), "after": torch.ones(3), "given": torch.tensor(1),
        "undone": torch.tensor(0),
    }
    found = [drawn_change(row, random.Random(seed)) for seed in range(400)]
    kinds = [(int(first[0]), int(said), int(target[0])) for first, said, target in found]
    assert set(kinds) == {(0, 1, 1), (1, 0, 0), (0, 0, 0)}
    assert 0.3 < kinds.count((1, 0, 0)) / 400 < 0.5 and 0.08 < kinds.count((0, 0, 0)) / 400 < 0.22
    del row["undone"]
    assert all(int(drawn_change(row, random.Random(seed))[2][0]) == 1 for seed in range(40))


def test_parts_come_in_any_number_and_order():
    rows = {"parts": torch.arange(5.0).expand(1, 2, 5).transpose(1, 2), "counts": torch.tensor([3])}
    examples = CreatureExamples("clothes", rows | {"after": torch.ones(1, 2)}, ("one",), {}, "")
    drawn = [examples.draw(0, random.Random(seed)).slots[:, 0].tolist() for seed in range(60)]
    assert {len(each) for each in drawn} == {1, 2, 3}
    assert {number for each in drawn for number in each} == {0, 1, 2}
    assert [2.0, 0.0, 1.0] in drawn


def test_words_are_states_up_to_the_end_as_wide_as_embeddings(models):
    states = word_states(models[1], ["red", "no horns"])
    assert [tuple(each.shape) for each in states] == [(3, EMBEDDING_DIM), (4, EMBEDDING_DIM)]
    assert all((each[:, TEXT_G["hidden_size"]:] == 0).all() and each.abs().sum() > 0 for each in states)
    with pytest.raises(KeyError):
        word_states(models[1], ["photorealistic"])


# Runs -----------------------------------------------------------------------------------------------------


def test_all_operators_are_written_as_the_loader_reads_them(tmp_path, data, models):
    pops.train_pops(toy_run(tmp_path), data, *models, tmp_path)
    for mode in OPERATORS:
        file = read_operator(tmp_path / operator_file(mode))
        assert file.mode == mode and file.config.embedding_dim == EMBEDDING_DIM
        state, metadata = read_state(tmp_path / operator_file(mode))
        assert metadata["version"] == VERSION and {value.dtype for value in state.values()} == {torch.float16}


@pytest.mark.parametrize("mode", ["texture", "instruct"])
def test_resuming_equals_never_having_stopped(tmp_path, data, models, monkeypatch, mode):
    whole = train(tmp_path / "whole", mode, data, models)
    losses, calls = OperatorTask.losses, []

    def stopping(*arguments):
        calls.append(None)
        if len(calls) > STEPS // 2:
            raise Stopped
        return losses(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(OperatorTask, "losses", stopping)
        with pytest.raises(Stopped):
            train(tmp_path / "parts", mode, data, models)
    parts = train(tmp_path / "parts", mode, data, models)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_pictures_are_drawn_once_and_embedded_anew_for_another_encoder(tmp_path, data, models, monkeypatch):
    run = toy_run(tmp_path)
    before = pops.encoded(run, "scene", data, *models, 1)
    monkeypatch.setattr(pops, "drawn_views", None)
    again = pops.encoded(run, "scene", data, *models, 1)
    assert all(torch.equal(before.rows[name], again.rows[name]) for name in before.rows)
    torch.manual_seed(1)
    other = pops.encoded(run, "scene", data, CreatureVision().eval(), None, 1)
    assert other.fingerprint == before.fingerprint and other.models != before.models
    assert not torch.equal(before.rows["after"], other.rows["after"])


def test_the_five_are_small_and_offered_by_name():
    sizes = (DEFAULT_SIZES.hidden_dim, DEFAULT_SIZES.num_layers, DEFAULT_SIZES.num_heads)
    operator = PriorTransformer(EMBEDDING_DIM, *sizes, device="meta")
    weights = sum(value.numel() for value in operator.parameters())
    assert 2 * weights * len(OPERATORS) < 8_000_000
    assert [f"creature models: {name}" for name in OPERATORS.values()] == list(OPERATOR_FILES)
    assert {mode_in(name) for name in list(OPERATOR_FILES)[:4]} == {"texture", "scene", "union", "instruct"}
