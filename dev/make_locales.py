"""Make `locales/`, the texts of the nodes in the languages of ComfyUI's page, from what translators write.

English is what the nodes themselves say, as a real ComfyUI tells it. For every other language there is a
list in `dev/translations`, from each English sentence to its translation: one that has changed in the nodes
no longer finds its translation, and is named with what it was. A `#` stands for the numbers of sockets, and
`same.json` lists the words that are no different in a language. Run in the folder of the pack, inside
dev.py's environment:

    python -m dev.make_locales
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dev import LOGS, ROOT, Failure
from dev.comfyui import PACK_NAME, ensure_comfyui, make_base
from dev.server import ComfyServer

LOCALES = ROOT / "locales"
TRANSLATIONS = ROOT / "dev" / "translations"
LANGUAGES = ("zh", "zh-TW", "ja", "ko", "de", "fr", "es")
# ComfyUI's page reads these two files of a language, and would read `commands.json` and `settings.json`.
NODES, MAIN = "nodeDefs.json", "main.json"
AUTOGROW, DYNAMIC_COMBO = "COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3"

Texts = dict[str, Any]
"""Texts by key, nested as in the file that holds them."""


def english(definitions: Mapping[str, dict]) -> dict[str, Texts]:
    """What the nodes say, by the file that holds it.

    Args:
        definitions: of the nodes of the pack, by id, as ComfyUI gives them to its page.
    """
    categories = sorted({part for node in definitions.values() for part in node["category"].split("/")})
    return {
        NODES: {page_key(name): node_texts(definitions[name]) for name in sorted(definitions)},
        MAIN: {"nodeCategories": {page_key(category): category for category in categories}},
    }


def node_texts(node: Mapping[str, Any]) -> Texts:
    """Everything that the page shows of one node, but for the values of its widgets."""
    inputs = dict(input_texts(node["input"]))
    outputs = zip(node["output_name"], node["output"], node["output_tooltips"], strict=True)
    # The page has names of its own for outputs that are called as their type is.
    texts = {
        str(number): {"name": name, "tooltip": tooltip} if name != kind else {"tooltip": tooltip}
        for number, (name, kind, tooltip) in enumerate(outputs)
    }
    return {
        "display_name": node["display_name"], "description": node["description"],
        **({"inputs": inputs} if inputs else {}), **({"outputs": texts} if texts else {}),
    }


def input_texts(groups: Mapping[str, Mapping[str, list]], before: str = "") -> Iterator[tuple[str, Texts]]:
    """The inputs of a node with those that grow or appear on it, by the keys under which the page looks.

    Args:
        groups: required and optional inputs, by name.
        before: the inputs that they belong to, each with a dot.
    """
    for group in ("required", "optional"):
        for name, (kind, *rest) in groups.get(group, {}).items():
            facts = rest[0] if rest else {}
            if kind == AUTOGROW:
                yield from slot_texts(f"{before}{name}.", facts["template"])
                continue
            # Saved graphs rely on the ids of inputs, which are also what the page shows.
            yield page_key(before + name), {"name": facts.get("display_name") or name, **tooltip_of(facts)}
            for option in facts["options"] if kind == DYNAMIC_COMBO else ():
                yield from input_texts(option["inputs"], f"{before}{name}.")


def slot_texts(before: str, template: Mapping[str, Any]) -> Iterator[tuple[str, Texts]]:
    """The sockets of an input that grows, which people count from 1."""
    ((_, *rest),) = (spec for group in template["input"].values() for spec in group.values())
    for number in range(template["max"]):
        slot = f"{template['prefix']}{number}"
        yield page_key(before + slot), {"name": f"{template['prefix']} {number + 1}", **tooltip_of(rest[0])}


def tooltip_of(facts: Mapping[str, Any]) -> Texts:
    return {"tooltip": facts["tooltip"]} if facts.get("tooltip") else {}


def page_key(name: str) -> str:
    """A name as the page writes it in the path of a text, where dots lead from one level to the next."""
    return name.replace(".", "_")


def for_page(key: str, text: str) -> str:
    """A text as the page wants it: it looks for placeholders in all but tooltips."""
    if key == "tooltip":
        return text
    return re.sub(r"[@{}|]", lambda sign: f"{{'{sign[0]}'}}", text)


def each_text(texts: Texts, change: Callable[[str, str], str]) -> Texts:
    """The same tree with every text replaced by `change(key, text)`."""
    return {
        key: each_text(value, change) if isinstance(value, dict) else change(key, value)
        for key, value in texts.items()
    }


def sentences(files: Mapping[str, Texts]) -> list[str]:
    """What there is to translate, each once, in the order of the nodes; numbers of sockets are a `#`."""
    found: dict[str, None] = {}
    for texts in files.values():
        each_text(texts, lambda _, text: found.setdefault(numbered(text)[0], ""))
    return list(found)


def numbered(text: str) -> tuple[str, str]:
    """The name of a socket with a `#` for its number, and the number; other texts and nothing."""
    match = re.fullmatch(r"(\w+ )(\d+)", text)
    return (f"{match[1]}#", match[2]) if match else (text, "")


def translated(files: Mapping[str, Texts], catalog: Mapping[str, str]) -> dict[str, Texts]:
    """The files in another language; what the catalog lacks is left out, so that the page shows English."""
    def translate(key: str, text: str) -> str:
        sentence, number = numbered(text)
        found = catalog.get(sentence, "")
        return for_page(key, found.replace("#", number) if number else found)

    return {name: without_empty(each_text(texts, translate)) for name, texts in files.items()}


def without_empty(texts: Texts) -> Texts:
    kept = {key: without_empty(value) if isinstance(value, dict) else value for key, value in texts.items()}
    return {key: value for key, value in kept.items() if value}


def complaints(files: Mapping[str, Texts], catalog: Mapping[str, str]) -> list[str]:
    """What a translator has to do: a line for each sentence that is missing, has changed, or is gone."""
    wanted = sentences(files)
    gone = [sentence for sentence in catalog if sentence not in set(wanted)]
    lines = []
    for sentence in wanted:
        if not catalog.get(sentence):
            was = difflib.get_close_matches(sentence, gone, n=1)
            gone = [each for each in gone if each not in was]
            lines.append(f"changed: {was[0]!r} is now {sentence!r}" if was else f"missing: {sentence!r}")
    return lines + [f"superfluous: {sentence!r}" for sentence in gone]


def read_catalog(language: str) -> dict[str, str]:
    path = TRANSLATIONS / f"{language}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def all_locales(definitions: Mapping[str, dict]) -> dict[str, dict[str, Texts]]:
    """The files of every language, by language and name."""
    files = english(definitions)
    own = {name: each_text(texts, for_page) for name, texts in files.items()}
    return {"en": own} | {language: translated(files, read_catalog(language)) for language in LANGUAGES}


def as_text(texts: Texts) -> str:
    return json.dumps(texts, indent=2, ensure_ascii=False) + "\n"


def pack_definitions(client: ComfyServer) -> dict[str, dict]:
    """The definitions of the nodes of the pack, by id."""
    module = f"custom_nodes.{PACK_NAME}"
    return {key: node for key, node in client.object_info().items() if node["python_module"] == module}


def write_locales(definitions: Mapping[str, dict], folder: Path) -> list[Path]:
    """Write the files of every language; returns them."""
    written = []
    for language, files in all_locales(definitions).items():
        for name, texts in files.items():
            path = folder / language / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(as_text(texts), encoding="utf-8")
            written.append(path)
    return written


def check_translations(definitions: Mapping[str, dict]) -> None:
    """Raise Failure with what translators have to do, if there is anything."""
    files = english(definitions)
    lines = [
        f"{language}: {line}" for language in LANGUAGES for line in complaints(files, read_catalog(language))
    ]
    if lines:
        raise Failure(f"Expected a translation of every sentence in {TRANSLATIONS}.\n" + "\n".join(lines))


def main(arguments: list[str] | None = None) -> None:
    summary = __doc__.partition("\n")[0]
    argparse.ArgumentParser(prog="python -m dev.make_locales", description=summary).parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        with ComfyServer(ensure_comfyui(), make_base(Path(folder)), LOGS / "make_locales.log") as server:
            definitions = pack_definitions(server)
    for path in write_locales(definitions, LOCALES):
        print(path)
    try:
        check_translations(definitions)
    except Failure as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    main()
