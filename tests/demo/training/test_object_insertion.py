"""The training of the creatures' InstructPix2Pix, in a few steps: what it learns from, moves and writes."""

from dataclasses import replace

import pytest
import torch

from pit.demo.models import weights
from pit.demo.models.instruct import INSTRUCT, is_kept
from pit.demo.models.library import OPTIMIZER
from pit.demo.training import object_insertion as training
from pit.demo.training import stage
from pit.demo.training.encoded import load_encoders
from pit.demo.training.stage import Run
from pit.files.weights import read_state
from pit.object_insertion.files import load_embedding_optimizer
from pit.training.denoising import noise_schedule

SEED, TRIPLETS = 3, 6


class Stopped(Exception):
    """Stands for a run that is cut off."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(training, "STAGE", replace(training.STAGE, steps=3, batch=2, warmup=1))
    monkeypatch.setattr(training, "TRIPLETS", TRIPLETS)
    monkeypatch.setattr("pit.demo.training.encoded.CHUNK", 4)


@pytest.fixture(scope="module")
def data():
    return training.encode_triplets(load_encoders(torch.device("cpu")), SEED, range(TRIPLETS))


def run_in(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, torch.device("cpu"), torch.float32, SEED, **changes)


def test_triplets_are_encoded_once_and_the_rest_after_an_interruption(tmp_path, data, monkeypatch):
    run, calls = run_in(tmp_path), []

    def encode(encoders, seed, rows):
        calls.append(rows)
        if len(calls) == 2:
            raise Stopped
        return training.TripletData(*(value[rows.start:rows.stop] for value in vars(data).values()))

    monkeypatch.setattr(training, "encode_triplets", encode)
    with pytest.raises(Stopped):
        training.triplet_data(run, TRIPLETS)
    found = training.triplet_data(run, TRIPLETS)
    assert calls == [range(4), range(4, 6), range(4, 6)]
    assert all(torch.equal(value, getattr(data, name)) for name, value in vars(found).items())


def test_a_triplet_depends_on_its_number_alone(data):
    alone = training.encode_triplets(load_encoders(torch.device("cpu")), SEED, range(4, 6))
    for name, value in vars(alone).items():
        torch.testing.assert_close(value, getattr(data, name)[4:6], rtol=1e-2, atol=1e-2)
    assert data.features.shape == (TRIPLETS, 64, 192) and data.scenes.dtype is torch.float16
    assert data.scenes.shape == data.targets.shape == (TRIPLETS, 12, 16, 16)


def test_the_error_counts_more_where_the_thing_is():
    scenes = torch.zeros(1, 12, 16, 16)
    targets = scenes.clone()
    targets[:, :, 10:13, 2:5] = 1
    found = training.thing_weights(training.TripletData(scenes, targets, scenes), torch.tensor([0]))
    assert found.sum() == 256 + 9 * training.THING_WEIGHT and found[0, 11, 3] == 1 + training.THING_WEIGHT


def test_a_batch_is_what_the_published_training_sees(data):
    schedule = noise_schedule()
    rows = torch.tensor([0, 5])
    batch = training.draw_batch(data, rows, schedule, torch.Generator().manual_seed(1))
    kept = schedule.alphas_cumprod[batch.timesteps][:, None, None, None]
    targets = (batch.noisy - (1 - kept).sqrt() * batch.wanted) / kept.sqrt()
    torch.testing.assert_close(targets, data.targets[rows].float(), rtol=1e-2, atol=2e-2)
    assert torch.equal(batch.scene, data.scenes[rows].float())
    assert batch.query.shape[::2] == (2, 96) and batch.chances.shape == (2,)
    counts = {
        training.draw_batch(data, rows, schedule, torch.Generator().manual_seed(seed)).query.shape[1] / 77
        for seed in range(20)
    }
    assert counts == set(training.QUERY_COUNTS) == {1, 4, 16}


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, data, monkeypatch):
    whole = training.train_inserter(run_in(tmp_path / "a"), data).state_dict()
    monkeypatch.setattr(stage, "SAVE_SECONDS", -1)
    draw, steps = training.draw_batch, []

    def stop(*arguments):
        steps.append(1)
        if len(steps) == 3:
            raise Stopped
        return draw(*arguments)

    monkeypatch.setattr(training, "draw_batch", stop)
    with pytest.raises(Stopped):
        training.train_inserter(run_in(tmp_path / "b"), data)
    resumed = training.train_inserter(run_in(tmp_path / "b"), data).state_dict()
    assert len(steps) == 4
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_the_stage_moves_all_that_is_not_the_bases_own_and_writes_two_files(tmp_path):
    training.train_object_insertion(run_in(tmp_path / "run"), tmp_path / "weights")
    state, metadata = read_state(tmp_path / "weights" / INSTRUCT)
    base = weights.with_prefix(weights.read_weights(weights.SD15), "unet.")
    assert set(state) == {key for key in base if not is_kept(key)}
    assert metadata["version"] == weights.VERSION and len(metadata["base"]) == 64
    attention = [key for key in state if key.endswith("attn2.to_v.weight")]
    assert attention and not any(torch.equal(state[key], base[key]) for key in attention)
    assert state["conv_in.weight"][:, 12:].any()
    optimizer = load_embedding_optimizer(tmp_path / "weights" / OPTIMIZER)
    assert (optimizer.input_dim, optimizer.output_dim, optimizer.num_layers) == (192, 96, 4)
