"""How people find a node, and what the page tells them of it before they connect it."""

import re
from collections.abc import Iterator

import pytest

from dev import ROOT
from tests.comfyui.pages import build

SCRIPT = (ROOT / "web" / "appearance.js").read_text(encoding="utf-8")
# What people type, and a node that has to be among those that are found.
WORDS = {
    "vary": "SamplePrior", "variations": "SamplePrior", "random ideas": "SamplePrior",
    "vary picture": "EncodeImage", "reference image": "EncodeImage",
    "style": "LayerWeights", "style transfer": "LayerWeights", "composition": "LayerWeights",
    "collage": "EncodeParts", "combine pictures": "EncodeParts", "sketch": "EncodeParts",
    "mix": "BlendConcepts", "merge": "BlendConcepts", "hybrid": "BlendConcepts", "morph": "BlendConcepts",
    "horns": "CreatureParts", "wings": "CreatureParts", "tail": "CreatureParts",
    "remove background": "CutOutPart", "cutout": "CutOutPart", "white background": "CutOutPart",
    "insert object": "InsertObject", "add object": "InsertObject", "paste": "PutBack",
    "clothes": "Compose", "outfit": "Compose", "garments": "Compose", "try on": "ReferencePart",
    "face": "ReferencePart", "person": "EncodeReferences", "pose": "PoseMap", "openpose": "PoseMap",
    "human parsing": "ClothesParser", "texture": "Combine", "material": "Combine", "background": "Combine",
    "adjective": "Instruct", "shiny": "Instruct", "ip adapter": "ApplyTokens", "regional": "ApplyTokens",
    "attention couple": "ApplyTokens", "image prompt": "ApplyTokens", "slider": "DirectionEdit",
    "older": "DirectionEdit", "concept slider": "FindDirection", "average": "TokenArithmetic",
    "subtract": "TokenArithmetic", "grid": "LabelledStrip", "compare": "LabelledStrip",
    "batch size": "EmptyLatent", "not like this": "PartWeight", "negative part": "PartWeight",
    "lora loader": "ApplyIPLora", "character sheet": "IPLoraPrompt", "segmentation": "FindParts",
    "attention map": "PartAttention", "kandinsky": "LoadKandinskyDecoder", "clip score": "MeasurePictures",
    "train lora": "TrainIPLora", "finetune": "TrainPrior", "prompt builder": "PartWords",
}
BEGINNERS = {
    "LoadCreatureModels", "CreatureParts", "CutOutPart", "EncodeParts", "SamplePrior", "ApplyTokens",
    "EmptyLatent",
}


# Tooltips -----------------------------------------------------------------------------------------------


def inputs_of(groups: dict) -> Iterator[tuple[str, dict]]:
    """Every input with its options, those too that come with a choice or repeat."""
    for group in ("required", "optional"):
        for name, (kind, *rest) in groups.get(group, {}).items():
            options = rest[0] if rest else {}
            yield name, options
            for choice in options.get("options", ()) if kind == "COMFY_DYNAMICCOMBO_V3" else ():
                yield from inputs_of(choice["inputs"])
            if kind == "COMFY_AUTOGROW_V3":
                yield from inputs_of(options["template"]["input"])


def test_every_input_has_a_tooltip(pack_nodes):
    found = [(key, *each) for key, node in pack_nodes.items() for each in inputs_of(node["input"])]
    assert len(found) > 300
    assert [(key, name) for key, name, options in found if not options.get("tooltip")] == []


def test_every_output_has_a_tooltip_of_one_sentence(pack_nodes):
    found = [
        (key, name, tooltip) for key, node in pack_nodes.items()
        for name, tooltip in zip(
            node["output_name"], node["output_tooltips"] or [None] * len(node["output"]), strict=True)
    ]
    assert len(found) > 100
    wrong = [each for each in found if not re.fullmatch(r"[A-Z][^\n]{5,140}\.", each[2] or "")]
    assert wrong == []


def test_outputs_tell_of_nodes_that_are_there(pack_nodes, comfyui):
    """Where a tooltip says in capitals where an output goes, that is the title of a node."""
    titles = {node["display_name"] or key for key, node in comfyui.object_info().items()}
    titles |= {re.sub(r" \(.*\)$", "", title) for title in titles}  # as in CLIP Text Encode (Prompt)
    known = re.compile("|".join(re.escape(title) for title in sorted(titles, key=len, reverse=True)))
    capitals = re.compile(r"(?<=[a-z] )(?!IP|CLIP|CPU|LoRA|EMR|UNet|VAE|DINO|Parts2Whole)[A-Z][a-z]\w*")
    for key, node in pack_nodes.items():
        for tooltip in node["output_tooltips"] or ():
            rest = known.sub("", tooltip[0].lower() + tooltip[1:])
            assert capitals.findall(rest) == [], (key, tooltip)


# Search -------------------------------------------------------------------------------------------------


def found_by(word: str, nodes: dict[str, dict]) -> set[str]:
    """The nodes whose title or words for the search have this one, as a search box finds them."""
    def matches(node: dict) -> bool:
        return any(word in text.lower() for text in (node["display_name"], *node["search_aliases"]))

    return {key.removeprefix("PiT_") for key, node in nodes.items() if matches(node)}


@pytest.mark.parametrize("word", WORDS)
def test_a_search_by_what_people_type_finds_the_node(pack_nodes, word):
    found = found_by(word, pack_nodes)
    assert WORDS[word] in found
    assert len(found) <= 12  # or nobody sees it among them


def test_every_node_has_words_of_its_own_for_the_search(pack_nodes):
    for key, node in pack_nodes.items():
        words = node["search_aliases"]
        assert words and len(set(words)) == len(words), key
        assert all(word == word.strip() and word for word in words), key


def test_the_search_of_the_page_finds_them_as_well(page):
    """In the dialog that a double click on the canvas opens."""
    page.evaluate("window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = page.get_by_role("dialog").get_by_role("textbox").or_(page.get_by_role("combobox")).last
    box.fill("remove background")
    page.get_by_text("Cut Out Part").first.wait_for()
    page.keyboard.press("Escape")


def test_beginners_see_a_handful_of_nodes(pack_nodes):
    found = {key.removeprefix("PiT_"): node.get("essentials_category") for key, node in pack_nodes.items()}
    essential = {key: name for key, name in found.items() if name}
    assert essential == dict.fromkeys(BEGINNERS, "Piece it Together")


# Colors and numbers -------------------------------------------------------------------------------------


def colors_in_the_script() -> dict[str, str]:
    table = SCRIPT.partition("const SOCKETS = {")[2].partition("}")[0]
    return {f"PIT_{name}": color for name, color in re.findall(r'(\w+): "(#\w{6})"', table)}


def test_the_script_imports_the_page_alone():
    assert re.findall(r'from "(.+?)"', SCRIPT) == ["../../scripts/app.js"]
    assert "import(" not in SCRIPT and "fetch" not in SCRIPT


def test_each_of_our_socket_types_has_a_color_of_its_own(pack_nodes):
    types = {kind for node in pack_nodes.values() for kind in node["output"] if kind.startswith("PIT_")}
    colors = colors_in_the_script()
    assert set(colors) == types
    assert len(set(colors.values())) == len(colors)


NODES = {
    "load": "PiT_LoadIPAdapter", "prior": "PiT_LoadIPPrior", "encode": "PiT_EncodeParts",
    "cut": "PiT_CutOutPart", "sample": "PiT_SamplePrior", "blend": "PiT_BlendConcepts",
    "apply": "PiT_ApplyTokens", "latent": "PiT_EmptyLatent", "train": "PiT_TrainPrior",
    "other": "CLIPTextEncode", "batch": "PiT_BatchConcepts", "picture": "EmptyImage",
}
ALIKE = [("load", "prior"), ("encode", "cut"), ("sample", "blend"), ("apply", "latent")]


def test_nodes_of_one_stage_are_tinted_alike_and_keep_the_colors_that_people_give_them(page):
    ids = build(page, NODES)
    colors = {name: page.evaluate("id => window.app.graph.getNodeById(id).bgcolor ?? null", node)
              for name, node in ids.items()}
    assert colors["other"] is None
    assert all(colors[one] == colors[other] for one, other in ALIKE)
    assert len({colors[one] for one, _ in ALIKE} | {colors["train"]}) == 5
    kept = page.evaluate("""async id => {
        const node = window.app.graph.getNodeById(id)
        Object.assign(node, { color: "#123456", bgcolor: "#654321" })
        await window.app.loadGraphData(window.app.graph.serialize())
        return window.app.graph.getNodeById(id).bgcolor
    }""", ids["apply"])
    assert kept == "#654321"


CHOOSE_PALETTE = "name => window.app.extensionManager.setting.set('Comfy.ColorPalette', name)"
COLORS_NOW = """type => [
    window.LGraphCanvas.link_type_colors[type], window.app.canvas.default_connection_color_byType[type],
    getComputedStyle(document.body).getPropertyValue(`--color-datatype-${type}`).trim(),
]"""


def test_sockets_keep_their_colors_under_every_palette(page):
    try:
        for palette in ("light", "dark"):
            page.evaluate(CHOOSE_PALETTE, palette)
            for kind, color in colors_in_the_script().items():
                assert page.evaluate(COLORS_NOW, kind) == [color] * 3, (palette, kind)
    finally:
        page.evaluate(CHOOSE_PALETTE, "dark")


SHOWN = """id => window.app.graph.getNodeById(id).inputs
    .filter((input) => input.name.includes(".")).map((input) => [input.name, input.label])"""


def test_repeated_sockets_count_from_1_and_keep_their_names(page):
    """Also those that grow, and those of a saved graph."""
    ids = build(page, NODES, [("picture", "IMAGE", "encode", "parts.part0")])
    page.wait_for_function(f"id => ({SHOWN})(id).length === 2", arg=ids["encode"])
    expected = [["parts.part0", "part 1"], ["parts.part1", "part 2"]]
    assert page.evaluate(SHOWN, ids["encode"]) == expected
    assert page.evaluate(SHOWN, ids["batch"])[0] == ["concepts.tokens0", "tokens 1"]
    page.evaluate("""async () => {
        const graph = window.app.graph.serialize()
        for (const node of graph.nodes) for (const input of node.inputs ?? []) delete input.label
        await window.app.loadGraphData(graph)
    }""")
    assert page.evaluate(SHOWN, ids["encode"])[:2] == expected
