"""The translations, as texts: complete, in their language, and with everything in them that is no word."""

import json
import re

import pytest

from dev import Failure, make_locales
from dev.make_locales import (
    LANGUAGES,
    LOCALES,
    TRANSLATIONS,
    complaints,
    for_page,
    read_catalog,
    sentences,
    translated,
)

# What no language has in common with another but by chance.
SCRIPTS = {
    "zh": "[\u4e00-\u9fff]", "zh-TW": "[\u4e00-\u9fff]", "ja": "[\u3040-\u30ff\u4e00-\u9fff]",
    "ko": "[\uac00-\ud7a3]",
}
# Encodings that have the signs of one language and lack those of its neighbors.
ENCODINGS = {
    "zh": "gb2312", "zh-TW": "big5", "ja": "shift_jis", "ko": "euc_kr", "de": "cp1252", "fr": "cp1252",
    "es": "cp1252",
}
ACCENTS = {"de": "äöüß", "fr": "éèêàçù", "es": "áéíóúñ"}
# What a sentence hands on untouched: files and code, numbers, and names with capitals or digits inside.
CODE = r"<[^>]+>(?::[\d.]+)?|[\w-]*(?:[./_][\w*-]+)+|\.\w+|\w+=[\d.]+|\[[A-Z], [A-Z]\]"
NUMBER = r"\d+(?:\.\d+)?"
NAME = r"[A-Za-z0-9-]*[A-Z0-9][A-Za-z0-9-]*[A-Z][A-Za-z0-9-]*|DensePose|Kandinsky|AlexNet"
KEPT = re.compile(rf"{CODE}|{NUMBER}|{NAME}", re.ASCII)
EVERYWHERE = {"cfg", "PartCraft", "Parts2Whole", "pOps", "Piece it Together"}
"""Texts that are the same in every language."""
STOCK = {"KSampler", "SamplerCustomAdvanced", "filename_prefix"}
"""Names that ComfyUI itself translates."""


def texts_of(language: str) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in LOCALES.glob(f"{language}/*")}


INPUTS = {each["name"] for node in texts_of("en").get("nodeDefs.json", {}).values()
          for each in node.get("inputs", {}).values()}
"""Names that the page shows in the language of the user."""


def pairs(language: str) -> list[tuple[str, str]]:
    return list(read_catalog(language).items())


def is_sentence(text: str) -> bool:
    return text.endswith(".")


def lost(english: str, translation: str) -> list[str]:
    """What a translation has to hand on as it is, and does not."""
    kept = [match.rstrip(".") for match in KEPT.findall(english) if match not in STOCK | INPUTS]
    # Languages have endings of their own: LoRAs are a LoRA in many.
    return [each for each in kept if each.removesuffix("s") not in translation]


def titles(language: str) -> dict[str, str]:
    """The titles of all nodes in another language."""
    catalog, nodes = read_catalog(language), texts_of("en")["nodeDefs.json"]
    return {node["display_name"]: catalog[node["display_name"]] for node in nodes.values()}


def titles_lost(english: str, translation: str, named: dict[str, str]) -> list[str]:
    """The nodes that an English sentence names and its translation does not, by their longest names."""
    found = re.findall("|".join(map(re.escape, sorted(named, key=len, reverse=True))), english)
    return [title for title in found if named[title] not in translation]


def keys_of(texts: dict, before: str = "") -> set[str]:
    return {
        path for key, value in texts.items()
        for path in (keys_of(value, f"{before}{key}.") if isinstance(value, dict) else [before + key])
    }


def test_there_is_a_folder_and_a_list_for_every_language():
    assert {path.name for path in LOCALES.iterdir()} == {"en", *LANGUAGES}
    assert {path.stem for path in TRANSLATIONS.iterdir()} == {*LANGUAGES, "same", "glossary"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_there_in_every_language(language):
    english, translated = texts_of("en"), texts_of(language)
    assert set(english) == set(translated) == {"nodeDefs.json", "main.json"}
    for name, texts in english.items():
        assert keys_of(texts) == keys_of(translated[name])


@pytest.mark.parametrize("language", LANGUAGES)
def test_files_code_numbers_and_names_survive(language):
    broken = {each: lost(*each) for each in pairs(language) if is_sentence(each[0])}
    assert {each: what for each, what in broken.items() if what} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_are_called_by_the_titles_that_they_have(language):
    named = titles(language)
    broken = {each: titles_lost(*each, named) for each in pairs(language) if each[0] not in named}
    assert {each: what for each, what in broken.items() if what} == {}
    assert len(set(named.values())) == len(named)


@pytest.mark.parametrize("language", LANGUAGES)
def test_inputs_and_outputs_of_a_node_can_be_told_apart(language):
    english, translated = (texts_of(each)["nodeDefs.json"] for each in ("en", language))
    names = {
        (node, group, slot["name"], each["name"]) for node, texts in english.items()
        for group in ("inputs", "outputs") for key, each in texts.get(group, {}).items()
        for slot in [translated[node][group][key]] if "name" in each
    }
    shown = [(node, group, name) for node, group, name, _ in sorted(names)]
    assert [each for each in shown if shown.count(each) > 1] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_english_but_for_words_that_are_the_same(language):
    same = set(json.loads((TRANSLATIONS / "same.json").read_text(encoding="utf-8"))[language])
    assert {english for english, text in pairs(language) if english == text} == same | EVERYWHERE
    assert not any(map(is_sentence, same))


@pytest.mark.parametrize("language", SCRIPTS)
def test_every_sentence_is_in_the_script_of_its_language(language):
    script = re.compile(SCRIPTS[language])
    found = [text for english, text in pairs(language) if is_sentence(english)]
    assert [text for text in found if not script.search(text)] == []


def test_japanese_is_no_chinese():
    kana = re.compile("[\u3040-\u30ff]")
    assert [text for english, text in pairs("ja") if is_sentence(english) and not kana.search(text)] == []
    assert not any(kana.search(text) for language in ("zh", "zh-TW") for _, text in pairs(language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sign_is_of_another_language(language):
    """Simplified signs are none of Big5, for example, and traditional ones none of GB 2312."""
    assert [text for _, text in pairs(language) if text.encode(ENCODINGS[language], "ignore").decode(
        ENCODINGS[language]) != text] == []


@pytest.mark.parametrize("language", ACCENTS)
def test_accents_are_written(language):
    everything = " ".join(text for _, text in pairs(language)).lower()
    assert set(ACCENTS[language]) <= set(everything)


@pytest.mark.parametrize("language", LANGUAGES)
def test_sentences_end_and_stay_in_one_line(language):
    ends = {"zh": "。", "zh-TW": "。", "ja": "。"}.get(language, ".")
    wrong = [text for english, text in pairs(language) if is_sentence(english) and not text.endswith(ends)]
    assert wrong == []
    assert [text for _, text in pairs(language) if text != text.strip() or "\n" in text or not text] == []


def test_the_rules_are_sharp():
    english = "The file from models/loras, such as emb_opt.pt; 0.015 for SDXL and LoRAs, read by <head:17>."
    whole = "Datei aus models/loras, etwa emb_opt.pt; 0.015 bei SDXL und LoRA, von <head:17> gelesen."
    assert lost(english, whole) == []
    for word in ("models/loras", "emb_opt.pt", "0.015", "SDXL", "<head:17>"):
        assert lost(english, whole.replace(word, "")) == [word]
    assert lost(english, whole.replace("LoRA", "")) == ["LoRAs"]
    named = {"Encode IP+ Parts": "A", "Encode": "B"}
    assert titles_lost("For Encode IP+ Parts.", "B.", named) == ["Encode IP+ Parts"]
    assert titles_lost("For Encode IP+ Parts.", "A.", named) == []


# What the command says of a list ------------------------------------------------------------------------

FILES = {"nodeDefs.json": {"A": {"display_name": "Load It", "inputs": {
    "part0": {"name": "part 1", "tooltip": "A {part} of it."}, "part1": {"name": "part 2"},
}}}}
WHOLE = {"Load It": "Lade es", "part #": "Teil #", "A {part} of it.": "Ein {part} davon."}


def test_texts_are_asked_for_once_and_slots_without_their_numbers():
    assert sentences(FILES) == list(WHOLE)
    assert complaints(FILES, WHOLE) == []


def test_what_is_missing_changed_or_superfluous_is_named():
    assert complaints(FILES, {**WHOLE, "Load It": ""}) == ["missing: 'Load It'"]
    old = {"Load That": "Lade das", "part #": "Teil #", "A {part} of it.": "Ein {part} davon.", "Gone": "Weg"}
    assert complaints(FILES, old) == ["changed: 'Load That' is now 'Load It'", "superfluous: 'Gone'"]


def test_what_the_page_takes_for_a_placeholder_is_told_from_it():
    """In all but tooltips, which the page shows as they are."""
    assert for_page("description", "a | {b} @c") == "a {'|'} {'{'}b{'}'} {'@'}c"
    assert for_page("tooltip", "a | {b} @c") == "a | {b} @c"


def test_slots_are_numbered_and_what_is_missing_stays_english():
    inputs = {"part0": {"name": "Teil 1", "tooltip": "Ein {part} davon."}, "part1": {"name": "Teil 2"}}
    whole = {"A": {"display_name": "Lade es", "inputs": inputs}}
    assert translated(FILES, WHOLE) == {"nodeDefs.json": whole}
    assert translated(FILES, {"Load It": "Lade es"}) == {"nodeDefs.json": {"A": {"display_name": "Lade es"}}}


def test_translators_are_told_what_is_to_do(monkeypatch):
    monkeypatch.setattr(make_locales, "english", lambda _: FILES)
    monkeypatch.setattr(make_locales, "read_catalog", lambda language: {} if language == "fr" else WHOLE)
    with pytest.raises(Failure, match="Expected a translation of every sentence .*\n") as raised:
        make_locales.check_translations({})
    assert str(raised.value).splitlines()[1:] == [f"fr: missing: {sentence!r}" for sentence in WHOLE]


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["ja"], 2), (["--no-such"], 2)])
def test_asking_for_help_or_for_nonsense_makes_nothing(arguments, code, capsys):
    with pytest.raises(SystemExit) as raised:
        make_locales.main(arguments)
    said = capsys.readouterr()
    assert raised.value.code == code and "python -m dev.make_locales" in said.out + said.err
