"""Encoded samples belong to the models that encoded them, whatever their files are called."""
from __future__ import annotations

from dataclasses import replace

import pytest
from accelerate import Accelerator

from pit.files.records import Fingerprint, differing_models
from pit.piece_it_together.ip_lora.cache import encode_lora_dataset
from pit.piece_it_together.ip_lora.dataset import read_lora_dataset
from pit.piece_it_together.ip_lora.recipes import PUBLISHED
from pit.piece_it_together.ip_lora.task import LoraTask
from pit.training.denoising import noise_schedule
from pit.training.recipes import RunSettings
from pit.training.sample_cache import MODELS
from pit.training.trainer import Trainer
from tests.training.tiny_renderer import tiny_encoders, tiny_renderer, write_pictures

RECIPE = replace(PUBLISHED, steps=2, batch=2, accumulation=1, rank=2)


def other_digits(encoders):
    """As another number of threads leaves them, from files with other names."""
    tokens = encoders.tokens
    renamed = replace(
        tokens, name="renamed vision", adapter="renamed adapter",
        features=lambda pixels: tokens.features(pixels) * (1 + 1e-6),
    )
    return replace(encoders, tokens=renamed)


def another_encoder(encoders):
    tokens = encoders.tokens
    return replace(encoders, tokens=replace(tokens, features=lambda pixels: tokens.features(pixels).flip(1)))


def encode(folder, encoders):
    samples = read_lora_dataset(folder / "pictures", "captions as they are").samples
    return encode_lora_dataset(samples, folder / "samples", encoders, 16)[0]


def trainer_of(folder, cache):
    settings = RunSettings(folder / "run", save_every=2, validate_every=2)
    task = LoraTask(tiny_renderer(), noise_schedule(), cache, RECIPE, settings)
    return Trainer(task, RECIPE, settings, Accelerator(cpu=True))


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path / "pictures", 3)
    return tmp_path


def test_renamed_files_and_other_digits_encode_nothing_again_and_the_run_resumes(folder):
    first = encode(folder, tiny_encoders())
    trainer_of(folder, first).run(lambda progress: None)
    second = encode(folder, other_digits(tiny_encoders()))
    assert second.files == first.files and second.fingerprint == first.fingerprint
    assert len(list(folder.glob(f"samples/*/{MODELS}"))) == 1
    assert trainer_of(folder, second).state.step == 2


@pytest.mark.parametrize(("other", "words"), [
    (another_encoder, "the image encoder was another one, the IP-Adapter was another one"),
    (lambda encoders: tiny_encoders("2"), "the tiny models was another one"),
])
def test_other_models_encode_into_a_folder_of_their_own_and_are_refused_by_the_run(folder, other, words):
    first = encode(folder, tiny_encoders())
    trainer_of(folder, first).run(lambda progress: None)
    second = encode(folder, other(tiny_encoders()))
    assert not set(second.files) & set(first.files)
    with pytest.raises(ValueError, match=words):
        trainer_of(folder, second)
    assert trainer_of(folder, encode(folder, tiny_encoders())).state.step == 2


def test_a_damaged_record_of_models_costs_only_time(folder):
    first = encode(folder, tiny_encoders())
    (first.files[0].parent / MODELS).write_text("{")
    assert len(encode(folder, tiny_encoders()).files) == 3


def test_models_differ_by_what_they_answer_and_by_what_is_missing():
    near, far = Fingerprint("b", (1.0001, 2.0)), Fingerprint("a", (2.0, 1.0))
    found = {"eye": Fingerprint("a", (1.0, 2.0)), "weights": "1"}
    assert differing_models(found, {"eye": near, "weights": "1"}) == []
    assert differing_models(found, {"eye": far, "weights": "2"}) == ["eye", "weights"]
    assert differing_models(found, {"eye": near, "more": "1"}) == ["weights", "more"]
