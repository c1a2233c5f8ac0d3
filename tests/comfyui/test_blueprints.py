"""The blueprints: the server lists them, they fit the nodes, and the page makes of them what is inside."""
from __future__ import annotations

import json

import pytest

from dev.assembly import plain
from dev.make_blueprint import CATEGORY, FOLDER, blueprint
from dev.subgraphs import INPUT, OUTPUT, seed_control, widget_values
from dev.templates import BLUEPRINTS
from tests.comfyui.nodes.graphs import node
from tests.comfyui.workflows import template, twin

NAMES = sorted(BLUEPRINTS)
INSERT = "Insert an object"
TINY = {"UNETLoader": ["tiny", 0], "VAELoader": ["tiny", 1], "CLIPVisionLoader": ["models", 3]}
"""What stands for the stock loaders, whose files nobody has here."""
MATCHED = "COMFY_MATCHTYPE_V3"  # the page writes what comes in
LOOSE = {"COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3", MATCHED}


def saved(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def inside_of(graph: dict) -> dict:
    (outer,), (subgraph,) = graph["nodes"], graph["definitions"]["subgraphs"]
    assert outer["type"] == subgraph["id"]
    return subgraph


def flat(graph: dict, given: dict) -> dict:
    """The graph for the queue, as the page makes it of a subgraph, with inputs of the subgraph as given."""
    subgraph = inside_of(graph)
    shown = widget_values(graph["nodes"][0])
    links = {each["id"]: each for each in subgraph["links"]}
    names = [each["name"] for each in subgraph["inputs"]]
    prompt = {}
    for inner in subgraph["nodes"]:
        inputs = widget_values(inner)
        for each in inner["inputs"]:
            link = links.get(each["link"])
            if link is None:
                continue
            if link["origin_id"] != INPUT:
                inputs[each["name"]] = [str(link["origin_id"]), link["origin_slot"]]
                continue
            name = names[link["origin_slot"]]
            if name in given or name in shown:
                inputs[each["name"]] = given.get(name, shown.get(name))
        prompt[str(inner["id"])] = {"class_type": inner["type"], "inputs": inputs}
    return prompt


def with_tiny_models(prompt: dict) -> dict:
    """The same with tiny models in place of the loaders, and its result saved."""
    stand_ins = {key: TINY[each["class_type"]] for key, each in prompt.items() if each["class_type"] in TINY}
    for each in prompt.values():
        for name, value in each["inputs"].items():
            if isinstance(value, list) and value[0] in stand_ins:
                each["inputs"][name] = stand_ins[value[0]]
    for each in prompt.values():
        if each["class_type"] == "PiT_LoadEmbeddingOptimizer":
            each["inputs"]["file"] = "tiny.pt"
        if each["class_type"] == "PiT_InsertionSchedule":
            each["inputs"]["steps"] = 2
    kept = {key: each for key, each in prompt.items() if key not in stand_ins}
    (result,) = (key for key, each in kept.items() if each["class_type"] == "PiT_PutBack")
    return kept | {
        "tiny": node("Tiny_Insertion"), "models": node("Tiny_Models", vision_width=64),
        "object": node("Tiny_Image", count=1, height=24, width=24, channels=3),
        "scene": node("Tiny_Image", count=1, height=40, width=32, channels=3),
        "save": node("SaveImage", images=[result, 0], filename_prefix="blueprint"),
    }


def test_there_are_no_others():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_the_subgraph_of_its_template(name):
    made = BLUEPRINTS[name]
    assert saved(name) == blueprint(name, made)
    (there,) = (each for each in template(made.template)["definitions"]["subgraphs"]
                if each["name"] == made.title)
    here = inside_of(saved(name))
    for what in ("nodes", "links", "inputs", "outputs"):
        assert here[what] == there[what]
    ids = {str(each["id"]) for each in here["nodes"]}
    assert ids <= set(twin(made.template))


@pytest.mark.parametrize("name", NAMES)
def test_comfyui_reads_where_it_belongs_and_how_it_is_found(name):
    graph, made = saved(name), BLUEPRINTS[name]
    subgraph, extra = inside_of(graph), graph["extra"]
    assert subgraph["category"] == f"{CATEGORY}/{made.category}"
    assert subgraph["name"] == graph["nodes"][0]["title"] == name
    assert subgraph["description"] == extra["BlueprintDescription"] == made.description
    assert extra["BlueprintSearchAliases"] == list(made.words) and len(made.words) >= 3
    assert subgraph.get("essentials_category") == (CATEGORY if made.essential else None)


@pytest.mark.parametrize("name", NAMES)
def test_the_real_server_lists_it(comfyui, name):
    listed = comfyui.get("/global_subgraphs")
    ours = {key: each for key, each in listed.items() if each["name"] == name}
    (key,) = ours
    assert ours[key]["source"] == "custom_node" and "piece" in ours[key]["info"]["node_pack"].lower()
    assert json.loads(comfyui.get(f"/global_subgraphs/{key}")["data"]) == saved(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_node_in_it_is_as_the_server_knows_it(comfyui, name):
    """Inputs, and the types of those that do not grow, and outputs."""
    definitions = comfyui.object_info()
    for inner in inside_of(saved(name))["nodes"]:
        known = definitions[inner["type"]]
        inputs = known["input"].get("required", {}) | known["input"].get("optional", {})
        for each in inner["inputs"]:
            kind = inputs[each["name"].partition(".")[0]][0]
            assert isinstance(kind, list) or kind in LOOSE or kind == each["type"], (inner["type"], each)
        found = [(each["name"], each["type"]) for each in inner["outputs"]]
        expected = list(zip(known["output_name"], known["output"], strict=True))
        assert [name for name, _ in found] == [name for name, _ in expected]
        kinds = zip((kind for _, kind in expected), (kind for _, kind in found), strict=True)
        assert all(known in (MATCHED, seen) for known, seen in kinds)


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_from_outputs_to_inputs_of_their_type(name):
    subgraph = inside_of(saved(name))
    nodes = {each["id"]: each for each in subgraph["nodes"]}
    for link in subgraph["links"]:
        origin = subgraph["inputs"] if link["origin_id"] == INPUT else nodes[link["origin_id"]]["outputs"]
        target = subgraph["outputs"] if link["target_id"] == OUTPUT else nodes[link["target_id"]]["inputs"]
        assert origin[link["origin_slot"]]["type"] == link["type"]
        assert link["type"] in target[link["target_slot"]]["type"].split(",")
    outer = saved(name)["nodes"][0]
    for kind in ("inputs", "outputs"):
        assert [(each["name"], each["type"]) for each in outer[kind]] == [
            (each["name"], each["type"]) for each in subgraph[kind]
        ]
    assert len(outer["widgets_values"]) == len([each for each in outer["inputs"] if "widget" in each])


@pytest.mark.parametrize("masks", [{}, {"object_mask": ["object", 1], "region": ["scene", 1]}])
def test_an_object_is_inserted_by_one(comfyui, masks):
    prompt = flat(saved(INSERT), {"object": ["object", 0], "scene": ["scene", 0]} | masks)
    result = comfyui.queue(with_tiny_models(prompt))
    assert (result.status, result.error) == ("success", "")
    assert len(result.outputs["save"]["images"]) == 1


@pytest.mark.parametrize("name", NAMES)
def test_the_page_makes_the_same_of_it(page, name):
    """Its node opens in the real page, shows its widgets, and is queued as what is inside."""
    graph = saved(name)
    page.evaluate("graph => window.app.loadGraphData(graph)", graph)
    page.wait_for_function("() => window.app.graph.nodes.length === 1")
    shown = page.evaluate("window.app.graph.nodes[0].widgets.map(({ name }) => name)")
    assert shown == [each["name"] for each in graph["nodes"][0]["inputs"] if "widget" in each]
    found = plain(page.evaluate("window.app.graphToPrompt().then(({ output }) => output)"))
    assert {key: (each["class_type"], each["inputs"]) for key, each in found.items()} == {
        key: (each["class_type"], each["inputs"]) for key, each in flat(graph, {}).items()
    }


def test_a_seed_keeps_what_happens_to_it_after_a_run():
    inner = inside_of(saved("Parts to concept"))["nodes"]
    controls = {each["type"]: seed_control(each) for each in inner}
    assert controls == {"PiT_EncodeParts": "fixed", "PiT_SamplePrior": "randomize"}
