"""Train pOps Operator in the real ComfyUI: every mode, Cancel and resuming, bad input, and the graph."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import torch

from pit.pops.modes import MODES
from pit.pops.sample import operator_noise, sample_operator
from pit.pops.training.words import WordBank
from tests.comfyui.nodes.graphs import node
from tests.comfyui.nodes.pops import WIDTH, Pops
from tests.golden import assert_equal
from tests.pops.tiny import write_base, write_operator
from tests.pops.training.datasets import picture, write_dataset

SETTINGS = {
    "preset": "published", "steps": 6, "batch": 2, "learning_rate": 1e-3, "start_from": "nothing",
    "base": "none", "save_every": 3, "seed": 0, "versions": 1, "hidden_dim": 32, "layers": 2, "heads": 4,
}


@pytest.fixture(scope="module")
def pops(inside, tmp_path_factory) -> Pops:
    return Pops(inside, tmp_path_factory.mktemp("pops"))


@pytest.fixture(scope="module")
def clip(pops):
    return pops.clip()[0]


@pytest.fixture
def folder(inside):
    """Writes a dataset of a mode into ComfyUI's input folder; its name there."""
    def write(mode: str, name: str = "", count: int = 3):
        place = inside.base / "input" / (name or f"pops_{mode}")
        shutil.rmtree(place, ignore_errors=True)
        write_dataset(place, mode, count, randoms=1)
        return f"input/{place.name}"

    yield write


@pytest.fixture
def train(pops, clip):
    """Runs the node as ComfyUI does, in inference mode; returns its outputs."""
    def run(folder, kind, name, vision=None, words=True, **changes):
        with torch.inference_mode():
            try:
                return pops.nodes("train").TrainOperator.execute(
                    vision or pops.vision, folder, kind, name, **SETTINGS | changes,
                    clip=clip if words and kind == "instruct" else None,
                ).args
            finally:
                assert torch.is_inference_mode_enabled()

    return run


def weights(operator):
    return {key: value.clone() for key, value in operator.patcher.model.state_dict().items()}


def run_folder(inside, name):
    return inside.base / "models" / "pops" / name


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_becomes_an_operator_that_is_usable_at_once(inside, pops, clip, folder, train, mode):
    operator, chart = train(folder(mode), mode, f"usable_{mode}")
    assert operator.mode_name == mode and operator.config.embedding_dim == WIDTH
    assert chart.ndim == 4 and chart.shape[-1] == 3
    quick = (7, 1, 3, 2.0)
    if mode == "instruct":
        found = pops.run("Instruct", operator, pops.embedding(), clip, "shiny", *quick, 1.0)
    elif mode == "clothes":
        found = pops.run("Compose", operator, {"part0": pops.embedding(2)}, *quick)
    else:
        found = pops.run("Combine", operator, *quick, 1.0, 1.0, pops.embedding(1, 1), pops.embedding(1, 2))
    assert found.values.shape == (1, WIDTH) and found.values.isfinite().all()
    path = run_folder(inside, f"usable_{mode}") / "operator.safetensors"
    loaded = pops.nodes("loading").load_operator(path, "any name")
    assert loaded.mode_name == mode
    assert all(torch.equal(value, weights(operator)[key]) for key, value in weights(loaded).items())
    engine = pops.engine("files").load_operator(path)
    noise, step_noise = operator_noise(0, 1, WIDTH, 3)
    condition = torch.ones(1, 1, WIDTH)
    sampled = [
        sample_operator(each, condition, noise=noise, step_noise=step_noise, steps=3)
        for each in (engine, operator.patcher.model)
    ]
    assert_equal(*sampled)


def test_what_graphs_and_make_parts_have_written_is_offered(inside, pops, train):
    output = Path(importlib.import_module("folder_paths").get_output_directory())
    write_dataset(output / "pops_datasets" / "saved", "union", 3)
    for number in range(3):
        for place in (f"target/{number}", f"parts/{number}/0", f"parts/{number}/1"):
            file = output / "ip_prior_datasets" / "cut" / f"{place}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(file)
    offered = dict(pops.nodes("train").picture_folders())
    assert {"output/saved", "parts/cut"} <= offered.keys() and "parts/cut/target" not in offered
    for folder, kind in (("output/saved", "union"), ("parts/cut", "clothes")):
        operator, _ = train(folder, kind, f"from_{kind}", steps=1)
        assert operator.mode_name == kind


def test_no_picture_is_encoded_again_under_another_name(inside, folder, train, pops, monkeypatch):
    place = folder("union", "again")
    first, _ = train(place, "union", "once")
    seen, model = [], pops.vision.model
    forward = model.forward

    def counted(pixel_values, **options):
        seen.append(len(pixel_values))
        return forward(pixel_values=pixel_values, **options)

    monkeypatch.setattr(model, "forward", counted)
    second, _ = train(place, "union", "twice")
    assert seen == [1]  # the picture that tells one encoder from another
    assert all(torch.equal(value, weights(second)[key]) for key, value in weights(first).items())


def test_cancel_keeps_a_checkpoint_from_which_the_same_node_resumes(inside, folder, train, cancel_at):
    place = folder("scene", "stopped")
    utils, management = inside.comfy("utils"), inside.comfy("model_management")
    cancel_at(None)  # puts back what is changed here

    def hook(value, total, preview, **_):
        if total == 400:  # the bar of the training, not that of the encoding
            management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(hook)
    with pytest.raises(management.InterruptProcessingException):
        train(place, "scene", "stopped", steps=400)
    [kept] = (run_folder(inside, "stopped") / "checkpoints").iterdir()
    step = int(kept.name.removeprefix("step_"))
    assert 1 <= step < 400
    seen = cancel_at(None)
    stopped, _ = train(place, "scene", "stopped", steps=step + 4)
    assert [value for value, total, _ in seen if total == step + 4][0] == step + 1
    whole, _ = train(place, "scene", "whole", steps=step + 4)
    assert all(torch.equal(value, weights(whole)[key]) for key, value in weights(stopped).items())


def test_a_published_operator_is_trained_further(inside, folder, train):
    models = inside.base / "models"
    write_operator(models / "pops" / "texturing" / "learned_prior.pth", width=WIDTH)
    write_base(models / "kandinsky_prior" / "kandinsky-2-2-prior", width=WIDTH)
    base = "kandinsky-2-2-prior/prior/diffusion_pytorch_model.safetensors"
    operator, _ = train(
        folder("texture"), "texture", "further", start_from="texturing/learned_prior.pth", base=base,
        preset="LoRA, few pictures", learning_rate=0.0,
    )
    assert operator.config.num_layers == 3
    prior, _ = train(folder("union"), "union", "from_prior", start_from=f"kandinsky_prior/{base}")
    assert prior.config.num_layers == 3 and prior.mode_name == "union"
    with pytest.raises(ValueError, match="statistics clip_mean and clip_std beside the weights"):
        train(folder("texture"), "texture", "no_base", start_from="texturing/learned_prior.pth")


@torch.inference_mode()
def test_sentences_are_read_as_by_the_published_text_encoder(pops):
    clip, published = pops.clip()
    lines = ["A shiny chair", "A sketch of a very old chair", "word " * 100]
    states, embeddings = pops.nodes("words").encoded_words(clip, lines, "Train", cut=True)
    for line, state, embedding in zip(lines, states, embeddings, strict=True):
        ids = [token for token, _ in clip.tokenize(line, disable_weights=True)["g"][0]]
        found = published(input_ids=torch.tensor([ids]))
        assert_equal(embedding, found.text_embeds[0])
        assert_equal(state, found.last_hidden_state[0, :ids.index(49407) + 1])
    assert WordBank().all and len(states[2]) == 77


@pytest.mark.parametrize("kind, changes, message", [
    ("instruct", {"words": False}, "Train pOps Operator expected a CLIP for instruct, got none"),
    ("scene", {}, "Expected NAME.jpg with the mask of its object"),
    ("union", {"start_from": "other.pth"}, "expected start_from to be 'nothing' or a file"),
    ("union", {"preset": "LoRA, few pictures"}, "Expected a trained operator for low-rank changes"),
    ("union", {"heads": 5}, "splits into 5 heads"),
    ("union", {"folder": "input/nowhere"}, "Train pOps Operator expected a folder in input"),
    ("union", {"name": "../out"}, "Expected a plain name"),
])
def test_bad_input_is_a_clear_error(folder, train, kind, changes, message):
    given = {"folder": folder("union"), "name": "bad"} | changes
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(given.pop("folder"), kind, given.pop("name"), **given)


def test_an_encoder_without_projection_is_refused(folder, train, pops, monkeypatch):
    monkeypatch.setattr(pops.vision, "model_type", "dinov2")
    with pytest.raises(ValueError, match="expected a clip_vision_model .* got a dinov2"):
        train(folder("union"), "union", "dino")


def graph(name: str, **changes):
    return {
        "tiny": node("Tiny_Models", vision_width=64),
        "train": node(
            "PiT_TrainOperator", clip_vision=["tiny", 3], name=name,
            **SETTINGS | {"folder": "input/pops_graph", "kind": "scene"} | changes,
        ),
        "picture": node("Tiny_Image", count=1, height=40, width=30, channels=3),
        "embedding": node(
            "PiT_EncodeEmbedding", clip_vision=["tiny", 3], image=["picture", 0], fit="squashed",
        ),
        "combine": node(
            "PiT_Combine", operator=["train", 0], seed=0, count=1, steps=2, guidance=0.0, first_strength=1.0,
            second_strength=1.0, first=["embedding", 0],
        ),
        "save": node("PiT_SaveEmbedding", embedding=["combine", 0], name=name),
    }


def progress_of(result):
    return [
        event["data"]["value"] for event in result.events
        if event["type"] == "progress" and event["data"]["node"] == "train"
    ]


def test_a_graph_trains_uses_and_goes_on(lab):
    write_dataset(lab.base / "input" / "pops_graph", "scene", 3)
    result = lab.queue(graph("first"))
    assert result.status == "success", result.error
    assert progress_of(result)[-1] == 6 and len(result.outputs["train"]["images"]) == 1
    assert result.outputs["save"]["text"] == ["written: first.safetensors, 1 embeddings"]
    options = lab.object_info()["PiT_LoadOperator"]["input"]["required"]["file"][1]["options"]
    assert "first/operator.safetensors" in options
    again = lab.queue(graph("first"))
    assert again.status == "success" and progress_of(again) == []
    more = lab.queue(graph("first", steps=9))
    steps = [value for value in progress_of(more) if value > 3]  # of the training, after three examples
    assert more.status == "success" and steps[0] == 7 and steps[-1] == 9


@pytest.mark.parametrize("changes, message", [
    ({"start_from": "nowhere.pth"}, "expected start_from to be 'nothing'"),
    ({"kind": "paint"}, "Value not in list"),
    ({"kind": "union"}, "Expected NAME.jpg with the cut-outs"), ({"kind": "instruct"}, "expected a CLIP"),
])
def test_bad_input_in_a_graph_leaves_the_server_alive(lab, changes, message):
    write_dataset(lab.base / "input" / "pops_graph", "scene", 0)
    result = lab.queue(graph("bad", **changes))
    assert result.status != "success" and message in str(result.error), result.error
