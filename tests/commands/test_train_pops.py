"""`python -m pit train-pops` with tiny encoders."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.__main__ import main
from pit.pops.files import load_operator, read_operator
from pit.pops.modes import MODES
from pit.training.metrics import read_points
from tests.pops.tiny import write_base, write_operator
from tests.pops.training.datasets import write_dataset
from tests.training.test_clip_text import write_text_encoder

WIDTH = 24
RUN = ["--cpu", "--preset", "published", "--batch", "2", "--steps", "4", "--save-every", "2",
       "--validate-every", "2", "--learning-rate", "1e-3", "--versions", "1"]
SIZES = ["--hidden-dim", "32", "--layers", "2", "--heads", "4"]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folders of a vision encoder and of a text encoder."""
    folder = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(CLIPVisionConfig(
        hidden_size=40, intermediate_size=96, num_hidden_layers=2, num_attention_heads=5, image_size=28,
        patch_size=14, projection_dim=WIDTH,
    )).save_pretrained(folder / "vision")
    write_text_encoder(folder / "text")
    return folder


def arguments(data, folder, encoders, mode, *more):
    text = ["--text", str(encoders / "text")] if mode == "instruct" else []
    return ["train-pops", str(data), str(folder), "--mode", mode, "--vision", str(encoders / "vision"), *text,
            *RUN, *more]


@pytest.mark.parametrize("mode", MODES)
def test_the_command_trains_every_mode_and_the_same_command_resumes(tmp_path, encoders, capsys, mode):
    data, folder = write_dataset(tmp_path / "data", mode, 3, randoms=1), tmp_path / "run"
    assert main(arguments(data, folder, encoders, mode, *SIZES)) == 0
    told = capsys.readouterr().out
    assert f"3 examples for {mode}, 1 random pictures" in told and "from step 0" in told
    assert f"3 examples for {mode} to train on, too few to hold any out" in told
    assert (folder / "training.png").is_file()
    first = load_operator(folder / "operator.safetensors").state_dict()
    assert read_operator(folder / "operator.safetensors").mode == mode
    assert main(arguments(data, folder, encoders, mode, *SIZES, "--steps", "6")) == 0
    assert "from step 4" in capsys.readouterr().out
    assert [point.step for point in read_points(folder)] == [2, 4, 6]
    after = load_operator(folder / "operator.safetensors").state_dict()
    assert first.keys() == after.keys() and any(not first[key].equal(after[key]) for key in first)


def test_a_published_operator_is_trained_further_as_a_lora(tmp_path, encoders, capsys):
    data = write_dataset(tmp_path / "data", "union", 3)
    operator, base = write_operator(tmp_path / "operator.pth", width=WIDTH), write_base(tmp_path / "base")
    more = ["--start-from", str(operator), "--base", str(base), "--lora-rank", "2", "--heads", "4",
            "--cache", str(tmp_path / "cache")]
    assert main(arguments(data, tmp_path / "run", encoders, "union", *more)) == 0
    assert (tmp_path / "cache").is_dir() and not (tmp_path / "run" / "encoded").exists()
    before = load_operator(operator, base).state_dict()
    after = load_operator(tmp_path / "run" / "operator.safetensors").state_dict()
    moved = {key for key in before if not torch.allclose(before[key], after[key], atol=1e-7)}
    assert moved and all("attn1.to_" in key or ".ff.net." in key for key in moved)


@pytest.mark.parametrize("mode, change, message", [
    ("union", ["--batch", "0"], "Expected batch to be at least 1, got 0"),
    ("union", ["--clip-strength", "-1"], "Expected clip_strength"),
    ("union", ["--vision", "nowhere"], "nowhere"),
    ("union", ["--start-from", "nowhere.pth"], "nowhere.pth: expected a weight file, got no such"),
    ("union", ["--lora-rank", "2"], "Expected a trained operator for low-rank changes"),
    ("union", ["--randoms", "nowhere"], "got no folder at nowhere"),
    ("instruct", ["--text", "nowhere"], "expected config.json and model.safetensors"),
    ("scene", [], "Expected NAME.jpg with the mask of its object"),
])
def test_what_cannot_be_is_told_in_a_sentence(tmp_path, encoders, capsys, mode, change, message):
    data = write_dataset(tmp_path / "data", "union", 2)
    assert main(arguments(data, tmp_path / "run", encoders, mode, *SIZES, *change)) == 1
    assert message in capsys.readouterr().err


def test_words_need_a_text_encoder(tmp_path, encoders, capsys):
    data = write_dataset(tmp_path / "data", "instruct", 2)
    given = arguments(data, tmp_path / "run", encoders, "union", *SIZES)
    given[given.index("union")] = "instruct"
    assert main(given) == 1
    assert "Expected a text encoder for the mode instruct, got none" in capsys.readouterr().err
