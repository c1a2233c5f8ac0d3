"""The benchmark of the true sizes: its files, its probed graphs, and what it measures. No model is built.

What the probes record is compared at tiny sizes in `tests/comfyui/nodes/test_full_size.py`.
"""

import sys
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.full_size import __main__ as program
from benchmarks.full_size import files as full_size_files
from benchmarks.full_size import graphs
from benchmarks.full_size.files import Files, random_state
from benchmarks.full_size.watch import Cost, StageWatch, own_memory, this_process
from dev.comfyui import PACK_NAME

LAYERS = "vision_model.encoder.layers."


@pytest.mark.parametrize("name", graphs.GRAPHS)
def test_a_probed_graph_is_the_published_one_with_probes_in_its_links(tmp_path, name):
    graph = graphs.small(graphs.published(name))
    probed = graphs.probed(graph, tmp_path)
    links = {
        value[0] for node in probed.values() for value in node["inputs"].values() if isinstance(value, list)
    }
    assert links <= probed.keys()

    def original(value):
        return [value[0].removesuffix("_probe"), value[1]] if isinstance(value, list) else value

    for key, node in graph.items():
        inputs = {name: original(value) for name, value in probed[key]["inputs"].items()}
        assert inputs == node["inputs"] and probed[key]["class_type"] == node["class_type"]
    recorded = {
        node["inputs"]["name"] for node in probed.values() if node["class_type"] == "FullSize_Probe"
    }
    expected = {"vision", "adapter", "tokens", "unet", "latents"}
    if name == "piece_it_together_sdxl":
        expected |= {"parts", "prior", "as_chosen"}
    assert recorded == expected


def test_the_prior_is_sampled_in_float32_and_as_the_node_chooses(tmp_path):
    probed = graphs.probed(graphs.small(graphs.published("piece_it_together_sdxl")), tmp_path)
    samplers = {
        key: node["inputs"] for key, node in probed.items() if node["class_type"] == "PiT_SamplePrior"
    }
    assert {key: inputs["prior"][0] for key, inputs in samplers.items()} == {
        "11": "4_probe", "11_as_chosen": "4",
    }
    first, second = (inputs | {"prior": None} for inputs in samplers.values())
    assert first == second and first["concepts"] == 1
    assert graphs.stage_of("11", probed) == "sample prior"
    assert graphs.stage_of("11_as_chosen", probed) == graphs.AS_CHOSEN


def test_a_small_graph_has_one_small_picture_in_four_steps():
    graph = graphs.published("character_sheet_sdxl")
    small = {node["class_type"]: node["inputs"] for node in graphs.small(graph).values()}
    assert small["KSampler"]["steps"] == 4 and small["KSampler"]["cfg"] == 5.0
    assert small["PiT_EmptyLatent"]["percent"] == 25 and small["PiT_EmptyLatent"]["images_per_concept"] == 1
    assert graph["11"]["inputs"]["images_per_concept"] == 2


def test_keys_are_those_of_the_published_files():
    adapter, prior, lora, vision = (
        getattr(full_size_files, f"{name}_shapes")() for name in ("adapter", "prior", "lora", "vision")
    )
    counts = [len(each) for each in (adapter, prior, lora)]
    assert counts == [51 + 140, 78, 1120]
    assert sum(torch.Size(shape).numel() for shape in prior.values()) == 269_871_104
    assert adapter["image_proj.latents"] == [1, 16, 1280]
    assert adapter["ip_adapter.139.to_v_ip.weight"] == [1280, 2048]
    assert f"{LAYERS}31.mlp.fc2.bias" in vision and f"{LAYERS}32.mlp.fc2.bias" not in vision
    assert sum(torch.Size(shape).numel() for shape in vision.values()) == 632_076_800


def test_random_weights_follow_their_seed_and_are_exact_in_the_narrower_type():
    shapes = {"conv.weight": [64, 16, 3, 3], "norm.weight": [256], "norm.bias": [256], "scale": []}
    state, again = (random_state(shapes, 1, torch.float32, torch.bfloat16) for _ in range(2))
    other = random_state(shapes, 2, torch.float32)
    for key, value in state.items():
        assert value.dtype == torch.float32 and list(value.shape) == shapes[key]
        assert torch.equal(value, again[key]) and torch.equal(value, value.bfloat16().float())
        assert not torch.equal(value, other[key])
    assert state["conv.weight"].std() == pytest.approx(1 / 12, rel=0.05)
    assert state["norm.weight"].mean() == pytest.approx(1, abs=0.05)
    assert state["norm.bias"].mean() == pytest.approx(0, abs=0.05)


def test_files_lie_where_comfyui_and_transformers_look(tmp_path, monkeypatch):
    shapes = {"a.weight": [4, 2]}
    for name in ("vision", "adapter", "prior"):
        monkeypatch.setattr(full_size_files, f"{name}_shapes", lambda: shapes)
    monkeypatch.setattr(full_size_files, "lora_shapes", lambda: {"unet.a.lora.up.weight": [4, 2]})
    files = Files(tmp_path)
    files.shapes.write_text('{"model.a.weight": [4, 2]}')
    for write in full_size_files.WRITERS.values():
        write(files)
        write(files)  # what is there stays, and does not disturb
    models = files.base / "models"
    published = {node["class_type"]: node["inputs"] for node in graphs.published(graphs.GRAPHS[0]).values()}
    assert load_file(models / "checkpoints" / published["CheckpointLoaderSimple"]["ckpt_name"])
    assert load_file(models / "clip_vision" / published["CLIPVisionLoader"]["clip_name"])
    assert load_file(models / "ipadapter" / published["PiT_LoadIPAdapter"]["file"])
    prior = models / "ip_prior" / published["PiT_LoadIPPrior"]["file"]
    assert torch.load(prior, weights_only=True).keys() == shapes.keys()
    assert "use_ref: true\n" in prior.with_name("cfg.yaml").read_text()
    sizes = [load_file(path)["unet.a.lora.up.weight"].abs().max() for path in files.loras.values()]
    assert len(sizes) == 2 and sizes[0] != sizes[1] and max(sizes) < 1
    assert (files.vision / "config.json").is_file()
    with Image.open(files.pictures / "part_3.png") as picture:
        alpha = np.asarray(picture.getchannel("A"))
    assert alpha.min() == 0 and alpha.max() == 255
    assert not list(tmp_path.rglob("*.unfinished"))


def test_a_server_has_the_pack_and_the_probes(tmp_path, monkeypatch):
    monkeypatch.setattr(graphs, "ensure_comfyui", lambda: tmp_path)
    for _ in range(2):  # a folder that is used again has the links already
        server = graphs.server_of(Files(tmp_path))
    started = []
    monkeypatch.setattr("dev.server.subprocess.Popen", lambda command, **_: started.append(command))
    server._launch()
    assert started[0][-1] == "--cache-none"
    nodes = server.base / "custom_nodes"
    assert {path.name for path in nodes.iterdir()} == {PACK_NAME, "full_size_probes"}
    assert all((path / "__init__.py").is_file() for path in nodes.iterdir())


def test_stages_add_up_their_seconds_and_keep_their_highest_memory():
    with StageWatch(this_process) as watch:
        watch.enter("large")
        held = torch.ones(64 << 20, dtype=torch.uint8)
        watch.enter("small")
        kept = own_memory(psutil.Process())
        del held
        watch.enter(None)
        time.sleep(0.01)  # counts for no stage
        watch.enter("small")
    assert list(watch.costs) == ["large", "small"] and all(isinstance(c, Cost) for c in watch.costs.values())
    assert min(cost.memory for cost in watch.costs.values()) >= kept - (1 << 20)
    assert 0 < sum(cost.seconds for cost in watch.costs.values())


def test_a_process_that_has_ended_needs_no_memory():
    class Ended:
        def memory_info(self):
            raise psutil.NoSuchProcess(1)

    assert own_memory(Ended()) == 0


@pytest.mark.parametrize("chosen", [["files"], ["graphs"], ["files", "references"], None])
def test_only_the_chosen_stages_run(tmp_path, monkeypatch, chosen):
    done = []
    for name, stage in (("make_files", "files"), ("run_graphs", "graphs"), ("compare", "references")):
        monkeypatch.setattr(program, name, lambda files, *_, stage=stage: done.append((stage, files.base)))
    stages = ["--stages", *chosen] if chosen else []
    monkeypatch.setattr(sys, "argv", ["full_size", "--folder", str(tmp_path / "made"), *stages])
    program.main()
    assert [stage for stage, _ in done] == (chosen or ["files", "graphs", "references"])
    assert {base for _, base in done} == {tmp_path / "made" / "base"}
    assert (tmp_path / "made" / "base").is_dir()


def test_without_a_folder_nothing_is_left(monkeypatch):
    bases = []
    monkeypatch.setattr(program, "make_files", lambda files: bases.append(files.base))
    monkeypatch.setattr(sys, "argv", ["full_size", "--stages", "files"])
    program.main()
    assert len(bases) == 1 and not bases[0].exists()


def test_errors_and_costs_are_printed_as_tables(tmp_path, capsys):
    references = pytest.importorskip("benchmarks.full_size.references", exc_type=ImportError)
    first, second = (references.Chain(name, tmp_path) for name in ("one", "two"))
    first.errors.update(features=0.0, concepts=2.5e-7)
    second.errors.update(features=1e-9, UNet=1.5e-6)
    program.print_errors([first, second])
    program.print_costs("files", {"CLIP ViT-H": Cost(1.25, 2_500_000_000)})
    lines = capsys.readouterr().out.splitlines()
    assert "| features | transformers | 0.0e+00 | 1.0e-09 |" in lines
    assert "| concepts | published code | 2.5e-07 |  |" in lines
    assert "| UNet | diffusers |  | 1.5e-06 |" in lines
    assert "| CLIP ViT-H | 1.2 | 2.50 |" in lines


def test_a_graph_that_has_not_run_is_named(tmp_path):
    references = pytest.importorskip("benchmarks.full_size.references", exc_type=ImportError)
    chain = references.Chain("one", tmp_path / "one")
    assert chain.stage("parts") == []
    with pytest.raises(FileNotFoundError, match="^Expected one file vision_0.safetensors in .*one, got 0 "):
        chain.only("vision")


def test_records_are_read_in_the_order_of_their_numbers(tmp_path):
    references = pytest.importorskip("benchmarks.full_size.references", exc_type=ImportError)
    for number in (0, 2, 10, 1):
        save_file({"x": torch.tensor(number)}, tmp_path / f"unet_{number}.safetensors")
    assert [call["x"].item() for call in references.captured(tmp_path, "unet")] == [0, 1, 2, 10]


class NotedRenderer:
    """Notes what the program asks of the references' renderer."""

    def __init__(self, *files):
        self.asked = []

    @contextmanager
    def lora(self, file):
        self.asked.append(file.name if file else None)
        yield

    def compare_unet(self, chain, same_tokens):
        chain.errors["UNet"] = 1e-6
        self.asked.append(same_tokens)

    def compare_latents(self, chain, inputs):
        chain.errors["latents"] = 2e-6
        self.asked.append((inputs["steps"], inputs["cfg"]))


def test_the_references_follow_the_inputs_of_each_graph(tmp_path, monkeypatch, capsys):
    references = pytest.importorskip("benchmarks.full_size.references", exc_type=ImportError)
    renderer, concepts = NotedRenderer(), []
    for name in ("compare_features", "compare_tokens"):
        monkeypatch.setattr(references, name, lambda chains, file: None)
    monkeypatch.setattr(references, "compare_concepts", lambda *given: concepts.append(given))
    monkeypatch.setattr(references, "Renderer", lambda *files: renderer)
    with_parts = tmp_path / "captured" / graphs.GRAPHS[0]
    with_parts.mkdir(parents=True)
    save_file({"slots": torch.zeros(1)}, with_parts / "parts_0.safetensors")
    program.compare(Files(tmp_path), graphs.GRAPHS)
    assert renderer.asked == [
        None, False, (4, 5.0), "background_generation.safetensors", True, (4, 5.0),
        "character_sheet.safetensors", True, (4, 5.0),
    ]
    ((chain, file, heads, inputs),) = concepts
    assert (chain.name, file.name, heads, inputs["steps"]) == (graphs.GRAPHS[0], "prior.ckpt", 32, 25)
    assert "| latents | diffusers | 2.0e-06 | 2.0e-06 | 2.0e-06 |" in capsys.readouterr().out
