"""`python -m pit train-ip-lora` on the creature models."""
from __future__ import annotations

import pytest

from pit.__main__ import main
from pit.demo.datasets import write_scene_dataset
from pit.files.lora import read_lora
from pit.training.metrics import read_points

RUN = ["--creatures", "--cpu", "--mode", "captions as they are", "--rank", "2", "--size", "64",
       "--steps", "4", "--save-every", "2", "--validate-every", "2", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_scene_dataset(folder, 4, 0)
    return folder


def arguments(pictures, folder, *more):
    return ["train-ip-lora", str(pictures), str(folder), *RUN, *more]


def state_of(folder):
    lora = read_lora(folder / "ip_lora.safetensors")
    return lora.unet | lora.adapter


def test_the_command_trains_and_the_same_command_resumes(tmp_path, pictures, capsys):
    assert main(arguments(pictures, tmp_path, "--batch", "2", "--accumulation", "1")) == 0
    told = capsys.readouterr().out
    assert "4 targets with references" in told and "4 pictures to train on" in told and "from step 0" in told
    assert (tmp_path / "training.png").is_file()
    before = state_of(tmp_path)
    assert main(arguments(pictures, tmp_path, "--batch", "2", "--accumulation", "1", "--steps", "6")) == 0
    assert "from step 4" in capsys.readouterr().out
    assert [point.step for point in read_points(tmp_path)] == [2, 4, 6]
    after = state_of(tmp_path)
    assert before.keys() == after.keys() and any(not before[key].equal(after[key]) for key in before)


@pytest.mark.parametrize(("change", "message"), [
    (["--base", "x.safetensors"], "Expected --base, --vision and --ip-adapter, or --creatures alone"),
    (["--rank", "0"], "Expected rank to be at least 1, got 0"),
])
def test_what_does_not_fit_is_one_sentence(tmp_path, pictures, capsys, change, message):
    assert main(arguments(pictures, tmp_path, *change)) == 1
    assert message in capsys.readouterr().err


def test_an_unknown_word_is_named(tmp_path, capsys):
    write_scene_dataset(tmp_path / "pictures", 1, 0)
    for path in (tmp_path / "pictures" / "targets").glob("*.txt"):
        path.write_text("a creature in a supermarket")
    assert main(arguments(tmp_path / "pictures", tmp_path / "run")) == 1
    assert "do not know the word 'supermarket'" in capsys.readouterr().err
