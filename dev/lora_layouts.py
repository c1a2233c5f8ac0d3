"""The layout of the graphs with an IP-LoRA, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

SCENE_START = Note("Start here", height=330, text="""\
**Press Run.** Four concepts are rendered twice from the same noise: without an IP-LoRA, and with one that \
has learned what `a night meadow` means.

Things to change first:
- **IP-LoRA Prompt**: `a creature in a night meadow`, `in a lava meadow`, `on night lava`, `on sky lava`. \
The models alone know these words, but not these pairs of words.
- **Apply IP-LoRA**: its strength.

For SDXL and the published IP-LoRA, open the template *concept_in_a_scene_sdxl*.""")

SCENE = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (SCENE_START, ("1", 130))),)),
        Group("Concepts", 380, 0, (
            Stack(280, (("2", 340),)), Stack(300, (("3", 480),)), Stack(280, (("4", 590),)),
        )),
        Group("Prompt", 1380, 0, (Stack(300, (("5", 220), ("6", 100), ("7", 100), ("8", 110))),)),
        Group("Without", 1760, 0, (
            Stack(280, (("9", 180), ("10", 280), ("11", 50))), Stack(400, (("12", 470),)),
        )),
        Group("With", 1760, 780, (
            Stack(280, (("13", 120), ("14", 280), ("15", 50))), Stack(400, (("16", 470),)),
        )),
    ),
    random_seeds=("4",),
)

SHEET_START = Note("Start here", height=270, text="""\
**Press Run.** Four concepts become character sheets: from the front, from behind, the limbs, the head.

Things to change first:
- **Creature Parts**: its seed and switches, for other parts.
- **Apply IP-LoRA**: at strength 0 you see just the creature.

For SDXL and the published IP-LoRA, open the template *character_sheet_sdxl*.""")

SHEET = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (SHEET_START, ("1", 130))),)),
        Group("Concepts", 380, 0, (
            Stack(280, (("2", 340),)), Stack(300, (("3", 480),)), Stack(280, (("4", 590),)),
        )),
        Group("Prompt", 1380, 0, (Stack(300, (("5", 220), ("6", 100), ("7", 100), ("8", 110))),)),
        Group("Sheets", 1760, 0, (
            Stack(280, (("9", 120), ("10", 180), ("11", 280), ("12", 50))), Stack(480, (("13", 690),)),
        )),
    ),
    random_seeds=("4",),
)

LORA_FILES = Note("Files", height=190, text="""\
Choose your SDXL checkpoint. One command, run in the folder of this pack, downloads the other files:

`python -m pit download ip-lora ip-adapter-plus clip-vit-h --models /path/to/ComfyUI/models`

Read the license of the IP-LoRAs on their model card first.""")

LORA_CONCEPT = Note("Start here", height=210, text="""\
The graph starts with a creature that the pack draws. For your own concept, put **Load Image** in its place, \
with a picture **on white**.

Or let a prior invent it: replace **Encode IP+ Image** with **IP-Prior Sample** and what comes before it in \
*piece_it_together_sdxl*.""")

SDXL_NOTES = {
    "scene": Note("Words", height=210, text="""\
The published LoRA for backgrounds has learned one form: the style, *an imaginary fantasy creature in*, the \
scene. **IP-LoRA Prompt** writes it; you give it the scene and the style.

As published, the tokens are the same on both branches, and zeros stand in for the negative prompt. Guidance \
then acts on the words alone."""),
    "sheet": Note("Words", height=170, text="""\
The published LoRA for sheets has seen only one text, which **IP-LoRA Prompt** writes.

As published, the tokens are the same on both branches, and zeros stand in for the negative prompt."""),
}


def sdxl_layout(kind: str, prompt_height: int) -> Layout:
    """The layout of a graph for SDXL; the two kinds differ only in their words."""
    return Layout(
        groups=(
            Group("Models", 0, 0, (Stack(300, (LORA_FILES, ("1", 100), ("2", 60), ("3", 60))),)),
            Group("Concept", 380, 0, (Stack(280, (LORA_CONCEPT, ("4", 360), ("5", 60))),)),
            Group("Model", 740, 0, (Stack(300, (("6", 120), ("7", 180), ("11", 110))),)),
            Group("Words", 1120, 0, (
                Stack(300, (SDXL_NOTES[kind], ("8", prompt_height), ("9", 100), ("10", 40))),
            )),
            Group("Render", 1500, 0, (Stack(280, (("12", 280), ("13", 50))), Stack(480, (("14", 690),)))),
        ),
        random_seeds=("12",),
    )


LAYOUTS = {
    "character_sheet": SHEET, "character_sheet_sdxl": sdxl_layout("sheet", 80), "concept_in_a_scene": SCENE,
    "concept_in_a_scene_sdxl": sdxl_layout("scene", 130),
}
