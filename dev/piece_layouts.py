"""The layout of the graphs that piece together, train and measure, and what their notes say."""

from __future__ import annotations

from dev.layouts import (
    Group,
    Large,
    Layout,
    Note,
    column,
    parts_to_concept,
    render_concept,
    title_of,
)
from dev.subgraphs import Folded

INSIDE = "**Parts to concept** and **Render concept** are subgraphs, which open to show their nodes."


OFFERED = "ComfyUI's page offers the files that are missing."


def files(names: str, more: str = "", offered: str = OFFERED) -> Note:
    """Where the files of a graph come from; `offered` says what the page does for them."""
    return Note("Files", (
        f"{more}{offered} By command, in the folder of this pack:\n\n"
        f"**python -m pit download {names} --models** *your models folder*"
    ))


SDXL_FILES = files("characters ip-adapter-plus clip-vit-h", "Choose your SDXL checkpoint. ")

DEMO_START = Note("Start here", f"""\
**Press Run.** Parts of one creature go in, and eight whole creatures that keep them come out.

Change first:
- **Creature Parts**: seed and switches, for other parts.
- **prompt**: a creature at night, in a forest, under the sea, on lava.

{INSIDE} For SDXL, open {title_of("piece_it_together_sdxl")}.""")

DEMO_CONCEPTS = Note("How many", """\
**concepts** is how many are drawn. Its seed changes after every run, for others with the same parts.

More **guidance** keeps the parts better, but makes the creatures more alike.""")

DEMO = Layout(
    rows=((
        Group("Start", "models", (column(280, DEMO_START, "1"),)),
        Group("Parts", "pictures", (column(270, "2", Large("3", 270)),)),
        (
            Group("Complete", "concept", (column(300, parts_to_concept("4", "5")),)),
            Group("Render", "render", (column(300, render_concept("6", "7", "8", "9", "10", "11")),)),
        ),
        Group("Result", "result", (column(440, Large("12", 640), DEMO_CONCEPTS),)),
    ),),
    random_seeds=("5",),
)

SDXL_START = Note("Start here", f"""\
**Parts in, whole concepts out.** For your own parts, put **Load Image** in place of *Example parts*: one \
part **on white**. More than two: join them by **Batch Images**.

To take a part out of a picture, use **Cut Out Part**. {INSIDE}""")

SDXL_CONCEPTS = Note("How many", """\
**concepts** is how many are drawn: 1 if memory is short. More **guidance** keeps the parts better.

**reference_slot** is on for the characters prior; turn it off for the others, products and plush.""")

SDXL = Layout(
    rows=((
        Group("Models", "models", (column(290, SDXL_START, "1", "2", "3", "4", SDXL_FILES),)),
        Group("Parts", "pictures", (column(270, "5", Large("6", 280), SDXL_CONCEPTS),)),
        (
            Group("Complete", "concept", (column(300, parts_to_concept("10", "11")),)),
            Group("Render", "render", (column(300, render_concept("12", "13", "14", "15", "16", "17")),)),
        ),
        Group("Result", "result", (column(420, Large("18", 640)),)),
    ),),
    random_seeds=("11",),
)

LAB_START = Note("Start here", """\
**Press Run.** Three parts become sixteen creatures, and **Measure Creatures** counts how many keep each \
attribute, against the exact truth.

All seeds stay the same, so that you can compare one table with the next. Change one thing at a time: parts, \
guidance, weight.""")

LAB_SCENE = Note("The scene", """\
Set **scene** to what the prompt asks for, or to white if it names none. With *any*, the table leaves it \
out.""")

LAB = Layout(
    rows=((
        Group("Start", "models", (column(280, LAB_START, "1"),)),
        Group("Parts", "pictures", (column(260, "2"),)),
        (
            Group("Complete", "concept", (column(300, parts_to_concept("3", "4")),)),
            Group("Render", "render", (column(300, render_concept("5", "6", "7", "8", "9", "10")),)),
        ),
        Group("Measure", "train", (column(350, Large("12", 420), LAB_SCENE),)),
        Group("Result", "result", (column(350, Large("11", 370), Large("13", 300)),)),
    ),),
)

OWN_START = Note("Start here", """\
**Press Run.** Six hundred creatures are drawn and encoded, and an IP-Prior learns from them which parts \
belong together: about ten minutes on two CPU cores.

**Cancel** whenever you like: Run resumes from there. A finished training is not repeated; raise its \
**steps**, or choose another **name**.""")

OWN_PICTURES = Note("For SDXL", f"""\
Put **Load Dataset** or **Make Parts** in place of **Creature Dataset** (see \
{title_of("generate_a_dataset")}), and the models of {title_of("piece_it_together_sdxl")}. Published sizes: \
**hidden_dim** 2048, **layers** 4, **heads** 32.""")

OWN_PREVIEW = Folded(
    "Samples while training", "6 7 8 9",
    shown="prompt=6.text negative_prompt=7.text seed=9.seed steps=9.steps",
    outputs="preview=9.0 positive=6.0 negative=7.0",
)
OWN_DRAW = Folded(
    "Concepts from the new prior", "11 12 13 14 15",
    shown="concepts=11.concepts seed=11.seed guidance=11.guidance weight=12.weight steps=14.steps "
          "cfg=14.cfg",
    outputs="image=15.0",
)

OWN = Layout(
    rows=((
        Group("Start", "models", (column(280, OWN_START, "1", OWN_PICTURES),)),
        Group("Dataset", "train", (column(300, Large("2", 400), Large("3", 330)),)),
        Group("Parts", "pictures", (column(260, "4", Folded(
            "Encode the parts", "5", sockets="parts=5.parts.part0", outputs="parts=5.0",
        )),)),
        Group("Train", "train", (column(360, OWN_PREVIEW, Large("10", 560)),)),
        (
            Group("Render", "render", (column(340, OWN_DRAW),)),
            Group("Result", "result", (column(340, Large("16", 420)),)),
        ),
    ),),
    random_seeds=("11",),
)

DATASET_START = Note("Start here", f"""\
Choose any text-to-image checkpoint and press Run: every prompt becomes a picture, and **Make Parts** cuts \
it into parts, for the dataset *my_parts* in output/ip_prior_datasets.

Each run adds new pictures; a prior needs thousands. Then open {title_of("train_your_own_prior")} and put \
**Load Dataset** in place of Creature Dataset.""")

DATASET_MODELS = Note("Other models", """\
Size, steps and **cfg** are for SDXL. Turbo, Lightning and FLUX schnell need 4 steps and **cfg** 1; the \
published datasets were made like that.""")

DATASET_MASKS = Note("Parts by name", """\
Parts are found by color, which needs the plain background that the prompts ask for.

Better: ComfyUI's **SAM3 Detect** before the **masks** of Make Parts, with **individual_masks** on and the \
names of the parts: *head, legs:4, arms:2, tail*. A number is the most that it finds of a kind.""")

DATASET = Layout(
    rows=((
        Group("Start", "models", (column(320, DATASET_START, "1"),)),
        (
            Group("Prompts", "pictures", (column(320, "2"),)),
            Group("Render", "render", (column(320, Folded(
                "Draw the pictures", "3 4 5 6 7",
                shown="negative_prompt=4.text width=5.width height=5.height steps=6.steps cfg=6.cfg",
                outputs="images=7.0",
            ), DATASET_MODELS),)),
        ),
        Group("Pictures", "result", (column(360, Large("8", 560)),)),
        Group("Parts", "train", (column(380, Large("9", 560), DATASET_MASKS),)),
    ),),
    random_seeds=("2",),
)

SETS_START = Note("Start here", """\
**Press Run.** Each subfolder is one set of parts, and becomes four creatures, whose files carry its name.

For your own, put a folder into ComfyUI's *input*, with a subfolder of part pictures for each set, press \
**R**, and choose it in **Load Part Sets**.""")

SETS = Layout(
    rows=((
        Group("Start", "models", (column(290, SETS_START, "1"),)),
        Group("Parts", "pictures", (column(300, Large("2", 230), Large("3", 300)),)),
        (
            Group("Complete", "concept", (column(300, parts_to_concept("4", "5")),)),
            Group("Render", "render", (column(300, render_concept("6", "7", "8", "9", "10", "11")),)),
        ),
        Group("Result", "result", (column(440, Large("12", 640)),)),
    ),),
    random_seeds=("5",),
)

LAYOUTS = {
    "a_folder_of_part_sets": SETS, "creature_lab": LAB, "generate_a_dataset": DATASET,
    "piece_it_together": DEMO, "piece_it_together_sdxl": SDXL, "train_your_own_prior": OWN,
}
