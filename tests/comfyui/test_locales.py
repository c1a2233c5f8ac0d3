"""The languages of the pack in a real ComfyUI: what it gives to its page, and what the page shows."""

import json
import re

from dev import ROOT
from dev.browser import PAGE_IS_READY
from dev.make_locales import (
    DYNAMIC_COMBO,
    LANGUAGES,
    LOCALES,
    check_translations,
    input_texts,
    read_catalog,
    write_locales,
)
from tests.comfyui.pages import build, select

# Options that their tooltips also use as words of English.
PLAIN_WORDS = {"all", "front", "plain", "random", "sky", "the part"}
SHOWN = """id => {
    const node = window.app.graph.getNodeById(id)
    const labels = (slots) => slots.map((slot) => slot.label ?? slot.localized_name)
    return [node.title, labels(node.inputs), labels(node.outputs), node.constructor.nodeData.description]
}"""
OPEN_ONE_SAVED_IN_ENGLISH = """async ([id, socket]) => {
    const { app } = window
    const saved = app.graph.serialize()
    const { inputs } = saved.nodes.find((node) => String(node.id) === id)
    inputs.find(({ name }) => name === socket).label = "part 1"
    await app.loadGraphData(saved)
}"""


def options_of(groups: dict) -> list[tuple[str, list[str]]]:
    """Tooltips of inputs that offer texts to choose from, with these texts."""
    found = []
    for kind, *rest in (*groups.get("required", {}).values(), *groups.get("optional", {}).values()):
        facts = rest[0] if rest else {}
        offered = facts.get("options") or []
        if kind == DYNAMIC_COMBO:
            found += [each for option in offered for each in options_of(option["inputs"])]
            offered = [option["key"] for option in offered]
        found.append((facts.get("tooltip", ""), [option for option in offered if isinstance(option, str)]))
    return found


def named_options(definitions: dict) -> set[tuple[str, str]]:
    """Tooltips with each of the options that they name, which the page shows as they are."""
    return {
        (tooltip, option) for node in definitions.values() for tooltip, options in options_of(node["input"])
        for option in options if option not in PLAIN_WORDS
        if re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", tooltip)
    }


def test_the_files_are_what_the_command_writes(pack_nodes, tmp_path):
    write_locales(pack_nodes, tmp_path)
    written, shipped = (
        {path.relative_to(folder): path.read_text(encoding="utf-8") for path in folder.rglob("*.json")}
        for folder in (tmp_path, LOCALES)
    )
    differing = {str(name) for name in {*written, *shipped} if written.get(name) != shipped.get(name)}
    assert differing == set(), "run python -m dev.make_locales"


def test_no_translation_is_missing_outdated_or_superfluous(pack_nodes):
    check_translations(pack_nodes)


def test_every_input_of_every_node_has_a_text(pack_nodes):
    texts = {name: dict(input_texts(node["input"])) for name, node in pack_nodes.items()}
    assert [
        (name, key) for name, inputs in texts.items() for key, each in inputs.items()
        if not (each["name"] and each["tooltip"])
    ] == []
    assert {"parts_part0", "parts_part15"} <= set(texts["PiT_EncodeParts"])  # sockets that grow
    assert {"mode_plus", "mode_keep_length"} <= set(texts["PiT_TokenArithmetic"])  # those of each choice


def test_options_stay_as_the_page_shows_them(pack_nodes):
    named = named_options(pack_nodes)
    assert len(named) > 30
    lost = [
        (language, *each) for language in LANGUAGES for each in sorted(named)
        if each[1] not in read_catalog(language)[each[0]]
    ]
    assert lost == []


def test_comfyui_gives_every_language_to_its_page(comfyui):
    given = comfyui.get("/i18n")
    for language in ("en", *LANGUAGES):
        nodes = json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))
        categories = json.loads((LOCALES / language / "main.json").read_text(encoding="utf-8"))
        assert {key: given[language]["nodeDefs"][key] for key in nodes} == nodes
        assert given[language]["nodeCategories"].items() >= categories["nodeCategories"].items()


def test_the_page_of_a_japanese_user_is_in_japanese(comfyui, fresh_page):
    page = fresh_page
    comfyui.post("/settings", {"Comfy.Locale": "ja"})
    try:
        page.reload()
        page.wait_for_function(PAGE_IS_READY)
        ids = build(page, {"encode": "PiT_EncodeParts", "apply": "PiT_ApplyPartCraft"})
        title, inputs, outputs, _ = page.evaluate(SHOWN, ids["encode"])
        description = page.evaluate(SHOWN, ids["apply"])[-1]
        page.evaluate(OPEN_ONE_SAVED_IN_ENGLISH, [ids["encode"], "parts.part0"])
        opened = page.evaluate(SHOWN, ids["encode"])[1]
        help_page = (ROOT / "web" / "docs" / "PiT_EncodeParts" / "ja.md").read_text(encoding="utf-8")
        select(page, ids["encode"])
        page.get_by_test_id("info-button").click()
        page.get_by_text(help_page.split("\n\n")[2]).wait_for()
    finally:
        comfyui.post("/settings", {"Comfy.Locale": "en"})
    catalog = read_catalog("ja")
    assert title == catalog["Encode IP+ Parts"]
    assert catalog["part #"].replace("#", "1") in inputs and opened == inputs
    assert {catalog["clip_vision"], catalog["sketch"]} <= set(inputs)
    assert outputs[0] == catalog["parts"]
    assert "<head:17|18>" in description and description in catalog.values()
