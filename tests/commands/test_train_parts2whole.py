"""`python -m pit train-parts2whole` on the golden Parts2Whole, a golden VAE, and random encoders."""
from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.__main__ import main
from pit.parts2whole.files import load_parts2whole
from pit.training.metrics import read_points
from tests.parts2whole.cases import write_published
from tests.parts2whole.training.people import WIDTH, write_people
from tests.training.test_clip_text import write_text_encoder

RUN = ["--cpu", "--width", "64", "--height", "64", "--variants", "2", "--precision", "fp32", "--batch", "2",
       "--steps", "4", "--save-every", "2", "--validate-every", "4", "--learning-rate", "1e-3"]
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1,
    "image_size": 28, "patch_size": 14, "projection_dim": WIDTH,
}


@pytest.fixture(scope="module")
def files(golden, tmp_path_factory):
    """Folders as diffusers and transformers save them."""
    folder = tmp_path_factory.mktemp("models")
    write_published(golden, folder / "start")
    (folder / "vae").mkdir()
    config = golden.facts("object_insertion_tiny_config")["vae"]
    state = golden.below("object_insertion_tiny_state", "vae.")
    save_file(state, folder / "vae" / "diffusion_pytorch_model.safetensors")
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).save_pretrained(folder / "vision")
    write_text_encoder(folder / "text", hidden_size=WIDTH)
    write_text_encoder(folder / "wide_text", hidden_size=32, num_attention_heads=2)
    return folder


@pytest.fixture
def arguments(files, tmp_path):
    pictures = write_people(tmp_path / "people", 4)

    def made(*more, start=("--start-from", "start"), **changes):
        paths = {name: str(files / name) for name in ("vae", "text", "vision")} | changes
        models = [word for name, path in paths.items() for word in (f"--{name}", path)]
        begin = [start[0], str(files / start[1])] if start else []
        folder = str(tmp_path / "run")
        return ["train-parts2whole", str(pictures), folder, *begin, *models, *RUN, *more]

    return made


def test_the_command_trains_and_the_same_command_resumes(arguments, tmp_path, capsys):
    assert main(arguments()) == 0
    told = capsys.readouterr().out
    assert "4 examples, 0 held out" in told and "4 examples to train on, 0 held out" in told
    run = tmp_path / "run"
    before = load_parts2whole(run).decoupled.state_dict()
    with Image.open(run / "samples" / "step_00000004.png") as sheet:
        assert sheet.size == (6 * 160, 4 * 160) and len(sheet.getcolors(1 << 20)) > 50
    assert (run / "training.png").is_file() and (run / "unet" / "config.json").is_file()
    assert main(arguments("--steps", "6")) == 0
    assert "from step 4" in capsys.readouterr().out
    assert [point.step for point in read_points(run)] == [4, 6]
    after = load_parts2whole(run).decoupled.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_a_new_one_begins_on_a_unet(arguments, tmp_path):
    assert main(arguments("--trains", "lora", "--rank", "2", start=("--unet", "start/unet"))) == 0
    assert load_parts2whole(tmp_path / "run").pose_guider.conv_out.weight.any()


@pytest.mark.parametrize("more, changes, message", [
    (["--width", "60"], {}, "multiples of 8, got 60x64"),
    (["--prompt-dropout", "1.5"], {}, "between 0 and 1, got 1.5"),
    (["--pose", "openpose"], {}, "without a pose of the kind 'openpose'"),
    ([], {"vae": "x.safetensors"}, "x.safetensors"),
    ([], {"text": "nowhere"}, "Take text_encoder of huanngzh/Parts2Whole"),
    ([], {"start": ("--unet", "nowhere")}, "nowhere"),
    ([], {"start": ("--start-from", "start/unet")}, "got none of the name unet and reference_unet"),
    ([], {"start": ()}, "to start from, got neither. Give one"),
])
def test_what_cannot_be_used_is_one_sentence(arguments, capsys, more, changes, message):
    assert main(arguments(*more, **changes)) == 1
    assert message in capsys.readouterr().err


def test_two_starts_are_refused(arguments, files, capsys):
    assert main(arguments("--unet", str(files / "start" / "unet"))) == 1
    assert "to start from, got both. Give one" in capsys.readouterr().err


def test_encoders_of_another_width_are_refused_before_anything_is_encoded(arguments, files, tmp_path, capsys):
    assert main(arguments(text=str(files / "wide_text"))) == 1
    assert f"the width {WIDTH} from the text encoder, which the UNets read, got 32" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
