"""The blueprint "Insert an object": the real server lists it, it fits the nodes, and it runs."""
from __future__ import annotations

import json

import pytest

from dev.make_blueprint import CONTROL, FOLDER, INPUT, NAME, NODES, OUTPUT, SHOWN, blueprint
from tests.comfyui.nodes.graphs import node

FILE = FOLDER / f"{NAME}.json"
TINY = {"UNETLoader": ["tiny", 0], "VAELoader": ["tiny", 1], "CLIPVisionLoader": ["models", 3]}
"""What stands for the stock loaders, whose files nobody has here."""


@pytest.fixture(scope="module")
def saved() -> dict:
    return json.loads(FILE.read_text(encoding="utf-8"))


def inside_of(saved: dict) -> dict:
    (outer,), (subgraph,) = saved["nodes"], saved["definitions"]["subgraphs"]
    assert outer["type"] == subgraph["id"]
    return subgraph


def widgets_of(node: dict) -> dict:
    names = [each["name"] for each in node["inputs"] if "widget" in each]
    values = iter(node["widgets_values"])
    found = {}
    for name in names:
        found[name] = next(values)
        if name in ("seed", "noise_seed"):
            assert next(values) in ("fixed", "randomize")
    assert not list(values)
    return found


def flat(saved: dict, given: dict) -> dict:
    """The graph for the queue, as the page makes it of a subgraph, with inputs of the subgraph as given."""
    subgraph = inside_of(saved)
    links = {each["id"]: each for each in subgraph["links"]}
    names = [each["name"] for each in subgraph["inputs"]]
    prompt = {}
    for inner in subgraph["nodes"]:
        inputs = widgets_of(inner)
        for each in inner["inputs"]:
            link = links.get(each["link"])
            if link is None:
                continue
            if link["origin_id"] != INPUT:
                inputs[each["name"]] = [str(link["origin_id"]), link["origin_slot"]]
            elif names[link["origin_slot"]] in given:
                inputs[each["name"]] = given[names[link["origin_slot"]]]
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


def test_the_file_is_what_its_module_makes(saved):
    assert saved == json.loads(json.dumps(blueprint()))


def test_the_real_server_lists_it(comfyui, saved):
    listed = comfyui.get("/global_subgraphs")
    ours = {key: each for key, each in listed.items() if each["name"] == NAME}
    (key,) = ours
    assert ours[key]["source"] == "custom_node" and "piece" in ours[key]["info"]["node_pack"].lower()
    assert json.loads(comfyui.get(f"/global_subgraphs/{key}")["data"]) == saved


def test_every_node_in_it_is_as_the_server_knows_it(comfyui, saved):
    """Sockets, widgets in their order, values, and outputs."""
    definitions = comfyui.object_info()
    for inner in inside_of(saved)["nodes"]:
        known = definitions[inner["type"]]
        inputs = known["input"].get("required", {}) | known["input"].get("optional", {})
        own = {each["name"]: each["type"] for each in inner["inputs"] if "widget" not in each}
        assert all(inputs[name][0] == kind for name, kind in own.items()), inner["type"]
        sockets = {name for name, (kind, *_) in inputs.items() if isinstance(kind, str) and kind.isupper()
                   and kind not in ("INT", "FLOAT", "BOOLEAN", "STRING", "COMBO")}
        assert set(own) == sockets - {"other_objects"}
        assert list(widgets_of(inner)) == [name for name in inputs if name not in sockets], inner["type"]
        assert list(zip(known["output_name"], known["output"], strict=True)) == [
            (each["name"], each["type"]) for each in inner["outputs"]
        ]


def test_its_links_lead_from_outputs_to_inputs_of_their_type(saved):
    subgraph = inside_of(saved)
    nodes = {each["id"]: each for each in subgraph["nodes"]}
    for link in subgraph["links"]:
        origin = subgraph["inputs"] if link["origin_id"] == INPUT else nodes[link["origin_id"]]["outputs"]
        target = subgraph["outputs"] if link["target_id"] == OUTPUT else nodes[link["target_id"]]["inputs"]
        assert origin[link["origin_slot"]]["type"] == target[link["target_slot"]]["type"] == link["type"]
    shown = saved["nodes"][0]["properties"]["proxyWidgets"]
    assert shown == [[str(number), name] for number, name in SHOWN]
    assert all(name in NODES[number].widgets for number, name in SHOWN)


@pytest.mark.parametrize("masks", [{}, {"object_mask": ["object", 1], "region": ["scene", 1]}])
def test_it_runs(comfyui, saved, masks):
    prompt = flat(saved, {"object": ["object", 0], "scene": ["scene", 0]} | masks)
    result = comfyui.queue(with_tiny_models(prompt))
    assert (result.status, result.error) == ("success", "")
    assert len(result.outputs["save"]["images"]) == 1


def test_the_page_makes_the_same_of_it(page, saved):
    """Its node opens in the real page, shows its widgets, and is queued as what is inside."""
    page.evaluate("graph => window.app.loadGraphData(graph)", saved)
    page.wait_for_function("() => window.app.graph.nodes.length === 1")
    shown = page.evaluate("window.app.graph.nodes[0].widgets.map(({ name }) => name)")
    assert [name for name in shown if name != CONTROL] == [name for _, name in SHOWN if name != CONTROL]
    found = page.evaluate("window.app.graphToPrompt().then(({ output }) => output)")
    expected = flat(saved, {})
    plain = {key.rpartition(":")[2]: each for key, each in found.items()}
    assert plain.keys() == expected.keys()
    for key, each in expected.items():
        inputs = {
            name: [value[0].rpartition(":")[2], value[1]] if isinstance(value, list) else value
            for name, value in plain[key]["inputs"].items()
        }
        assert (plain[key]["class_type"], inputs) == (each["class_type"], each["inputs"])
