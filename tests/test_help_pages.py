"""Help pages: complete in English; in other languages, for the nodes that a beginner meets, as in English.

Each begins with a picture that the page resolves from the folder of the help pages, in all languages.
"""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from dev import ROOT
from dev.archive import published_files
from dev.help_pictures.recipes import RECIPES
from dev.help_pictures.sheet import HEIGHT, LARGEST_FILE, WIDTH
from dev.make_locales import LANGUAGES, LOCALES, NODES, read_catalog

DOCS = ROOT / "web" / "docs"
PAGES = (
    "LoadCreatureModels", "CreatureParts", "CutOutPart", "EncodeParts", "SamplePrior", "ApplyTokens",
    "EmptyLatent", "PickConcepts", "LoadIPAdapter", "LoadIPPrior",
)
INPUTS = {"`start`", "`negative`"}  # set as code in English, by the names that the page shows elsewhere
BLOCK = re.compile(r"(#+ |- |\d+\. |    |!\[|\|)?")
CODE = re.compile(r'`[^`\n]+`|^    .+$|"[^"\n]+"|\]\([^)]+\)', re.MULTILINE)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
SECTION = re.compile(r"^## (Input|Output)s?\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]\n]+)\]\(([^)\s]+)\)")
SHORTEST, LONGEST = 20, 160  # of what is said of a picture; Chinese says as much in a third
ITEM = re.compile(r"^(?: *- |\| )(\*\*.+?)(?::| \||$)", re.MULTILINE)
SIGNATURES = json.loads((ROOT / "tests/comfyui/nodes/signatures.json").read_text(encoding="utf-8"))
TEXTS = json.loads((LOCALES / "en" / NODES).read_text(encoding="utf-8"))

ALL_PAGES = sorted(DOCS.rglob("*.md"))

all_pages = pytest.mark.parametrize("page", PAGES)
all_languages = pytest.mark.parametrize("language", LANGUAGES)


def read(page: str, language: str = "") -> str:
    path = DOCS / f"PiT_{page}" / f"{language}.md" if language else DOCS / f"PiT_{page}.md"
    return path.read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """What each line is that is not empty: a heading and of which level, an item, code, a picture, a text."""
    return [BLOCK.match(line)[0] for line in text.splitlines() if line]


def code_of(text: str) -> set[str]:
    return set(CODE.findall(text)) - INPUTS


def unnamed(english: str, translation: str, catalog: dict[str, str]) -> set[str]:
    """Nodes and inputs in bold whose translated names are not in bold in the translation."""
    there = set(BOLD.findall(translation))
    return {name for name in BOLD.findall(english) if name in catalog and catalog[name] not in there}


def unclosed(line: str) -> bool:
    """Whether Markdown would leave asterisks: bold words that end in a sign want no letter next to them."""
    parts = line.split("**")
    return len(parts) % 2 == 0 or any(
        re.search(r"[^\w\s]$", bold) and re.match(r"\w", after)
        or re.match(r"[^\w\s]", bold) and re.search(r"\w$", before)
        for before, bold, after in zip(parts[::2], parts[1::2], parts[2::2], strict=False)
    )


def listed(text: str, section: str) -> set[str]:
    """Names of inputs or outputs that the items, or rows of a table, of a section of a page begin with."""
    bodies = [body for heading, body in SECTION.findall(text) if heading == section]
    return {name for body in bodies for item in ITEM.findall(body) for name in BOLD.findall(item)}


def input_names(node: str) -> tuple[set[str], set[str]]:
    """The inputs of a node as ComfyUI's page shows them, and those that repeat by what all are called."""
    shown = {key: text["name"] for key, text in TEXTS[node].get("inputs", {}).items()}
    repeated = {key for key, name in shown.items() if re.search(r" \d+$", name)}
    return (
        {name for key, name in shown.items() if key not in repeated},
        {re.sub(r"_[a-z]+\d+$", "", key) for key in repeated},
    )


@pytest.mark.parametrize("node", sorted(SIGNATURES))
def test_pages_list_the_inputs_and_outputs_of_their_nodes(node):
    text = read(node.removeprefix("PiT_"))
    single, repeated = input_names(node)
    assert listed(text, "Input") - single - repeated == set()
    assert single | repeated <= set(BOLD.findall(text)), "not on the page"
    assert listed(text, "Output") == set(SIGNATURES[node]["outputs"])


def picture_of(text: str) -> tuple[str, str]:
    """What is said of the picture behind the title of a page, and where it is; nothing if there is none."""
    lines = text.splitlines()
    match = PICTURE.fullmatch(lines[2]) if lines[1] == lines[3] == "" else None
    return (match[1], match[2]) if match else ("", "")


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_every_page_begins_with_the_picture_of_its_node(path):
    node = path.stem if path.parent == DOCS else path.parent.name
    said, place = picture_of(path.read_text(encoding="utf-8"))
    assert place == f"pictures/{node}.jpg"
    assert (SHORTEST if path.parent == DOCS else SHORTEST // 3) <= len(said) <= LONGEST


def test_every_page_has_a_recipe_for_its_picture():
    assert {path.stem for path in DOCS.glob("*.md")} <= set(RECIPES)


def test_pictures_are_there_small_and_of_one_width():
    """`python -m dev.help_pictures` makes them."""
    pages = {path.stem for path in DOCS.glob("*.md")}
    assert {path.stem for path in (DOCS / "pictures").glob("*")} == pages
    for path in (DOCS / "pictures").glob("*"):
        with Image.open(path) as picture:
            assert picture.format == "JPEG" and picture.width == WIDTH and picture.height <= HEIGHT, path.name
        assert path.stat().st_size <= LARGEST_FILE, path.name


def test_pictures_are_published():
    published = {Path(name) for name in published_files(("--others", "--exclude-standard"))}
    for path in DOCS.glob("*.md"):
        assert (DOCS / "pictures" / f"{path.stem}.jpg").relative_to(ROOT) in published


def test_every_page_of_a_beginner_is_there_in_every_language():
    found = {path.relative_to(DOCS) for path in DOCS.glob("PiT_*/*")}
    assert found == {Path(f"PiT_{page}") / f"{language}.md" for page in PAGES for language in LANGUAGES}


@all_pages
@all_languages
def test_pages_are_built_as_the_english_ones(page, language):
    english, translation = read(page), read(page, language)
    assert blocks(translation) == blocks(english)
    assert code_of(translation) == code_of(english)
    numbers = re.compile(r"\d+(?:\.\d+)?")
    assert set(numbers.findall(english)) <= set(numbers.findall(translation))


@all_pages
@all_languages
def test_pages_call_nodes_and_inputs_as_the_page_shows_them(page, language):
    english, translation, catalog = read(page), read(page, language), read_catalog(language)
    assert translation.splitlines()[0] == f"# {catalog[english.splitlines()[0][2:]]}"
    assert unnamed(english, translation, catalog) == set()


@all_pages
@all_languages
def test_bold_words_are_bold(page, language):
    assert [line for line in read(page, language).splitlines() if unclosed(line)] == []


def test_pictures_are_found_behind_the_title_alone():
    assert picture_of("# A\n\n![b](pictures/C.jpg)\n\nd") == ("b", "pictures/C.jpg")
    for text in ("# A\n\nd\n\n![b](C.jpg)\n", "# A\n\n![b](C.jpg) d\n\n", "# A\n![b](C.jpg)\n\nd"):
        assert picture_of(text) == ("", "")


def test_the_rules_are_sharp():
    assert blocks("# A\n\ntext\n\n- b\n1. c\n    d\n![e](f.png)") == ["# ", "", "- ", "1. ", "    ", "!["]
    assert code_of('a `b` "c"\n    d\n[e](f) `start`') == {"`b`", '"c"', "    d", "](f)"}
    catalog = {"Load It": "Lade es", "file": "Datei"}
    assert unnamed("**Load It** and **file**, **other**", "**Lade es** und Datei", catalog) == {"file"}
    assert all(map(unclosed, ("**加载+**和", "于**（加载）**，", "**a")))
    assert not any(map(unclosed, ("**加载+** 和", "于 **（加载）**，", "**加载**和")))
