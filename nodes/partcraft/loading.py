"""The loader of part words, and the node that writes one into a prompt."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from comfy_api.latest import io

from ...pit.files.known import first_of
from ...pit.files.lora import modules
from ...pit.messages import ShortError
from ...pit.partcraft.files import PAIRS, PartWords, load_part_words, names_in
from ...pit.partcraft.mapper import BASES
from ...pit.partcraft.prompt import Vocabulary, numbered
from ...pit.partcraft.published_names import published_names
from ..bridge.feedback import as_lines, told
from ..bridge.folders import ModelFiles, file_stamp
from ..bridge.loaders import FileNode
from .types import CATEGORY, PartWordsType

FILES = ModelFiles("part_words")
# Saved graphs hold these options by name.
AS_FILE, BIRDS, DOGS, NUMBERS = (
    "as the file says", "birds (CUB-200-2011)", "dogs (Stanford Dogs)", "numbers"
)
COLLECTIONS = {BIRDS: "cub", DOGS: "dogs"}
PARTS, CODES = 8, 256  # of the published words
NOTHING = "nothing"
MOST_LISTED = 2000  # codes in a list of the page; others can be written by hand
LORAS = {lora for _, lora in PAIRS}


def word_files() -> list[str]:
    """The files that Load PartCraft offers: without the LoRAs that lie beside the words."""
    # A new node stands on the first entry, and a LoRA alone cannot be loaded.
    names = FILES.options()
    return [name for name in names if PurePosixPath(name.replace("\\", "/")).name not in LORAS] or names


def load_words(path: Path, names: str = AS_FILE) -> PartWords:
    """Part words with the names that were chosen; WeightFileError as in `load_part_words`."""
    words = load_part_words(path, published_names(COLLECTIONS[names]) if names in COLLECTIONS else None)
    if names == NUMBERS:
        words = replace(words, vocabulary=numbered(words.mapper.num_parts, words.mapper.num_codes))
    return words


def described(words: PartWords) -> dict[str, object]:
    """What there is to know about part words."""
    known = words.vocabulary
    parts = [f"{part.name} ({part.count})" for part in known.parts if part.count]
    lora = f"{len(modules(words.lora))} modules" if words.lora else (
        "none in the file or beside it, so that the model draws the words less exactly"
    )
    facts: dict[str, object] = {
        "base": f"{BASES.get(words.dim, 'another one')}, words of {words.dim} numbers",
        "parts": ", ".join(parts), "LoRA": lora,
    }
    if known.classes:
        facts["classes"] = f"{len(known.classes)}: {first_of(list(known.classes), 6)}"
    if words.unused:
        facts["not used"] = f"changes of text encoders: {first_of(list(words.unused), 3)}"
    return facts


def vocabularies() -> Iterator[tuple[str, Vocabulary]]:
    """The names of part words by file, then those that were published."""
    for name in [*FILES.listed(), *FILES.shipped]:
        if PurePosixPath(name.replace("\\", "/")).name in LORAS:
            continue
        try:
            known = names_in(FILES.path(name))
        except FileNotFoundError:  # a link that leads nowhere, which ComfyUI lists as well
            continue
        if known is not None and known.names():
            yield name, known
    for choice, collection in COLLECTIONS.items():
        yield choice, published_names(collection)
    yield NUMBERS, numbered(PARTS, CODES)


def choices(vocabulary: Vocabulary) -> list[io.Input]:
    """The lists of parts and codes of a file."""
    # Parts that have no classes, such as the background, take numbers.
    most = max((
        part.count for part in vocabulary.parts if not part.named or part.count > len(vocabulary.classes)
    ), default=0)
    codes = [*vocabulary.classes, *map(str, range(1, most + 1))][:MOST_LISTED]
    return [
        io.Combo.Input("part", options=vocabulary.names(), tooltip="The part of the picture."),
        io.Combo.Input("whose", options=codes, tooltip="The class, or the number, whose part it is."),
        io.Combo.Input(
            "mixed_with", options=[NOTHING, *codes], default=NOTHING,
            tooltip="Another one for an even mixture of both.",
        ),
    ]


def written_word(vocabulary: Vocabulary, part: str, codes: list[str], weight: float) -> str:
    """A part word as a prompt has it. Raises ShortError if there is no such word."""
    word = vocabulary.text(vocabulary.word(part, "|".join(codes)))
    # ComfyUI takes parentheses for weights.
    word = word.replace("(", "\\(").replace(")", "\\)")
    return word if weight == 1 else f"({word}:{weight:g})"


class LoadPartCraft(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadPartCraft",
            display_name="Load PartCraft",
            category=CATEGORY,
            description="Loads part words and the LoRA that was trained with them; shows what there is.",
            search_aliases=["partcraft", "dreamcreature", "part tokens", "hash mapper"],
            inputs=[
                io.Combo.Input(
                    "file", options=word_files(),
                    tooltip="The file of words from models/part_words. A published LoRA is read from beside "
                            "it.",
                ),
                io.Combo.Input(
                    "names", options=[AS_FILE, *COLLECTIONS, NUMBERS], default=AS_FILE, optional=True,
                    advanced=True,
                    tooltip="What parts and classes are called: what the file says or, for published files, "
                            "what its folder's name says; or one of the published lists.",
                ),
            ],
            outputs=[PartWordsType.Output(
                display_name="part_words", tooltip="The words with their names and their LoRA.",
            )],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **_: object) -> object:
        if file is None:
            return None
        path = FILES.path(file)
        return [file_stamp(each) for each in (path, *map(path.with_name, sorted(LORAS)))]

    @classmethod
    def execute(cls, file: str, names: str = AS_FILE) -> io.NodeOutput:
        words = load_words(FILES.path(file), names)
        return io.NodeOutput(words, ui=told(cls, as_lines({file: "part words", **described(words)})))


class PartWord(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PartWords",
            display_name="Part Words",
            category=CATEGORY,
            description="Picks a part and a class from lists, and writes the word behind a text.",
            search_aliases=["part picker", "part token", "pick part", "head", "wing", "prompt builder"],
            inputs=[
                io.DynamicCombo.Input(
                    "file", tooltip="Whose names to pick from: a file in models/part_words, or a published "
                                    "list.",
                    options=[
                        io.DynamicCombo.Option(name, choices(known)) for name, known in vocabularies()
                    ],
                ),
                io.Float.Input(
                    "weight", default=1.0, min=0.0, max=3.0, step=0.05,
                    tooltip="How much the word counts, in ComfyUI's syntax for weights; 1 writes none.",
                ),
                io.String.Input(
                    "text", default="a photo of a", multiline=True,
                    tooltip="The text before the word: your own, or that of another Part Words.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="text", tooltip="The text with the word, for CLIP Text Encode.",
                ),
                io.String.Output(display_name="word", tooltip="The word alone, such as <head:cardinal>."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, file: dict[str, str] | None = None, weight: float = 1.0, text: str = ""
    ) -> io.NodeOutput:
        known, offered = None, dict(vocabularies())
        if file is not None:  # ComfyUI leaves out a choice that it does not know
            known = offered.get(file["file"])
        if known is None:
            raise ShortError(
                "Part Words expected a file in models/part_words that tells its names, or a published list, "
                f"got one that is not there. Choose {first_of(list(offered))}."
            )
        codes = [file["whose"], *([file["mixed_with"]] if file["mixed_with"] != NOTHING else [])]
        word = written_word(known, file["part"], codes, weight)
        whole = f"{text.strip()} {word}".strip()
        return io.NodeOutput(whole, word, ui=told(cls, whole))
