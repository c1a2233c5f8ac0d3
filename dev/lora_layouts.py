"""The layout of the graphs with an IP-LoRA, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column, parts_to_concept, title_of
from dev.piece_layouts import files
from dev.subgraphs import Folded

SCENE_START = Note("Start here", f"""\
**Press Run.** Four concepts are drawn twice from the same noise: without an IP-LoRA, and with one that has \
learned what a night meadow is.

Change first: the words of **IP-LoRA Prompt** (a creature in a lava meadow, on sky lava), and **strength**.

For SDXL, open {title_of("concept_in_a_scene_sdxl")}.""")

SCENE = Layout(
    rows=((
        Group("Start", "models", (column(280, SCENE_START, "1"),)),
        Group("Parts", "pictures", (column(250, "2"),)),
        (
            Group("Concepts", "concept", (column(300, parts_to_concept("3", "4")),)),
            Group("Prompt", "render", (column(300, "5", Folded(
                "Words and sizes", "6 7 8", sockets="text=6.text negative_text=7.text",
                outputs="positive=6.0 negative=7.0",
            )),)),
        ),
        (
            Group("Without", "render", (column(300, Folded(
                "Render without IP-LoRA", "9 10 11",
                shown="weight=9.weight steps=10.steps cfg=10.cfg seed=10.seed",
                outputs="model=9.0 image=11.0",
            )),)),
            Group("With", "render", (column(300, Large("13", 210), Folded(
                "Render with IP-LoRA", "14 15", shown="steps=14.steps cfg=14.cfg seed=14.seed",
                outputs="image=15.0",
            )),)),
        ),
        (
            Group("Result without", "result", (column(400, Large("12", 400)),)),
            Group("Result with", "result", (column(400, Large("16", 400)),)),
        ),
    ),),
    random_seeds=("4",),
)

SHEET_START = Note("Start here", f"""\
**Press Run.** Four concepts become character sheets: from the front, the side, behind, and with raised limbs.

Change first: the parts, and the **strength** of the IP-LoRA; at 0 you see just the creature.

For SDXL, open {title_of("character_sheet_sdxl")}.""")


def render_words(nodes: str, apply: str, latent: str, sampler: str, decode: str) -> Folded:
    """The subgraph that draws tokens with words that come from outside."""
    return Folded(
        "Render concept with IP-LoRA", nodes,
        shown=f"weight={apply}.weight steps={sampler}.steps cfg={sampler}.cfg seed={sampler}.seed",
        sockets=f"size_of_model={latent}.model", outputs=f"image={decode}.0",
    )


SHEET = Layout(
    rows=((
        Group("Start", "models", (column(280, SHEET_START, "1"),)),
        Group("Parts", "pictures", (column(260, "2"),)),
        (
            Group("Concepts", "concept", (column(310, parts_to_concept("3", "4")),)),
            Group("Words", "render", (column(310, "5", Large("9", 210)),)),
        ),
        (
            Group("Sheets", "render", (
                column(440, render_words("10 6 7 8 11 12", "10", "8", "11", "12")),
            )),
            Group("Result", "result", (column(440, Large("13", 440)),)),
        ),
    ),),
    random_seeds=("4",),
)

LORA_FILES = files(
    "ip-lora ip-adapter-plus clip-vit-h",
    "Choose your SDXL checkpoint. Read the license of the IP-LoRAs on their model card first. ",
)

SDXL_STARTS = {
    "scene": Note("Start here", """\
**A concept in a scene**, as the published IP-LoRA for backgrounds does it. Put **Load Image** in place of \
*A concept*: a picture **on white**. Or let a prior invent it: **Parts to concept** in place of **Encode \
IP+ Image**."""),
    "sheet": Note("Start here", """\
**A sheet of a concept**, as the published IP-LoRA does it. Put **Load Image** in place of *A concept*: a \
picture **on white**. Or let a prior invent it: **Parts to concept** in place of **Encode IP+ Image**."""),
}
SDXL_NOTES = {
    "scene": Note("Words", """\
The LoRA has learned one form: the style, *an imaginary fantasy creature in*, the scene. **IP-LoRA Prompt** \
writes it. As published, zeros stand in for the negative prompt."""),
    "sheet": Note("Words", """\
The LoRA has seen only one text, which **IP-LoRA Prompt** writes. As published, zeros stand in for the \
negative prompt."""),
}


def sdxl_layout(kind: str) -> Layout:
    """The layout of a graph for SDXL; the two kinds differ only in their words."""
    return Layout(
        rows=((
            Group("Models", "models", (column(300, SDXL_STARTS[kind], "1", "2", "3", LORA_FILES),)),
            Group("Concept", "pictures", (column(280, "4", "5"),)),
            Group("Words and render", "render", (
                column(
                    310, "8", SDXL_NOTES[kind], Large("6", 210),
                    render_words("7 9 10 11 12 13", "7", "11", "12", "13"),
                ),
            )),
            Group("Result", "result", (column(420, Large("14", 600)),)),
        ),),
        random_seeds=("12",),
    )


LAYOUTS = {
    "character_sheet": SHEET, "character_sheet_sdxl": sdxl_layout("sheet"), "concept_in_a_scene": SCENE,
    "concept_in_a_scene_sdxl": sdxl_layout("scene"),
}
