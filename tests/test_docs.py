"""What pages tell users to open is there: templates by the names that ComfyUI shows, files and headings."""

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

from dev import ROOT
from dev.templates import NOW

WORKFLOWS, HELP = ROOT / "workflows", ROOT / "web" / "docs"
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("web/docs/**/*.md"))]
LINKED = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "pit" / "demo" / "TRAINING.md"]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^    .*$|`[^`\n]*`", re.MULTILINE)
LINK = re.compile(r"\]\((?:<([^>]+)>|([^()\s]+))\)")
NAME = r"\*\*[^*]+\*\*|\*[^*]+\*"
BETWEEN = r",? and |,? or |, "
LISTED = re.compile(rf"\btemplates?:? ((?:{NAME})(?:(?:{BETWEEN})(?:{NAME}))*)", re.IGNORECASE)

all_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def plain(text: str) -> str:
    """A page in one line, without targets of links, and without code, whose asterisks are not Markdown's."""
    return " ".join(LINK.sub("]", CODE.sub(" ", FENCED.sub(" ", text))).split())


def called(names: str) -> list[str]:
    """What is in bold or italics in a text; of a way through menus, the last step."""
    return [name.strip("*").rpartition(" > ")[2] for name in re.findall(NAME, names)]


def template_names(text: str) -> set[str]:
    """Names of templates in a page: what begins with a digit, or follows the word template."""
    text = plain(text)
    numbered = {name for name in called(text) if re.match(r"\d [A-Z]", name)}
    return numbered.union(*(called(names) for names in LISTED.findall(text)))


def possible_names(titles: set[str]) -> set[str]:
    """How pages may call templates: by their titles, and without what a single one is not told apart by.

    That is the digit, and what it needs in brackets if others do the same with other models.
    """
    shared = Counter(title.partition(" (")[0] for title in titles)
    names = titles | {name for name, count in shared.items() if count > 1}
    return names | {name.partition(" ")[2] for name in titles | set(shared)}


def anchors(text: str) -> set[str]:
    """Headings as links name them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path, text: str) -> set[str]:
    """Links out of a page into this project that lead nowhere."""
    # ComfyUI's page resolves links of help pages from their folder, also where a language has one of its own.
    base = HELP if page.is_relative_to(HELP) else page.parent
    dead = set()
    for link in ("".join(groups) for groups in LINK.findall(text)):
        path, _, heading = unquote(link).partition("#")
        target = base / path if path else page
        if not re.match(r"\w+:", link) and not (
            target.exists() and (not heading or heading in anchors(target.read_text(encoding="utf-8")))
        ):
            dead.add(link)
    return dead


@all_pages
def test_the_templates_that_a_page_names_are_there(page):
    titles = {path.stem for path in WORKFLOWS.glob("*.json")}
    assert template_names(page.read_text(encoding="utf-8")) - possible_names(titles) == set()


@all_pages
def test_templates_are_named_in_bold_or_italics(page):
    """Or the test before this one would not see them."""
    text = plain(page.read_text(encoding="utf-8"))
    assert text.count(f"({NOW})") == sum(name.endswith(f"({NOW})") for name in called(text))


def test_pages_name_templates():
    """So that the tests above do not pass because nothing is found."""
    named = {page.name: template_names(page.read_text(encoding="utf-8")) for page in PAGES}
    assert len(named["README.md"]) > 20 and len(named["nodes.md"]) > 10
    assert "9 Train your own prior (runs at once)" in named["PiT_TrainPrior.md"]


@all_pages
def test_the_graphs_that_a_page_names_are_there(page):
    named = re.findall(r"workflows/api/(\w+)\.json", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (WORKFLOWS / "api" / f"{name}.json").is_file()] == []


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert dead_links(page, page.read_text(encoding="utf-8")) == set()


def test_names_are_found_in_all_forms():
    text = """Open **Browse Templates > pack > 1 Draw it (SDXL)**, `*` or (templates **2 Mix
two**, *3 Cut it (SDXL)* and *Blend*); the template *Bend it* has **Load It**.

    *4 In code*"""
    assert template_names(text) == {"1 Draw it (SDXL)", "2 Mix two", "3 Cut it (SDXL)", "Blend", "Bend it"}


def test_a_renamed_template_is_missed():
    titles = {"1 Draw it (SDXL)", "1 Draw it (runs at once)", "2 Mix two (SDXL)"}
    assert {"1 Draw it (SDXL)", "1 Draw it", "Draw it", "Mix two", "Mix two (SDXL)"} <= possible_names(titles)
    assert "2 Mix two" not in possible_names(titles)  # nobody sees it under this name
    renamed = titles - {"1 Draw it (SDXL)"} | {"1 Paint it (SDXL)"}
    assert not {"1 Draw it (SDXL)", "1 Draw it", "Draw it (SDXL)"} & possible_names(renamed)


def test_dead_links_are_found():
    page = ROOT / "README.md"
    alive = "[a](docs/api.md#wait) ![b](<workflows/4 Character sheet (SDXL).jpg>) [c](https://d.e) [f](#more)"
    assert dead_links(page, alive) == set()
    dead = {"docs/no.md", "docs/api.md#no", "#no"}
    assert dead_links(page, " ".join(f"[a]({link})" for link in dead)) == dead


def test_links_of_help_pages_are_resolved_from_their_folder():
    page = HELP / "PiT_SamplePrior" / "de.md"
    assert dead_links(page, "[a](PiT_SamplePrior.md) [b](PiT_SamplePrior/fr.md)") == set()
    assert dead_links(page, "[a](fr.md)") == {"fr.md"}
