"""Train Parts2Whole in a real ComfyUI: from pictures to a folder that Load Parts2Whole reads, and Cancel."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from tests.comfyui.nodes.parts2whole.shared import nodes
from tests.parts2whole.cases import assert_close
from tests.parts2whole.training.people import write_people

SETTINGS = {
    "folder": "people", "preset": "published", "trains": "lora", "steps": 4, "learning_rate": 1e-2,
    "width": 64, "height": 64, "save_every": 2, "seed": 0, "rank": 2, "batch": 1, "accumulation": 1,
    "variants": 2,
}


@pytest.fixture
def train(inside, model, parts, encoders):
    """Runs the node as ComfyUI does, in inference mode; returns its outputs."""
    write_people(inside.base / "input" / "people", 4)
    clip, vae, vision = encoders

    def run(name, **changes):
        given = {
            "model": model, "clip": clip, "vae": vae, "clip_vision": vision, "parts2whole": parts,
        } | SETTINGS | changes
        with torch.inference_mode():
            try:
                return nodes(inside, "train").TrainParts2Whole.execute(name=name, **given).args
            finally:
                assert torch.is_inference_mode_enabled()

    return run


def folder_of(inside, name):
    return inside.base / "models" / "parts2whole" / name


def weights_of(patcher):
    return {key: value.float().cpu() for key, value in patcher.model_state_dict().items()}


def same(first, second):
    first, second = weights_of(first), weights_of(second)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_what_comes_out_is_what_load_parts2whole_reads(inside, train, model, parts):
    trained, read, chart = train("fine")
    loading = nodes(inside, "loading")
    assert "fine" in loading.folders()
    with torch.inference_mode():
        loaded, other = loading.LoadParts2Whole.execute("fine").args
    assert same(trained, loaded) and same(read.reference_unet, other.reference_unet)
    assert same(read.decoupled, other.decoupled) and same(read.pose_guider, other.pose_guider)
    assert not same(trained, model) and not same(read.reference_unet, parts.reference_unet)
    assert not same(read.decoupled, parts.decoupled) and chart.ndim == 4 and read.blocks == parts.blocks
    sigmas = trained.get_model_object("model_sampling").sigmas
    assert_close(sigmas, model.get_model_object("model_sampling").sigmas)
    recipe = json.loads((folder_of(inside, "fine") / "run.json").read_text())["recipe"]
    assert (recipe["batch"], recipe["trains"], recipe["rank"]) == (1, "lora", 2)


def test_without_parts2whole_a_new_one_begins_on_the_model(inside, train, model):
    trained, read, _ = train("new", parts2whole=None, trains="reference lora", preset="8 GB card")
    last = read.guider.conv_out.weight.detach()
    assert last.any() and last.abs().max() <= 1
    before, after = weights_of(model), weights_of(trained)
    # Frozen, and kept in 16 bits while it trains.
    assert all((before[key] - after[key]).abs().max() < 2e-3 for key in before)


def test_it_trains_under_the_patches_of_the_model(inside, train, model, parts):
    train_node = nodes(inside, "train")
    key = "diffusion_model.input_blocks.0.0.bias"
    patched = model.clone()
    patched.add_patches({key: (torch.ones(32),)})
    found, plain = (train_node.unet_of(each).conv_in.bias for each in (patched, model))
    assert_close(found, plain + 1)
    assert train_node.stamp_of(patched, parts) != train_node.stamp_of(model, parts)
    assert train_node.stamp_of(model, parts) != train_node.stamp_of(model, None)


def test_the_models_of_the_graph_stay_as_they_are(train, model, parts):
    patchers = model, parts.reference_unet, parts.pose_guider, parts.decoupled
    before = [{key: value.clone() for key, value in weights_of(each).items()} for each in patchers]
    torch.manual_seed(7)
    generator = torch.get_rng_state()
    train("polite")
    assert torch.equal(torch.get_rng_state(), generator)
    for patcher, state in zip(patchers, before, strict=True):
        after = weights_of(patcher)
        assert all(torch.equal(after[key], value) for key, value in state.items())


def test_cancel_stops_at_the_next_step_and_going_on_is_as_never_having_stopped(inside, train):
    management, utils = inside.comfy("model_management"), inside.comfy("utils")

    def cancel(value, total, preview, **_):
        if (value, total) == (2, 5):  # not the bar of the four examples that are encoded first
            management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(cancel)
    try:
        with pytest.raises(management.InterruptProcessingException):
            train("stopped", steps=5)
    finally:
        utils.set_progress_bar_global_hook(None)
    checkpoints = folder_of(inside, "stopped") / "checkpoints"
    assert max(path.name for path in checkpoints.iterdir()) == "step_00000002"
    assert "stopped" not in nodes(inside, "loading").folders()
    stopped, whole = train("stopped", steps=5), train("whole", steps=5)
    assert same(stopped[0], whole[0]) and same(stopped[1].reference_unet, whole[1].reference_unet)


def test_cancel_stops_while_pictures_are_encoded(inside, train, cancel_at):
    cancel_at(2)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        train("encoding", width=72)
    assert not folder_of(inside, "encoding").exists()


def test_pictures_are_shown_while_it_trains(train, cancel_at):
    seen = cancel_at(None)
    train("shown")
    shown = [each[1] for _, _, each in seen if each]
    assert shown and shown[-1].mode == "RGB" and shown[0].height > 400


def test_what_cannot_be_used_is_refused_before_anything_is_computed(inside, train):
    with pytest.raises(ValueError, match="expected a model of Stable Diffusion 1.5, got TinySDXL"):
        train("none", model=inside.tiny.tiny_sdxl())
    other = SimpleNamespace(model_type="siglip2_vision_model")
    with pytest.raises(ValueError, match="expected a clip_vision_model .* got a siglip2_vision_model"):
        train("none", clip_vision=other)
    wide = SimpleNamespace(model_type="clip_vision_model", config={"projection_dim": 99})
    with pytest.raises(ValueError, match="projects to width 24, got a clip_vision_model of width 99"):
        train("none", clip_vision=wide)
    deep = SimpleNamespace(latent_channels=16, spacial_compression_encode=lambda: 8)
    with pytest.raises(ValueError, match="the VAE of Stable Diffusion 1.5, .* got one with 16"):
        train("none", vae=deep)
    with pytest.raises(FileNotFoundError, match="expected a folder inside ComfyUI's input .*elsewhere"):
        train("none", folder="../elsewhere")
    with pytest.raises(ValueError, match="leads to another folder|leads elsewhere"):
        train("../none")
    with pytest.raises(ValueError, match="multiples of 8, got 60x64"):
        train("none", width=60)
    with pytest.raises(ValueError, match="a line without a pose of the kind 'openpose'"):
        train("none", pose="openpose")
    (inside.base / "input" / "empty").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="Expected a folder|Expected train.jsonl"):
        train("none", folder="empty")
    assert not folder_of(inside, "none").exists()


def test_a_text_that_is_too_long_is_cut(inside, encoders):
    words = nodes(inside, "references").embedded_words
    with torch.inference_mode():
        found = words(encoders[0], ["word " * 200], 24, "Train Parts2Whole", cut=True)
        assert found.shape == (1, 77, 24)
        with pytest.raises(ValueError, match="expected a label of at most 75 tokens"):
            words(encoders[0], ["word " * 200], 24)
