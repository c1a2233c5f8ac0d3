"""Train Embedding Optimizer in a real ComfyUI: from triplets to a file that inserts, and Cancel."""
from __future__ import annotations

import json
import random
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from pit.object_insertion.files import load_embedding_optimizer
from tests.comfyui.nodes.graphs import node
from tests.comfyui.nodes.object_insertion.shared import folder_of, nodes
from tests.comfyui.nodes.published import write_optimizer
from tests.comfyui.nodes.test_training import executed, progress_of
from tests.comfyui.nodes.test_training import run as run_graph
from tests.object_insertion.training.triplets import write_triplets

SETTINGS = {
    "folder": "triplets", "preset": "published", "trains": "optimizer", "steps": 4,
    "learning_rate": 1e-3, "start_from": "nothing", "size": 64, "save_every": 2, "seed": 0, "batch": 2,
    "variants": 2,
}


@pytest.fixture
def train(inside, model, vae, clip_vision):
    """Runs the node as ComfyUI does, in inference mode; returns its outputs."""
    write_triplets(inside.base / "input" / "triplets", 4)

    def run(name, **changes):
        given = {"model": model, "vae": vae, "clip_vision": clip_vision} | SETTINGS | changes
        with torch.inference_mode():
            try:
                return nodes(inside, "train").TrainEmbeddingOptimizer.execute(name=name, **given).args
            finally:
                assert torch.is_inference_mode_enabled()

    return run


def file_of(inside, name):
    return folder_of(inside) / name / "emb_opt.safetensors"


def state_of(inside, name):
    return load_embedding_optimizer(file_of(inside, name)).state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def insertion_graph(name, **changes):
    """Trained, and an object inserted with the result."""
    model, vae = ["tiny", 0], ["tiny", 1]
    return {
        "tiny": node("Tiny_Insertion"), "models": node("Tiny_Models", vision_width=64),
        "train": node(
            "PiT_TrainEmbeddingOptimizer", model=model, vae=vae, clip_vision=["models", 3], name=name,
            **SETTINGS | changes,
        ),
        "picture": node("Tiny_Image", count=1, height=40, width=32, channels=3),
        "encode": node(
            "PiT_EncodeObject", optimizer=["train", 0], clip_vision=["models", 3], image=["picture", 0],
            seed=0, queries=1, variants=1,
        ),
        "insert": node(
            "PiT_InsertObject", model=["train", 1], vae=vae, scene=["picture", 0],
            object_context=["encode", 0], null_context=["encode", 1], guidance=7.0, image_guidance=1.5,
        ),
        "schedule": node("PiT_InsertionSchedule", model=model, steps=2, spacing="karras"),
        "noise": node("RandomNoise", noise_seed=1),
        "sampler": node("KSamplerSelect", sampler_name="dpmpp_2m"),
        "sampled": node(
            "SamplerCustomAdvanced", noise=["noise", 0], guider=["insert", 0], sampler=["sampler", 0],
            sigmas=["schedule", 0], latent_image=["insert", 1],
        ),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=vae),
        "back": node("PiT_PutBack", image=["decoded", 0], place=["insert", 2]),
        "save": node("SaveImage", images=["back", 0], filename_prefix="trained"),
    }


def test_a_graph_trains_and_inserts(lab):
    write_triplets(lab.base / "input" / "triplets", 4)
    result = run_graph(lab, insertion_graph("first", trains="lora"))
    assert progress_of(result, "train")[-1] == 4
    folder = lab.base / "models" / "object_insertion" / "first"
    assert {path.name for path in folder.iterdir()} >= {"emb_opt.safetensors", "run.json", "metrics.csv"}
    assert (lab.base / "models" / "loras" / "first" / "attention.safetensors").is_file()
    info = lab.object_info()
    for loader in ("PiT_LoadEmbeddingOptimizer", "PiT_TrainEmbeddingOptimizer"):
        name = "file" if "Load" in loader else "start_from"
        assert "first/emb_opt.safetensors" in info[loader]["input"]["required"][name][1]["options"]
    again = run_graph(lab, insertion_graph("first", trains="lora", steps=6))
    assert "train" in executed(again) and progress_of(again, "train")[-2:] == [5, 6]


def test_what_comes_out_is_what_the_file_holds(inside, train):
    optimizer, _, chart = train("plain")
    assert same(optimizer.module.state_dict(), state_of(inside, "plain"))
    assert chart.ndim == 4 and optimizer.name == "plain/emb_opt.safetensors"
    recipe = json.loads((file_of(inside, "plain").parent / "run.json").read_text())["recipe"]
    assert (recipe["batch"], recipe["trains"]) == (2, "optimizer")
    assert not (file_of(inside, "plain").parent / "attention.safetensors").exists()


@pytest.mark.parametrize("trains", ["projections", "lora"])
def test_what_is_learned_of_the_model_comes_out_and_the_stock_loader_reads_it(
    inside, train, model, caplog, trains
):
    _, patched, _ = train(trains, trains=trains, rank=2, learning_rate=1e-2)
    lora = inside.base / "models" / "loras" / trains / "attention.safetensors"
    state = inside.comfy("utils").load_torch_file(str(lora))
    stock, _ = inside.comfy("sd").load_lora_for_models(model, None, state, 1.0, 0)
    assert "lora key not loaded" not in caplog.text
    assert patched.patches.keys() == stock.patches.keys() and len(patched.patches) == 8
    assert all(".attn2.to_" in key for key in patched.patches) and not model.patches


@pytest.mark.parametrize("trains", ["projections", "lora"])
def test_the_trained_model_inserts_as_the_trainer_does(inside, train, model, trains):
    """diffusers' UNet with the additions, and ComfyUI's with the file, predict the same."""
    name = f"parity_{trains}"
    _, patched, _ = train(name, trains=trains, learning_rate=1e-2)
    twin = nodes(inside, "train").inserter_of(patched, torch.nn.Identity(), torch.float32).unet
    plain = nodes(inside, "train").inserter_of(model, torch.nn.Identity(), torch.float32).unet
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(2, *shape, generator=generator) for shape in ((8, 8, 8), (77, 48)))
    times = torch.tensor([100.0, 700.0])
    inside.comfy("model_management").load_models_gpu([patched])
    with torch.inference_mode():
        expected = twin(x, times, context).sample
        found = patched.model.diffusion_model(x, times, context)
        without = plain(x, times, context).sample
    inside.comfy("model_management").unload_all_models()
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (without - expected).abs().max() > 1e-3 * expected.abs().max()


def test_it_trains_under_the_patches_of_the_model(inside, train, model):
    """Such as the published bias, without which the published optimizer was never used."""
    save_file({"conv_in.bias": torch.full((32,), 0.5)}, folder_of(inside) / "half.safetensors")
    biased = nodes(inside, "models").PatchBias.execute(model, "half.safetensors").args[0]
    unet = nodes(inside, "train").inserter_of(biased, torch.nn.Identity(), torch.float32).unet
    assert torch.equal(unet.conv_in.bias, torch.full((32,), 0.5))
    before = model.model.diffusion_model.input_blocks[0][0].bias.clone()
    train("biased", model=biased)
    assert torch.equal(model.model.diffusion_model.input_blocks[0][0].bias, before)
    with pytest.raises(ValueError, match="started_from"):
        train("biased")


def test_training_goes_on_from_a_file(inside, train):
    path = write_optimizer(folder_of(inside) / "start.pt", output_dim=48)
    train("further", start_from="start.pt", learning_rate=1e-9)
    before, after = load_embedding_optimizer(path).state_dict(), state_of(inside, "further")
    assert all((before[key] - after[key]).abs().max() < 1e-6 for key in before)


def test_a_file_for_other_models_is_refused(inside, train):
    write_optimizer(folder_of(inside) / "wide.pt", output_dim=64)
    with pytest.raises(ValueError, match="to width 48, that of the model's contexts, got one from 64 to 64"):
        train("wide", start_from="wide.pt")
    assert not file_of(inside, "wide").parent.exists()


def test_cancel_stops_at_the_next_step_and_going_on_is_as_never_having_stopped(inside, train):
    management, utils = inside.comfy("model_management"), inside.comfy("utils")

    def cancel(value, total, preview, **_):
        if (value, total) == (2, 5):  # not the bar of the four triplets that are encoded first
            management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(cancel)
    try:
        with pytest.raises(management.InterruptProcessingException):
            train("stopped", steps=5)
    finally:
        utils.set_progress_bar_global_hook(None)
    folder = file_of(inside, "stopped").parent / "checkpoints"
    assert max(path.name for path in folder.iterdir()) == "step_00000002"
    train("stopped", steps=5)
    train("whole", steps=5)
    assert same(state_of(inside, "stopped"), state_of(inside, "whole"))


def test_pictures_are_shown_while_it_trains(train, cancel_at):
    seen = cancel_at(None)
    train("shown")
    shown = [each[1] for _, _, each in seen if each]
    assert shown and shown[-1].mode == "RGB" and shown[0].height > 400


def test_training_takes_nothing_from_the_generator_of_others(train):
    torch.manual_seed(7)
    random.seed(7)
    before = torch.get_rng_state(), random.getstate()
    train("polite", trains="lora")
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]


def test_what_cannot_be_used_is_refused_before_anything_is_computed(inside, train):
    with pytest.raises(ValueError, match="Train Embedding Optimizer expected an InstructPix2Pix.* got SDXL"):
        train("none", model=inside.tiny.tiny_sdxl())
    other = SimpleNamespace(model_type="siglip2_vision_model")
    with pytest.raises(ValueError, match="expected a clip_vision_model .* got a siglip2_vision_model"):
        train("none", clip_vision=other)
    with pytest.raises(FileNotFoundError, match="expected a folder inside ComfyUI's input .*elsewhere"):
        train("none", folder="../elsewhere")
    with pytest.raises(ValueError, match="leads to another folder|leads elsewhere"):
        train("../none")
    (inside.base / "input" / "empty").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="metadata.csv with the columns"):
        train("none", folder="empty")


def test_choices_that_are_not_there_are_refused_when_queued(lab):
    (lab.base / "input" / "triplets").mkdir(exist_ok=True)
    for change, message in (
        ({"folder": "absent"}, "Train Embedding Optimizer expected a folder inside ComfyUI's input folder"),
        ({"start_from": "absent.pt"}, "expected a file from models/object_insertion"),
    ):
        result = lab.queue(insertion_graph("refused", **change))
        assert result.status == "refused" and message in result.error, result.error


def test_pictures_of_any_size_are_squashed_and_encoded(train):
    assert train("sizes", size=72)[2].shape[0] == 1
    with pytest.raises(ValueError, match="multiple of 8, got 60"):
        train("odd", size=60)


def test_karras_spacing_is_that_of_comfyui(inside, model):
    schedule = nodes(inside, "models").InsertionSchedule
    sigmas = schedule.execute(model, 7, "karras").args[0]
    sampling = model.get_model_object("model_sampling")
    assert len(sigmas) == 8 and sigmas[-1] == 0 and abs(sigmas[0] / sampling.sigma_max - 1) < 1e-5
    assert schedule.execute(model, 7).args[0][0] < 0.95 * sampling.sigma_max
