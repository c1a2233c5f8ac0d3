"""The command that makes the graphs for people, without a page."""

import pytest

from dev import make_workflows
from dev.layouts import Layout


@pytest.fixture(autouse=True)
def nothing_is_made(monkeypatch):
    made = []
    monkeypatch.setattr(make_workflows, "make_all", lambda _, __, names: made.append(names))
    return made


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["no_such_graph"], 2), (["--no-such"], 2)])
def test_asking_for_help_or_for_nonsense_makes_nothing(nothing_is_made, arguments, code, capsys):
    with pytest.raises(SystemExit) as raised:
        make_workflows.main(arguments)
    assert raised.value.code == code and nothing_is_made == []
    said = capsys.readouterr()
    assert "python -m dev.make_workflows" in said.out + said.err


def test_files_of_the_pack_are_not_offered_by_the_page():
    models = make_workflows.models_of
    assert models({"type": "PiT_ApplyIPLora", "widgets_values": ["creature models: scenes"]}) == {}
    assert models({"type": "KSampler", "widgets_values": [0]}) == {}
    (prior,) = models({"type": "PiT_LoadIPPrior", "widgets_values": ["characters/prior.ckpt", 0]})["models"]
    assert prior["directory"] == "ip_prior" and prior["url"].endswith("/models/characters_ckpt/prior.ckpt")
    operator = {"type": "PiT_LoadOperator", "widgets_values": [
        "scene/learned_prior.pth", "kandinsky-2-2-prior/prior/diffusion_pytorch_model.safetensors", "scene",
    ]}
    assert [each["directory"] for each in models(operator)["models"]] == ["pops", "kandinsky_prior"]
    operator["widgets_values"][1] = "none"
    assert [each["directory"] for each in models(operator)["models"]] == ["pops"]


def test_files_in_a_published_folder_are_offered():
    vision = {"type": "CLIPVisionLoader", "widgets_values": ["parts2whole/model.safetensors"]}
    (file,) = make_workflows.models_of(vision)["models"]
    assert file["directory"] == "clip_vision"
    assert file["url"].endswith("/huanngzh/Parts2Whole/resolve/main/image_encoder/model.safetensors")


def test_what_needs_a_file_is_not_run_for_a_picture():
    def node(kind, source=None):
        return {"class_type": kind, "inputs": {"count": 1} if source is None else {"images": [source, 0]}}

    graph = {
        "1": node("CheckpointLoaderSimple"), "2": node("VAEDecode", "1"), "3": node("PreviewImage", "2"),
        "4": node("PiT_CreatureKinds"), "5": node("PreviewImage", "4"),
    }
    assert make_workflows.loads(graph, "3") and not make_workflows.loads(graph, "5")


def test_a_graph_opens_beside_the_menus():
    view = make_workflows.beside_menus(scale=1.0, offset=[40, 40])
    assert view["scale"] == 0.93
    assert [(side - 40) * view["scale"] for side in view["offset"]] == pytest.approx([60, 50])


def test_links_lead_through_what_is_bypassed():
    graph = {"1": {"inputs": {}}, "2": {"inputs": {"positive": ["1", 0], "steps": 4}}}
    apply = {"inputs": {"positive": ["1", 0]}}
    layout = Layout((), (), {"3": apply}, {("2", "positive"): ("3", 1)})
    assert make_workflows.whole_graph(graph, layout) == {
        "1": {"inputs": {}}, "2": {"inputs": {"positive": ["3", 1], "steps": 4}}, "3": apply,
    }
    assert graph["2"]["inputs"]["positive"] == ["1", 0]
