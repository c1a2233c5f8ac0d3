"""What ComfyUI's page shows of an error: a heading in words, and the sentence that helps before any path."""

import ast
import json
import sys
from pathlib import Path

import pytest
import torch

from dev import ROOT
from tests.comfyui.nodes.graphs import node, render_graph, sample_graph
from tests.comfyui.nodes.published import write_ip_adapter


@pytest.fixture
def shown(lab):
    """Runs a graph that fails in a node; returns heading and message as the page gets them."""
    def run(graph):
        result = lab.queue(graph)
        (error,) = [event["data"] for event in result.events if event["type"] == "execution_error"]
        return error["exception_type"], error["exception_message"]

    return run


def test_a_file_is_named_by_its_place_in_models_and_its_folder_comes_last(lab, shown):
    write_ip_adapter(lab.base / "models" / "ip_prior" / "of_another_kind.safetensors")
    heading, message = shown(sample_graph(prior__file="of_another_kind.safetensors"))
    first, *_, last = message.strip().splitlines()
    assert heading == "A file cannot be used"
    assert first.startswith("models/ip_prior/of_another_kind.safetensors: expected an IP-Prior, ")
    assert str(lab.base) not in first and last == f"models is {lab.base / 'models'}"
    assert message.count("of_another_kind") == 1


def test_an_input_that_does_not_fit(shown):
    heading, message = shown({
        "parts": node("PiT_CreatureParts", seed=0, species="mixed", **dict.fromkeys(
            ("body", "eyes", "mouth", "horns", "ears", "wings", "arms", "legs", "tail"), False)),
        "shown": node("PreviewImage", images=["parts", 0]),
    })
    assert heading == "An input cannot be used"
    assert message.startswith("Creature Parts expected at least one part to draw, got none. Switch one")


SAMPLING = [
    ({"latent__batch_size": 2}, "Expected a multiple of 3 images in the latent batch for 3 concepts, got 2"),
    ({"mixed": node("Tiny_MixedRows", model=["apply", 0]), "sampler__model": ["mixed", 0]},
     "Apply IP+ Tokens expected queries for the 6 rows of the batch, got 6, and nothing that tells which"),
]


@pytest.mark.parametrize(("changes", "first"), SAMPLING)
def test_what_our_patches_refuse_in_a_stock_sampler(lab, shown, changes, first):
    """In the conditions before the first step, and in a layer."""
    before = len(lab.log.read_text())
    heading, message = shown(render_graph(**changes))
    assert heading == "An input cannot be used"
    assert message.startswith(first) and len(message.strip().splitlines()) == 1
    added = lab.log.read_text()[before:]
    assert "During handling of the above exception" not in added and added.count(first) == 2


def test_all_that_is_raised_while_a_stock_sampler_runs_has_a_heading(inside):
    """No node of ours is around it there, which would give it one."""
    headed = {"InputProblem"}
    assert headed <= {kind.__name__ for _, kind in inside.pack("nodes.bridge.errors").SHOWN_AS}
    paths = [ROOT / "nodes" / "bridge" / "rows.py", ROOT / "nodes" / "bridge" / "following.py",
             ROOT / "nodes" / "piece_it_together" / "token_layout.py"]
    raised = [
        (path.name, each.lineno, ast.unparse(each.exc.func)) for path in paths
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(each, ast.Raise)
    ]
    assert len(raised) >= 6
    assert [each for each in raised if each[2] not in headed] == []


def test_an_error_that_has_its_heading_is_told_as_it_is_by_a_node_of_ours(inside, monkeypatch):
    """Such as IP-Prior Sample with a preview, within which a sampler runs."""
    errors = inside.pack("nodes.bridge.errors")
    monkeypatch.setattr(errors, "OURS", (Path(__file__).parent,))
    try:
        raise errors.InputProblem("Expected this, got that.")
    except ValueError as error:
        shown = errors.shown_error(error)
    assert type(shown) is errors.InputProblem and str(shown) == "Expected this, got that."


def test_a_long_message_loses_its_middle(inside, monkeypatch):
    errors = inside.pack("nodes.bridge.errors")
    monkeypatch.setattr(errors, "OURS", (Path(__file__).parent,))
    with pytest.raises(ValueError, match="Expected") as raised:
        raise ValueError(f"Expected tokens, got {'x' * 900_000}. Take others.")
    shown = str(errors.shown_error(raised.value))
    assert len(shown) == 1000 and shown.startswith("Expected tokens") and shown.endswith("Take others.")


@pytest.mark.parametrize("facts", [{"note": "x" * 900_000}, {f"note {i}": "x" for i in range(60_000)}])
def test_what_a_node_tells_of_a_file_is_short(inside, facts):
    told = inside.pack("nodes.bridge.feedback").as_lines({"concepts": 3, **facts})
    assert told.startswith("concepts: 3\nnote") and len(told) <= 1000


def test_an_error_stands_once_in_the_log(lab, shown):
    write_ip_adapter(lab.base / "models" / "ip_prior" / "told_once.safetensors")
    before = len(lab.log.read_text())
    shown(sample_graph(prior__file="told_once.safetensors"))
    added = lab.log.read_text()[before:]
    assert "During handling of the above exception" not in added
    assert added.count("told_once.safetensors: expected") == 2  # ComfyUI logs the message, then the traceback


def test_faults_of_other_code_keep_their_type_and_words(inside):
    errors = inside.pack("nodes.bridge.errors")
    for fault in (lambda: json.loads("{"), lambda: torch.load("no such file")):
        try:
            fault()
        except (OSError, ValueError) as error:
            assert errors.shown_error(error) is None


def test_no_type_of_ours_heads_the_page_with_a_path(inside):
    """Every type that the pack defines, wherever it is raised, comes out under words."""
    errors = inside.pack("nodes.bridge.errors")
    ours = [
        inside.pack("pit.files.weights").WeightFileError, inside.pack("pit.files.pictures").PictureError,
        inside.engine("training.cache").CacheError, inside.pack("pit.training.trainer").TrainingError,
    ]
    for kind in [*ours, ValueError, TypeError, FileNotFoundError, OSError, FloatingPointError, ImportError]:
        # As if this file were one of the pack's.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(errors, "OURS", (Path(__file__).parent,))
            try:
                raise kind("Expected this, got that. Do something else.")
            except Exception as error:
                heading = type(errors.shown_error(error))
        assert heading.__module__ == "builtins" and " " in heading.__qualname__


def test_out_of_memory_is_left_to_comfyui(inside, monkeypatch):
    errors = inside.pack("nodes.bridge.errors")
    monkeypatch.setattr(errors, "OURS", (Path(__file__).parent,))
    try:
        raise torch.OutOfMemoryError("CUDA out of memory")
    except RuntimeError as error:
        assert errors.shown_error(error) is None


def test_a_missing_package_is_headed_so(inside, monkeypatch):
    errors, packages = inside.pack("nodes.bridge.errors"), inside.pack("pit.packages")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        packages.check_packages("Train IP-Prior", packages.TRAINING)
    shown = errors.shown_error(raised.value)
    assert type(shown).__qualname__ == "A package is missing" and "pip install accelerate" in str(shown)


def test_training_nodes_look_for_their_packages_before_any_work(inside, monkeypatch):
    class Missing(Exception):
        pass

    def missing(purpose, names):
        raise Missing(purpose, *names)

    for module, name, expected in [
        ("train_prior", "TrainPrior", ("Train IP-Prior", "accelerate", "peft")),
        ("train_ip_lora", "TrainIPLora", ("Train IP-LoRA", "accelerate", "peft", "diffusers")),
    ]:
        monkeypatch.setattr(inside.nodes(module), "check_packages", missing)
        node = getattr(inside.nodes(module), name)
        inputs = [None for each in node.define_schema().inputs if not each.optional]
        with pytest.raises(Missing) as raised:
            node.execute(*inputs)
        assert raised.value.args == expected
