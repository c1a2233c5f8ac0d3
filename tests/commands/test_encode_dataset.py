"""`python -m pit encode-dataset` with real pictures and the creatures' encoder."""

import argparse
from pathlib import Path

import pytest

from pit.commands import encode_dataset
from pit.commands.encode_dataset import add_arguments, run
from pit.piece_it_together.training.cache import open_cache
from tests.piece_it_together.training.test_encode import make_concepts


def encode(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def dataset(tmp_path) -> Path:
    make_concepts(tmp_path / "set", range(3))
    return tmp_path / "set"


def test_pictures_become_a_cache_and_a_second_run_keeps_it(dataset, tmp_path, capsys):
    (dataset / "parts" / "c01" / "0.png").write_bytes(b"no picture")
    options = ("--creatures", "--device", "cpu", "--variants", 2, "--sketch-probability", 0.5, "--seed", 3)
    assert encode(dataset, tmp_path / "cache", *options) == 0
    out = capsys.readouterr().out
    assert "3 concepts encoded, 0 were there already" in out
    assert "skipped: 1" in out and "parts/c01/0.png" in out
    cache = open_cache(tmp_path / "cache", verify=True)
    assert (len(cache), cache.width, cache.variants) == (3, 64, 2)
    assert cache.settings.augmentation["sketch_probability"] == 0.5
    assert cache.settings.augmentation["seed"] == 3
    assert encode(dataset, tmp_path / "cache", *options) == 0
    assert "0 concepts encoded, 3 were there already" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    ((), "Expected --vision and --ip-adapter, or --creatures alone"),
    (("--vision", "clip.safetensors"), "Expected --vision and --ip-adapter"),
    (("--creatures", "--vision", "clip.safetensors"), "or --creatures alone"),
    (("--creatures", "--dtype", "fp16"), "always fp32"),
    (("--vision", "no.safetensors", "--ip-adapter", "no.bin"), "a weight file, got no such file"),
    (("--creatures", "--variants", "0"), "variants and batch of at least 1"),
])
def test_arguments_that_cannot_be_met_are_one_sentence(dataset, tmp_path, capsys, arguments, message):
    assert encode(dataset, tmp_path / "cache", "--device", "cpu", *arguments) == 1
    error = capsys.readouterr().err
    assert "error: " in error and message in error
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_pictures_and_one_that_is_not_there_are_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert encode(tmp_path / folder, tmp_path / "cache", "--creatures") == 1
        assert folder in capsys.readouterr().err


def test_a_dataset_of_corrupt_pictures_is_an_error(dataset, tmp_path, capsys):
    for path in (dataset / "target").iterdir():
        path.write_bytes(b"no picture")
    assert encode(dataset, tmp_path / "cache", "--creatures", "--device", "cpu") == 1
    assert "no concept could be encoded" in capsys.readouterr().err


def test_an_interrupted_command_says_that_it_resumes(dataset, tmp_path, capsys, monkeypatch):
    options = (dataset, tmp_path / "cache", "--creatures", "--device", "cpu", "--batch", 3, "--variants", 1)

    def interrupt(bar, done: int, total: int) -> None:
        if done > 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(encode_dataset, "_show", interrupt)
    assert encode(*options) == 130
    assert "resumes from there" in capsys.readouterr().err
    monkeypatch.undo()
    assert encode(*options) == 0
    assert "1 concepts encoded, 2 were there already" in capsys.readouterr().out
