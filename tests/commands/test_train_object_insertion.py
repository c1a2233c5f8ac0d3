"""`python -m pit train-object-insertion` on the models of the golden data."""
from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from pit.__main__ import main
from pit.object_insertion.files import load_embedding_optimizer
from pit.object_insertion.training.base import load_unet
from pit.training.metrics import read_points
from tests.object_insertion.training.triplets import write_triplets

TINY = "object_insertion_tiny_state"
RUN = ["--cpu", "--size", "32", "--variants", "2", "--precision", "fp32", "--batch", "2", "--steps", "4",
       "--save-every", "2", "--validate-every", "2", "--learning-rate", "1e-3"]
SIZES = {"unet": "unet", "vae": "vae", "vision": "image_encoder"}


@pytest.fixture(scope="module")
def files(golden, tmp_path_factory):
    """The golden UNet, VAE and image encoder as diffusers and transformers save them."""
    folder, facts = tmp_path_factory.mktemp("models"), golden.facts("object_insertion_tiny_config")
    for name, part in SIZES.items():
        file = "model.safetensors" if name == "vision" else "diffusion_pytorch_model.safetensors"
        (folder / name).mkdir()
        state = golden.below(TINY, f"{part}.")
        if name == "vision":  # the golden tower comes without the projection, which nothing reads
            width = facts[part]["hidden_size"], facts[part]["projection_dim"]
            state.setdefault("visual_projection.weight", torch.zeros(width[::-1]))
        save_file(state, folder / name / file)
        (folder / name / "config.json").write_text(json.dumps(facts[part]))
    return folder


@pytest.fixture
def arguments(files, tmp_path):
    pictures = write_triplets(tmp_path / "pictures", 4)

    def made(*more, **changes):
        paths = {name: str(files / name) for name in SIZES} | changes
        models = [word for name, path in paths.items() for word in (f"--{name.replace('_', '-')}", path)]
        return ["train-object-insertion", str(pictures), str(tmp_path / "run"), *models, *RUN, *more]

    return made


def test_the_command_trains_and_the_same_command_resumes(arguments, tmp_path, capsys):
    assert main(arguments()) == 0
    told = capsys.readouterr().out
    assert "4 triplets" in told and "4 triplets to train on, 0 held out" in told and "from step 0" in told
    run = tmp_path / "run"
    before = load_embedding_optimizer(run / "emb_opt.safetensors").state_dict()
    assert before["mlp_fc4.weight"].shape == (48, 48)
    with Image.open(run / "samples" / "step_00000004.png") as sheet:
        assert sheet.size == (3 * 32, 4 * 32) and len(sheet.getcolors(10_000) or range(10_000)) > 100
    assert (run / "training.png").is_file()
    assert main(arguments("--steps", "6")) == 0
    assert "from step 4" in capsys.readouterr().out
    assert [point.step for point in read_points(run)] == [2, 4, 6]
    after = load_embedding_optimizer(run / "emb_opt.safetensors").state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_training_goes_on_from_a_file(arguments, golden, tmp_path, capsys):
    start = golden.path("object_insertion_tiny_emb_opt.pt")
    assert main(arguments("--learning-rate", "1e-9", "--trains", "lora", start_from=str(start))) == 0
    before = load_embedding_optimizer(start).state_dict()
    after = load_embedding_optimizer(tmp_path / "run" / "emb_opt.safetensors").state_dict()
    assert all((before[key] - after[key]).abs().max() < 1e-6 for key in before)
    assert (tmp_path / "run" / "attention.safetensors").is_file()
    assert main(arguments()) == 1
    assert "trains was" in capsys.readouterr().err


def test_pictures_that_fail_end_no_training(arguments, monkeypatch, tmp_path, caplog):
    def fails(*_args):
        raise RuntimeError("no picture today")

    monkeypatch.setattr("pit.commands.train_object_insertion.sample_sheet", fails)
    assert main(arguments()) == 0
    told = [message for message in caplog.messages if "goes on without samples: no picture today" in message]
    assert len(told) == 1 and (tmp_path / "run" / "emb_opt.safetensors").is_file()


@pytest.mark.parametrize("more, message", [
    (["--size", "60"], "multiple of 8, got 60"), (["--dropping", "0.5"], "between 0 and 1/3, got 0.5"),
    (["--vae", "x.safetensors"], "x.safetensors"),
])
def test_what_cannot_be_used_is_one_sentence(arguments, capsys, more, message):
    assert main(arguments(*more)) == 1
    assert message in capsys.readouterr().err


def test_an_optimizer_of_another_width_is_refused(arguments, tmp_path, capsys):
    from tests.comfyui.nodes.published import write_optimizer

    path = write_optimizer(tmp_path / "wide.pt", output_dim=64)
    assert main(arguments(start_from=str(path))) == 1
    assert "to width 48, that of the model's contexts, got one from 64 to 64" in capsys.readouterr().err


def spoiled(files, tmp_path, name, change=None, **sizes):
    """A copy of a model with a changed config or file."""
    folder = tmp_path / f"spoiled_{name}"
    folder.mkdir()
    for path in (files / name).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | sizes
    (folder / "config.json").write_text(json.dumps(config))
    if change is not None:
        change(folder)
    return str(folder)


@pytest.mark.parametrize("name, sizes, message", [
    ("unet", {"in_channels": 4}, "conv_in.weight of shape"),
    ("unet", {"block_out_channels": [32]}, "expected the sizes of an InstructPix2Pix UNet, got others"),
    ("unet", {"layers_per_block": 10**9}, "its layers_per_block is above 128"),
    ("unet", {"cross_attention_dim": "wide"}, "expected the sizes of an InstructPix2Pix UNet"),
    ("vae", {"layers_per_block": 3}, "missing"),
    ("vae", {"latent_channels": 16}, "shape"),
])
def test_sizes_that_are_not_those_of_the_weights_are_refused(
    arguments, files, tmp_path, capsys, name, sizes, message
):
    assert main(arguments(**{name: spoiled(files, tmp_path, name, **sizes)})) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_a_file_of_another_kind_is_named(arguments, golden, tmp_path, capsys, name):
    assert main(arguments(**{name: str(golden.path("object_insertion_tiny_emb_opt.pt"))})) == 1
    assert "got an Embedding Optimizer" in capsys.readouterr().err


def test_a_text_to_image_unet_is_refused(arguments, files, golden, tmp_path, capsys):
    def cut(folder):
        state = golden.below(TINY, "unet.")
        state["conv_in.weight"] = state["conv_in.weight"][:, :4].contiguous()
        save_file(state, folder / "diffusion_pytorch_model.safetensors")

    assert main(arguments(unet=spoiled(files, tmp_path, "unet", cut, in_channels=4))) == 1
    assert "with 8 input channels, got a UNet with 4" in capsys.readouterr().err


def test_without_a_config_the_sizes_are_those_of_the_weights(golden, tmp_path):
    facts = golden.facts("object_insertion_tiny_config")["unet"]
    sizes = {"block_out_channels": [32, 64], "layers_per_block": 2}
    whole = UNet2DConditionModel(**facts | sizes | {"norm_num_groups": 32, "attention_head_dim": 8})
    file = tmp_path / "unet.safetensors"
    save_file(whole.state_dict(), file)
    unet = load_unet(file)
    assert {name: unet.config[name] for name in sizes} == sizes and unet.config.in_channels == 8
    sample, words = torch.randn(1, 8, 8, 8), torch.randn(1, 5, facts["cross_attention_dim"])
    with torch.no_grad():
        ours, theirs = (each(sample, 7, words).sample for each in (unet, whole))
    assert torch.equal(ours, theirs)


def test_without_a_config_sizes_that_no_unet_has_are_refused(arguments, files, tmp_path, capsys):
    path = spoiled(files, tmp_path, "unet", lambda folder: (folder / "config.json").unlink())
    assert main(arguments(unet=path)) == 1  # the golden norms have 8 groups, which weights do not tell
    told = capsys.readouterr().err
    assert "expected the sizes of an InstructPix2Pix UNet" in told and "Put its config.json beside it" in told


def test_without_a_config_a_unet_of_another_kind_is_named(arguments, files, golden, tmp_path, capsys):
    def change(folder):
        (folder / "config.json").unlink()
        more = {"add_embedding.linear_1.weight": torch.zeros(2, 2)}
        save_file(golden.below(TINY, "unet.") | more, folder / "diffusion_pytorch_model.safetensors")

    assert main(arguments(unet=spoiled(files, tmp_path, "unet", change))) == 1
    assert "expected a UNet of Stable Diffusion 1.5, got one of SDXL" in capsys.readouterr().err
