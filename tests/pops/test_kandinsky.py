"""The decoder of Kandinsky 2.2 against diffusers' pipeline."""

import json

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel, VQModel
from diffusers.schedulers import scheduling_ddpm
from safetensors.torch import save_file

from pit.pops.kandinsky import (
    MOVQ,
    UNET,
    betas,
    decoded,
    guided_prediction,
    latent_size,
    load_movq,
    load_unet,
    noise_prediction,
)
from tests.frugal import frugally
from tests.golden import Golden, assert_equal, relative_error
from tests.refusal import assert_refused

STATE, IO, CONFIG = (f"kandinsky22_decoder_tiny_{name}" for name in ("state", "io", "config"))
LOADERS = {"unet": load_unet, "movq": load_movq}


def write_part(golden: Golden, folder, part: str):
    """A part of the golden decoder in diffusers' folder."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    save_file(golden.below(STATE, f"{part}."), folder / part / "diffusion_pytorch_model.safetensors")
    (folder / part / "config.json").write_text(json.dumps(golden.facts(CONFIG)[part]))
    return folder / part


@pytest.fixture
def folder(golden, tmp_path):
    for part in LOADERS:
        write_part(golden, tmp_path, part)
    return tmp_path


@torch.no_grad()
def test_the_unet_predicts_what_the_published_one_does(golden, folder):
    io = golden.below(IO, "unet.")
    unet = load_unet(folder)
    found = unet(io["x"], io["t"], None, added_cond_kwargs={"image_embeds": io["image_embeds"]}).sample
    assert_equal(found, io["out"])
    noise = noise_prediction(unet, io["x"], io["t"], io["image_embeds"])
    assert_equal(noise, io["out"][:, :io["x"].shape[1]])


@torch.no_grad()
def test_the_autoencoder_decodes_what_the_published_one_does(golden, folder):
    io = golden.below(IO, "movq.")
    movq = load_movq(folder)
    assert_equal(movq.decode(io["z"], force_not_quantize=True).sample, io["decoded_noquant"])
    pictures = (io["decoded_noquant"] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert_equal(decoded(movq, io["z"]), pictures)


@torch.no_grad()
def test_a_whole_run_gives_the_published_picture(golden, folder, monkeypatch):
    io, facts = golden.tensors(IO), golden.facts(CONFIG)
    unet, movq, scheduler = load_unet(folder), load_movq(folder), DDPMScheduler(**facts["scheduler"])
    assert_equal(betas(), scheduler.betas)
    noises = iter(io["step_noise"])
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: next(noises))
    scheduler.set_timesteps(len(io["timesteps"]))
    assert scheduler.timesteps.tolist() == io["timesteps"].tolist()
    latents, (height, width) = io["init_latents"], io["image"].shape[1:3]
    assert latents.shape[2:] == (latent_size(height), latent_size(width))
    for t, expected in zip(io["timesteps"], io["latents"], strict=True):
        noise = guided_prediction(
            unet, latents, t, io["image_embeds"], io["negative_image_embeds"], facts["guidance_scale"])
        latents = scheduler.step(noise, t, latents).prev_sample
        assert_equal(latents, expected)
    # The decoder with random weights magnifies the last digits of the latents two hundred times.
    assert relative_error(decoded(movq, latents), io["image"]) < 1e-3


@torch.no_grad()
def test_without_guidance_the_negative_is_not_read(golden, folder):
    io, unet = golden.tensors(IO), load_unet(folder)
    x, t, embeds = io["init_latents"], io["timesteps"][0], io["image_embeds"]
    nothing = torch.full_like(embeds, float("nan"))
    alone = noise_prediction(unet, x, t, embeds)
    assert torch.equal(guided_prediction(unet, x, t, embeds, nothing, 1.0), alone)


@pytest.mark.parametrize("part, network, config", [
    ("unet", UNet2DConditionModel, UNET), ("movq", VQModel, MOVQ),
])
def test_the_keys_are_the_published_ones(golden, part, network, config):
    facts = golden.facts("kandinsky22_decoder_full_keys")
    with torch.device("meta"):
        state = network.from_config(config).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == facts[part]
    assert sum(value.numel() for value in state.values()) == facts["params"][part]


@pytest.mark.parametrize("pixels, side", [(512, 64), (513, 72), (64, 8), (1, 8), (768, 96)])
def test_latents_cover_the_picture(pixels, side):
    assert latent_size(pixels) == side


@pytest.mark.parametrize("part", LOADERS)
def test_a_part_loads_from_its_folder_its_file_and_the_whole(golden, folder, part):
    places = (folder, folder / part, folder / part / "diffusion_pytorch_model.safetensors")
    states = [LOADERS[part](place).state_dict() for place in places]
    expected = golden.below(STATE, f"{part}.")
    for state in states:
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)


@pytest.mark.parametrize("part", LOADERS)
def test_damaged_parts_are_refused(golden, folder, part):
    load, path = LOADERS[part], folder / part / "diffusion_pytorch_model.safetensors"
    state = golden.below(STATE, f"{part}.")
    key = next(key for key in state if key.startswith("conv_out" if part == "unet" else "decoder.conv_out"))
    for change, message in (
        ({key: None}, f"1 missing: {key}"), ({"more": torch.zeros(1)}, "1 unknown: more"),
        ({key: torch.zeros(2, 2)}, f"expected {key} of shape"),
        ({key: torch.full_like(state[key], float("nan"))}, f"expected finite numbers in {key}"),
    ):
        save_file({name: value for name, value in (state | change).items() if value is not None}, path)
        assert_refused(load, path, message)


@pytest.mark.parametrize("text", [
    "{", "[]", '"someone/unet"', '{"block_out_channels": [5, 7]}', '{"down_block_types": ["x"]}',
    '{"layers_per_block": 9000000}', '{"layers_per_block": [2, 2, 2, 9000000]}',
    '{"transformer_layers_per_block": [1, 1, 1, 9000000]}',
    json.dumps({"down_block_types": ["DownBlock2D"] * 90000, "block_out_channels": [32] * 90000}),
])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "unet/config.json").write_text(text)
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    message = "config.json: expected the configuration of a decoder"
    with frugally(seconds=5.0):
        assert_refused(load_unet, path, message, "Fetch the file again")


def test_other_files_and_folders_are_named(folder, tmp_path):
    unet, movq = (folder / part / "diffusion_pytorch_model.safetensors" for part in ("unet", "movq"))
    assert_refused(load_unet, movq, "expected a decoder of Kandinsky 2.2, complete")
    assert_refused(load_movq, unet, "expected a decoder of Kandinsky 2.2, complete")
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert_refused(load_unet, tmp_path / "a.safetensors", "got a file of another kind")
    (tmp_path / "empty").mkdir()
    assert_refused(
        load_unet, tmp_path / "empty", "got one without unet/", "python -m pit download kandinsky-decoder")


@pytest.mark.parametrize("change, what", [
    ({"in_channels": 9}, "in_channels 9"),
    ({"in_channels": 8, "addition_embed_type": "image_hint"}, "addition_embed_type image_hint"),
    ({"encoder_hid_dim_type": "text_image_proj"}, "encoder_hid_dim_type text_image_proj"),
])
def test_a_sibling_of_the_decoder_is_refused(golden, tmp_path, change, what):
    """Those for inpainting, and those that read something else than an image embedding."""
    UNet2DConditionModel.from_config(golden.facts(CONFIG)["unet"] | change).save_pretrained(tmp_path)
    assert_refused(load_unet, tmp_path, "draws from an image embedding alone", what, "kandinsky-decoder")
