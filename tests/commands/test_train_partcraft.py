"""`python -m pit train-partcraft` on tiny bases as diffusers saves them and as ComfyUI has them."""
from __future__ import annotations

import json

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pit.__main__ import main
from pit.partcraft.cluster_files import read_part_clusters, save_part_clusters
from pit.partcraft.files import load_part_words
from pit.partcraft.training.base import load_base
from pit.training.denoising import noise_schedule
from pit.training.metrics import read_points
from pit.training.stable_diffusion import CONFIGS_SD15, PADS, clip_tokenizer
from tests.comfyui.nodes.partcraft.test_finding_parts import drawn
from tests.encoders.test_dino import tiny

TEXT = {"hidden_size": 20, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 2,
        "max_position_embeddings": 77, "vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2}
RUN = ["--cpu", "--size", "64", "--variants", "1", "--precision", "fp32", "--batch", "2", "--accumulation",
       "1", "--steps", "4", "--save-every", "2", "--validate-every", "2", "--learning-rate", "1e-2",
       "--map-level", "2", "--parts", "3", "--codes", "2"]


def write_base(folder, xl=False):
    """A tiny SD 1.5 or SDXL."""
    torch.manual_seed(0)
    more = {
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 16 + 6 * 8,
    } if xl else {}
    parts = {
        "vae": AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), norm_num_groups=4, layers_per_block=1,
            down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)), "scheduler": noise_schedule(),
        "tokenizer": clip_tokenizer(PADS["tokenizer"]),
        "unet": UNet2DConditionModel(
            block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=40 if xl else 20, **more,
        ),
    }
    if xl:
        second = CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=16))
        parts |= {"text_encoder_2": second, "tokenizer_2": clip_tokenizer(PADS["tokenizer_2"])}
        StableDiffusionXLPipeline(**parts).save_pretrained(folder)
    else:
        StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Both bases and a DINOv2."""
    folder = tmp_path_factory.mktemp("models")
    write_base(folder / "sd15")
    write_base(folder / "sdxl", xl=True)
    state = tiny(patch_size=4).state_dict()
    save_file({key: each.clone() for key, each in state.items()}, folder / "dino.safetensors")
    return folder


@pytest.fixture
def arguments(models, tmp_path):
    pictures = tmp_path / "pictures"
    for number in range(8):
        (pictures / f"kind {number % 2}a").mkdir(parents=True, exist_ok=True)
        drawn(number).save(pictures / f"kind {number % 2}a" / f"{number}.png")

    def made(*more, base="sd15", **changes):
        given = {"base": str(models / base), "dino": str(models / "dino.safetensors")} | changes
        flags = [word for name, path in given.items() for word in (f"--{name}", path)]
        return ["train-partcraft", str(pictures), str(tmp_path / "run"), *flags, *RUN, *more]

    return made


def test_one_command_finds_parts_and_trains_words_and_the_same_command_resumes(arguments, tmp_path, capsys):
    Image.new("RGB", (64, 64), "red").save(tmp_path / "pictures" / "plain.png")
    assert main(arguments()) == 0
    told = capsys.readouterr().out
    assert "9 pictures" in told
    assert "found 3 parts" in told and "from step 0" in told and "skipped: 1" in told
    run = tmp_path / "run"
    before = load_part_words(run / "part_words.safetensors")
    clusters = read_part_clusters(run / "part_clusters.safetensors")
    assert before.vocabulary == clusters.vocabulary and before.dim == 20 and before.lora
    with Image.open(run / "samples" / "step_00000004.png") as sheet:
        assert sheet.size == (2 * 64, 4 * 64)
    assert (run / "training.png").is_file()
    assert main(arguments("--steps", "6")) == 0
    told = capsys.readouterr().out
    assert "from step 4" in told and "found 3 parts" not in told
    assert [point.step for point in read_points(run)] == [2, 4, 6]
    after = load_part_words(run / "part_words.safetensors")
    assert not torch.equal(before.mapper.table(), after.mapper.table())


def test_sdxl_and_classes_by_folders(arguments, models, tmp_path, capsys):
    assert main(arguments("--codes-by", "folders", base="sdxl")) == 0
    words = load_part_words(tmp_path / "run" / "part_words.safetensors")
    assert words.dim == 40 and words.vocabulary.classes == ("kind 0a", "kind 1a")
    assert main(arguments(base="sdxl")) == 1
    assert "dataset" in capsys.readouterr().err


def test_given_clusters_are_used(arguments, tmp_path):
    assert main(arguments()) == 0
    given = tmp_path / "given.safetensors"
    save_part_clusters(given, read_part_clusters(tmp_path / "run" / "part_clusters.safetensors"))
    again = arguments("--steps", "6", clusters=str(given))
    (tmp_path / "run" / "part_clusters.safetensors").unlink()
    assert main(again) == 0
    assert not (tmp_path / "run" / "part_clusters.safetensors").exists()


@pytest.mark.parametrize("more, message", [
    (["--size", "60"], "multiple of 8, got 60"), (["--attention-weight", "-1"], "attention_weight"),
    (["--map-level", "8"], "got none. Take another size of picture"),
    (["--base", "x.safetensors"], "expected an SD 1.5 or SDXL file, got no such file"),
    (["--dino", "x.safetensors"], "x.safetensors"), (["--clusters", "x.safetensors"], "x.safetensors"),
    (["--codes", "9"], "1 to 8 codes for 8 pictures"),
])
def test_what_cannot_be_used_is_one_sentence(arguments, capsys, more, message):
    assert main(arguments(*more)) == 1
    assert message in capsys.readouterr().err


def test_another_kind_of_file_is_named(arguments, models, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    save_file({"x.weight": torch.zeros(2, 2)}, other)
    assert main(arguments("--base", str(other))) == 1
    assert "expected an SD 1.5 or SDXL model, got" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["train-partcraft", str(tmp_path / "empty"), *arguments()[2:]]) == 1
    assert "or in the folders directly in it, got none" in capsys.readouterr().err


def test_a_folder_gives_the_models_in_it(models):
    for name, kind in (("sd15", StableDiffusionPipeline), ("sdxl", StableDiffusionXLPipeline)):
        base = load_base(models / name)
        pipeline = kind.from_pretrained(models / name, **{"safety_checker": None} if name == "sd15" else {})
        ids = torch.randint(0, 49408, (1, 77))
        with torch.no_grad():
            expected = pipeline.text_encoder(ids).last_hidden_state
            torch.testing.assert_close(base.encoders[0](ids).last_hidden_state, expected)
            latents = base.latents(torch.device("cpu"))(torch.zeros(1, 3, 32, 32))
        assert len(base.encoders) == (2 if name == "sdxl" else 1) and latents.shape == (1, 8, 4, 4)
        assert base.size == (1024 if name == "sdxl" else 512)
        assert base.decode(latents[:, :4])[0].size == (32, 32)
        state = pipeline.unet.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in base.unet.state_dict().items())


def test_the_configs_are_of_the_published_sd15(golden):
    """As many weights, of such sizes, as the published InstructPix2Pix, which reads a picture more."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(
            json.loads((CONFIGS_SD15 / "unet" / "config.json").read_text()))
    expected = golden.facts("object_insertion_full_keys")["unet"] | {"conv_in.weight": [320, 4, 3, 3]}
    assert {key: list(value.shape) for key, value in unet.state_dict().items()} == expected
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.heads == 8
