"""The command that makes the graphs for people, without a page."""

import pytest

from dev import Failure, assembly, make_workflows
from dev.layouts import Group, Large, Layout, Note, column, placed
from dev.model_sources import models_of
from dev.subgraphs import Folded, fold, widget_values


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
    assert models_of({"type": "PiT_ApplyIPLora", "widgets_values": ["creature models: scenes"]}) == {}
    assert models_of({"type": "KSampler", "widgets_values": [0]}) == {}
    loader = {"type": "PiT_LoadIPPrior", "widgets_values": ["characters/prior.ckpt", 0]}
    (prior,) = models_of(loader)["models"]
    assert prior["directory"] == "ip_prior" and prior["url"].endswith("/models/characters_ckpt/prior.ckpt")
    operator = {"type": "PiT_LoadOperator", "widgets_values": [
        "scene/learned_prior.pth", "kandinsky-2-2-prior/prior/diffusion_pytorch_model.safetensors", "scene",
    ]}
    assert [each["directory"] for each in models_of(operator)["models"]] == ["pops", "kandinsky_prior"]
    operator["widgets_values"][1] = "none"
    assert [each["directory"] for each in models_of(operator)["models"]] == ["pops"]


def test_files_in_a_published_folder_are_offered():
    vision = {"type": "CLIPVisionLoader", "widgets_values": ["parts2whole/model.safetensors"]}
    (file,) = models_of(vision)["models"]
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


def test_links_lead_through_what_is_bypassed():
    graph = {"1": {"inputs": {}}, "2": {"inputs": {"positive": ["1", 0], "steps": 4}}}
    apply = {"inputs": {"positive": ["1", 0]}}
    layout = Layout((), (), {"3": apply}, {("2", "positive"): ("3", 1)})
    assert assembly.whole_graph(graph, layout) == {
        "1": {"inputs": {}}, "2": {"inputs": {"positive": ["3", 1], "steps": 4}}, "3": apply,
    }
    assert graph["2"]["inputs"]["positive"] == ["1", 0]


def test_a_layout_without_a_node_or_with_one_twice_is_refused():
    layout = Layout(((Group("A", "models", (column(300, "1", Large("2", 200), "2"),)),),))
    with pytest.raises(Failure, match=r"without \['3'\], with \['2', '2'\] twice, and with \['1'\]"):
        assembly.check_complete({"2": {}, "3": {}}, layout)


def test_columns_of_groups_end_where_their_row_does():
    """Heights come in reading order; nodes have title bars of 30 above them."""
    one, two = (Group(title, "models", (column(300, title),)) for title in ("1", "2"))
    tall = Group("Tall", "render", (column(200, "3"), column(100, "4")))
    places, frames = placed(Layout((((one, two), tall),)), [50, 60, 400, 10])
    assert places == [(15, 70, 300, 50), (15, 230, 300, 60), (370, 70, 200, 400), (590, 70, 100, 10)]
    assert frames == [(0, 0, 330, 135), (0, 160, 330, 325), (355, 0, 350, 485)]


def saved(number: int, inputs: list[str], outputs: list[str], widgets: dict | None = None) -> dict:
    """A node as the page saves it."""
    return {
        "id": number, "type": f"Node{number}", "pos": [0, 0], "size": [300, 100], "mode": 0,
        "inputs": [
            *({"name": each, "type": each.upper(), "link": None} for each in inputs),
            *(
                {"name": each, "type": "INT", "widget": {"name": each}, "link": None}
                for each in widgets or ()
            ),
        ],
        "outputs": [{"name": each, "type": each.upper(), "links": []} for each in outputs],
        "widgets_values": [
            value for name, one in (widgets or {}).items()
            for value in ([one, "randomize"] if name == "seed" else [one])
        ],
    }


GRAPH = {
    "nodes": [
        saved(1, [], ["model"]), saved(2, ["model"], ["tokens"], {"seed": 7, "steps": 3}),
        saved(3, ["model", "tokens", "mask"], ["image"], {"scale": 2}), saved(4, ["image"], []),
    ],
    "links": [
        [1, 1, 0, 2, 0, "MODEL"], [2, 1, 0, 3, 0, "MODEL"], [3, 2, 0, 3, 1, "TOKENS"],
        [4, 3, 0, 4, 0, "IMAGE"],
    ],
    "last_node_id": 4,
}


def test_nodes_are_folded_into_a_subgraph():
    graph = fold(GRAPH, Folded("Both", "2 3", "seed=2.seed size=3.scale", "mask=3.mask"), 9, "test")
    (subgraph,) = graph["definitions"]["subgraphs"]
    outer = graph["nodes"][-1]
    assert [node["id"] for node in graph["nodes"]] == [1, 4, 9] and outer["type"] == subgraph["id"]
    # One input for what both nodes get, one that is open, and two widgets with their values.
    assert [(each["name"], each["link"]) for each in outer["inputs"]] == [
        ("model", 1), ("mask", None), ("seed", None), ("size", None),
    ]
    assert widget_values(outer) == {"seed": 7, "size": 2}
    assert graph["links"] == [[1, 1, 0, 9, 0, "MODEL"], [4, 9, 0, 4, 0, "IMAGE"]]
    assert graph["nodes"][0]["outputs"][0]["links"] == [1] and graph["nodes"][1]["inputs"][0]["link"] == 4
    assert [[each[key] for key in each] for each in subgraph["links"]] == [
        [1, 2, 0, 3, 1, "TOKENS"], [2, -10, 0, 2, 0, "MODEL"], [3, -10, 0, 3, 0, "MODEL"],
        [4, -10, 1, 3, 2, "MASK"], [5, -10, 2, 2, 1, "INT"], [6, -10, 3, 3, 3, "INT"],
        [7, 3, 0, -20, 0, "IMAGE"],
    ]
    assert [each["linkIds"] for each in subgraph["inputs"]] == [[2, 3], [4], [5], [6]]
    assert GRAPH["nodes"][3]["inputs"][0]["link"] is None  # nothing is changed in place


def test_what_the_page_queues_has_the_ids_of_the_twin():
    prompt = {
        "9:2": {"inputs": {"model": ["1", 0], "steps": 3}}, "9:10:3": {"inputs": {"tokens": ["9:2", 0]}},
    }
    assert assembly.plain(prompt) == {
        "2": {"inputs": {"model": ["1", 0], "steps": 3}}, "3": {"inputs": {"tokens": ["2", 0]}},
    }


def test_a_note_is_no_node_of_the_twin():
    assert assembly.ids_of(Note("How", "Text")) == [] and assembly.ids_of(Folded("A", "1 2")) == ["1", "2"]
