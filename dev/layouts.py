"""The layout of the graphs for people, and what their notes say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TITLE, PADDING, BETWEEN, GROUP_TITLE = 30, 20, 40, 40

Rectangle = tuple[int, int, int, int]
"""Left, top, width, height; for a node without its title bar, which is how ComfyUI stores it."""


@dataclass(frozen=True)
class Note:
    """A note in the graph; its text is Markdown."""

    title: str
    text: str
    height: int


@dataclass(frozen=True)
class Stack:
    """Nodes of one width, one below the other: ids from the API twin with their heights, and notes."""

    width: int
    rows: tuple[tuple[str, int] | Note, ...]

    @property
    def height(self) -> int:
        """From the top of the first title bar to the bottom of the last node."""
        heights = [row.height if isinstance(row, Note) else row[1] for row in self.rows]
        return sum(heights) + len(heights) * TITLE + (len(heights) - 1) * BETWEEN


@dataclass(frozen=True)
class Group:
    """A titled frame around stacks that are side by side."""

    title: str
    left: int
    top: int
    stacks: tuple[Stack, ...]

    @property
    def frame(self) -> Rectangle:
        """Just large enough for all stacks."""
        width = sum(stack.width for stack in self.stacks) + (len(self.stacks) - 1) * BETWEEN + 2 * PADDING
        height = max(stack.height for stack in self.stacks) + GROUP_TITLE + PADDING
        return self.left, self.top, width, height

    def places(self) -> Iterator[tuple[str | Note, Rectangle]]:
        """Every node id and every note, with its place."""
        left = self.left + PADDING
        for stack in self.stacks:
            top = self.top + GROUP_TITLE + TITLE
            for row in stack.rows:
                what, height = (row, row.height) if isinstance(row, Note) else row
                yield what, (left, top, stack.width, height)
                top += height + BETWEEN + TITLE
            left += stack.width + BETWEEN


@dataclass(frozen=True)
class Layout:
    """How a graph for people differs from its API twin.

    Attributes:
        groups: the frames, with all nodes.
        random_seeds: the nodes whose seed changes after every run; other seeds stay the same.
        bypassed: nodes that are switched off, in the format of the API, which leaves them out.
        detours: by a node and its input, the output of a bypassed node that it gets in the graph.
    """

    groups: tuple[Group, ...]
    random_seeds: tuple[str, ...]
    bypassed: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    detours: Mapping[tuple[str, str], tuple[str, int]] = field(default_factory=dict)


DEMO_START = Note("Start here", height=270, text="""\
**Press Run.** Parts of one creature go in, and eight whole creatures that keep them come out.

Things to change first:
- **Creature Parts**: its seed and switches, for other parts.
- **IP-Prior Sample**: its seed changes after every run, so the next run shows other creatures with the same \
parts.
- **Prompt**: `a creature in the sky`, `at night`, `in a meadow`, `on lava`.

These small models only know drawn creatures. For SDXL, open the template *piece_it_together_sdxl*.""")

DEMO_CONCEPTS = Note("How many", height=130, text="""\
**concepts** is how many creatures are drawn: **Empty Latent for Tokens** follows it.

More **guidance** keeps the parts better, but makes the creatures more alike.""")

DEMO = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (DEMO_START, ("1", 130))),)),
        Group("Parts", 380, 0, (Stack(280, (("2", 540), ("3", 330))),)),
        Group("Encode", 740, 0, (Stack(300, (("4", 480),)),)),
        Group("Complete", 1120, 0, (Stack(280, (("5", 590), DEMO_CONCEPTS)),)),
        Group("Render", 1480, 0, (
            Stack(280, (("7", 100), ("8", 100), ("6", 180), ("9", 110))),
            Stack(280, (("10", 280), ("11", 50))),
            Stack(480, (("12", 690),)),
        )),
    ),
    random_seeds=("5",),
)

SDXL_FILES = Note("Files", height=170, text="""\
Choose your SDXL checkpoint. One command, run in the folder of this pack, downloads the other files:

`python -m pit download characters ip-adapter-plus clip-vit-h --models /path/to/ComfyUI/models`

There are published priors for `products` and `plush`, too.""")

SDXL_PARTS = Note("Start here", height=330, text="""\
The graph starts with parts that the pack draws. For your own, put **Load Image** in their place, one node \
for each part, and connect them to **Encode IP+ Parts**: there is always another socket.

Parts should be **on white**. To take one out of a picture, right-click the picture, choose **Open in \
MaskEditor**, paint over the part and save; then connect picture and mask to **Cut Out Part**, which also \
takes pictures with a transparent background.

**reference_slot** is on for the characters prior; turn it off for the others.""")

SDXL_CONCEPTS = Note("How many", height=150, text="""\
**concepts** is how many pictures are drawn, since **Empty Latent for Tokens** follows it: set it to 1 if \
memory is short.

More **guidance** keeps the parts better, but makes the concepts more alike.""")

SDXL = Layout(
    groups=(
        Group("Models", 0, 0, (Stack(300, (SDXL_FILES, ("1", 100), ("2", 60), ("3", 60), ("4", 90))),)),
        Group("Parts", 380, 0, (
            Stack(280, (SDXL_PARTS,)), Stack(280, (("5", 540), ("6", 330))),
        )),
        Group("Encode", 1060, 0, (Stack(300, (("10", 540),)),)),
        Group("Complete", 1440, 0, (Stack(280, (("11", 360), SDXL_CONCEPTS)),)),
        Group("Render", 1800, 0, (
            Stack(280, (("13", 120), ("14", 120), ("12", 180), ("15", 110))),
            Stack(280, (("16", 280), ("17", 50))),
            Stack(480, (("18", 690),)),
        )),
    ),
    random_seeds=("11",),
)

LAB_START = Note("Start here", height=310, text="""\
**Press Run.** Three parts of one creature become sixteen whole creatures, and **Measure Creatures** counts \
how many of them keep each attribute of the parts, against the exact truth.

All seeds stay the same, so that you can compare one table with the next. Change one thing at a time:
- **Creature Parts**: its seed and switches, for other parts.
- **IP-Prior Sample**: guidance, steps, solver.
- **Apply IP+ Tokens**: a higher weight keeps the parts better, a lower one follows the words better.""")

LAB_SCENE = Note("The scene", height=90, text="""\
Set **scene** to what the prompt asks for: `at night`, `in the sky`, `in a meadow`, `on lava`, or white if \
it names none. With *any*, the table leaves it out.""")

LAB = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (LAB_START, ("1", 130))),)),
        Group("Parts", 380, 0, (Stack(280, (("2", 540),)),)),
        Group("Encode", 740, 0, (Stack(300, (("3", 480),)),)),
        Group("Complete", 1120, 0, (Stack(280, (("4", 590),)),)),
        Group("Render", 1480, 0, (
            Stack(280, (("6", 100), ("7", 100), ("5", 180), ("8", 110))),
            Stack(280, (("9", 280), ("10", 50))),
            Stack(480, (("11", 690),)),
        )),
        Group("Measure", 2660, 0, (Stack(480, (("12", 440), LAB_SCENE)), Stack(480, (("13", 440),)))),
    ),
    random_seeds=(),
)

OWN_START = Note("Start here", height=330, text="""\
**Press Run.** Six hundred creatures are drawn and encoded, an IP-Prior learns from them which parts belong \
together, and eight creatures show what it has learned: all in a few minutes on a plain CPU.

**Train IP-Prior** shows the loss, and samples of the same parts, while it learns. **Cancel** whenever you \
like: Run resumes from there. A finished training is not repeated; raise its **steps** to train longer, or \
choose another **name** to start a new one.

For SDXL and your own pictures, replace **Creature Dataset** with **Load Dataset** or **Make Parts** (see \
the template *generate_a_dataset*), and the creature models with those of the template \
*piece_it_together_sdxl*.""")

OWN_TOKENS = Note("Encoded once", height=170, text="""\
Every picture becomes tokens once, before the training, instead of at each of its steps.

Raise **count** in Creature Dataset and run again: only new creatures are drawn and encoded. The training \
then needs another **name**, because its pictures have changed.""")

OWN_SIZES = Note("For SDXL", height=130, text="""\
**hidden_dim** 2048, **layers** 4 and **heads** 32 are the published sizes. The preset *8 GB card* trains \
them on a small card.""")

OWN_CONCEPTS = Note("How many", height=110, text="""\
**concepts** is how many creatures are drawn: **Empty Latent for Tokens** follows it.

To use the trained file later, put **Load IP-Prior** here.""")

OWN = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (OWN_START, ("1", 130), OWN_SIZES)),)),
        Group("Dataset", 380, 0, (Stack(400, (("2", 600),)), Stack(300, (("3", 380), OWN_TOKENS)))),
        Group("Train", 1200, 0, (
            Stack(280, (("6", 100), ("7", 100), ("8", 110), ("9", 280))), Stack(600, (("10", 800),)),
        )),
        Group("Parts", 0, 930, (Stack(300, (("4", 340),)),)),
        Group("Encode", 380, 930, (Stack(300, (("5", 480),)),)),
        Group("Complete", 760, 930, (Stack(280, (("11", 360), OWN_CONCEPTS)),)),
        Group("Render", 1120, 930, (
            Stack(280, (("12", 180), ("13", 110))),
            Stack(280, (("14", 280), ("15", 50))),
            Stack(360, (("16", 690),)),
        )),
    ),
    random_seeds=("11",),
)

DATASET_START = Note("Start here", height=210, text="""\
Choose any text-to-image checkpoint, set **count**, and press Run: every prompt becomes a picture, and \
**Make Parts** cuts it into parts and adds both to the dataset *my_parts* in `output/ip_prior_datasets`.

The seed of **Dataset Prompts** changes after every run, so the next one adds new pictures. A prior needs \
thousands: set the number of runs next to Run, and let it work overnight.

Then open the template *train_your_own_prior*, and replace Creature Dataset with **Load Dataset**.""")

DATASET_MODELS = Note("Other models", height=100, text="""\
Size, steps and **cfg** here are for SDXL. Turbo, Lightning and FLUX schnell need 4 steps and **cfg** 1; \
the published datasets were made like that.""")

DATASET_MASKS = Note("Parts by name", height=230, text="""\
Without masks the parts are found by color, which needs the plain background that the prompts ask for.

Better: put ComfyUI's **SAM3 Detect** between VAE Decode and the **masks** of Make Parts, with \
**individual_masks** on, its model from **Load Checkpoint**, and a CLIP Text Encode of that checkpoint with \
the names of the parts:

`head, legs:4, arms:2, wings:2, tail, hat`

A number after a colon is the maximum that it finds of this kind; without a number, that is one.""")

DATASET = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(320, (DATASET_START, ("1", 100))),)),
        Group("Prompts", 400, 0, (Stack(300, (("2", 160), ("3", 100), ("4", 120))),)),
        Group("Render", 780, 0, (
            Stack(280, (("5", 110), ("6", 290), ("7", 50), DATASET_MODELS)),
            Stack(480, (("8", 690),)),
        )),
        Group("Parts", 1660, 0, (Stack(480, (("9", 720),)), Stack(300, (DATASET_MASKS,)))),
    ),
    random_seeds=("2",),
)

SETS_START = Note("Start here", height=290, text="""\
**Press Run.** Each subfolder of a folder is one set of parts, and becomes four creatures: one run does them \
all, and every result carries the name of its set.

For your own, put a folder into ComfyUI's `input`, with a subfolder of part pictures for each set, and \
choose it in **Load Part Sets**.

For a night of work on one or several servers, see `python -m pit queue`.""")

SETS = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(320, (SETS_START, ("1", 130))),)),
        Group("Parts", 400, 0, (Stack(300, (("2", 200), ("3", 290))),)),
        Group("Encode", 780, 0, (Stack(300, (("4", 480),)),)),
        Group("Complete", 1160, 0, (Stack(300, (("5", 590),)),)),
        Group("Render", 0, 720, (
            Stack(310, (("7", 100), ("8", 100))), Stack(310, (("6", 180), ("9", 110))),
            Stack(290, (("10", 280), ("11", 50))), Stack(430, (("12", 400),)),
        )),
    ),
    random_seeds=("5",),
)

LAYOUTS = {
    "a_folder_of_part_sets": SETS, "creature_lab": LAB, "generate_a_dataset": DATASET,
    "piece_it_together": DEMO, "piece_it_together_sdxl": SDXL, "train_your_own_prior": OWN,
}
