"""The layout of the graphs with part words, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column, title_of
from dev.piece_layouts import files
from dev.subgraphs import Folded

CHECKPOINT = "Choose your checkpoint of Stable Diffusion 1.5. "
WORDS_FILES = files(
    "partcraft-cub", CHECKPOINT,
    "ComfyUI's page offers the words, but not their LoRA, which has to lie beside them.",
)

WORDS_START = Note("Start here", """\
**The head of one bird, the wings of another.** Each **Part Words** adds a part of a species to the text; \
choose others, or mix two by **mixed_with**.

Copy one for a further part, and write behind the words what has these parts: *teddy bear*. The seed changes \
after every run.""")

WORDS_LOOK = Note("Where it looks", """\
**Part Attention Maps** shows for each word where the model looked while it drew. That takes time in each \
step: to do without, delete it and its **Save Image**, open *Draw with part words*, and bypass **Part \
Attention** (**Ctrl+B**).""")

DRAW_WORDS = Folded(
    "Draw with part words", "3 7 8 9 10 11 12",
    shown="negative_prompt=8.text strength=3.strength pictures=10.batch_size steps=11.steps cfg=11.cfg "
          "seed=11.seed",
    outputs="image=12.0 attention=9.1",
)

WORDS = Layout(
    rows=((
        Group("Models", "models", (column(300, WORDS_START, "1", Large("2", 210), WORDS_FILES),)),
        Group("Words", "concept", (column(290, Large("4", 310), Large("5", 310), Large("6", 310)),)),
        Group("Draw", "render", (column(310, DRAW_WORDS, WORDS_LOOK),)),
        Group("Result", "result", (column(345, Large("13", 480)),)),
        Group("Attention", "result", (column(345, Large("14", 260), Large("15", 420)),)),
    ),),
    random_seeds=("11",),
)

FIND_FILES = files("dinov2-base", "Only DINOv2 is needed, 346 MB. ")

FIND_START = Note("Start here", """\
**Press Run.** A hundred creatures are looked at, and **Find Parts** tells their parts apart without being \
told that there are any: each has its color.

For your own, put 100 or more pictures of one kind of thing into a folder in ComfyUI's *input*, press **R**, \
set **pictures** of **Find Parts** to *folder*, and choose it.""")

FIND_NAMES = Note("Names", """\
Look at the sheet and write what the parts are into **part_names**, in their order. Is the background in \
color, and the thing dark? Choose the other cluster in **foreground** (advanced).""")

FIND_LABEL = Note("Masks and words", f"""\
The same parts in other pictures. Below stand words for a prompt, which need a training: \
{title_of("train_part_words_sd15")}.""")

FIND = Layout(
    rows=((
        Group("Start", "models", (column(280, FIND_START, "1", FIND_FILES),)),
        Group("Pictures", "pictures", (column(270, "2", Large("3", 260), "6", Large("7", 200)),)),
        Group("Find", "train", (column(380, Large("4", 500), Large("5", 240), FIND_NAMES),)),
        Group("Label", "render", (column(345, Large("8", 420), "9", FIND_LABEL),)),
        Group("Result", "result", (column(300, Large("10", 420)),)),
    ),),
)

TRAIN_FILES = files("dinov2-base", CHECKPOINT)

TRAIN_START = Note("Start here", f"""\
**From a folder of pictures to words for their parts.** Put 100 or more pictures of one kind of thing into \
*input/my_pictures*, press **R**, then Run.

**Cancel** whenever you like: Run resumes from there. A finished training is not repeated. Try first whether \
the parts make sense: {title_of("find_the_parts_sd15")}.""")

TRAIN_SIZES = Note("How long", """\
2,000 steps are for about a hundred pictures; *small card* needs the least memory. Folders that are species \
give the words their names: set **codes_by** (advanced) to *folders*.""")

TRAIN_WORDS = Note("Your words", """\
They count from 0: part, then code. With names in **part_names**, set before the training, codes count from \
1. Later, put **Load PartCraft** in place of the training.""")

DRAW_TRAINED = Folded(
    "Draw with part words", "6 7 8 9 10 11",
    shown="prompt=7.text negative_prompt=8.text strength=6.strength pictures=9.batch_size steps=10.steps "
          "cfg=10.cfg seed=10.seed",
    outputs="image=11.0",
)

TRAIN = Layout(
    rows=((
        Group("Start", "models", (column(280, TRAIN_START, "1", "2", TRAIN_FILES),)),
        Group("Find", "train", (column(330, Large("3", 480), Large("4", 240), TRAIN_SIZES),)),
        Group("Train", "train", (column(400, Large("5", 700),),)),
        (
            Group("Draw", "render", (column(340, DRAW_TRAINED, TRAIN_WORDS),)),
            Group("Result", "result", (column(340, Large("12", 400)),)),
        ),
    ),),
    random_seeds=("10",),
)

CREATURES_START = Note("Start here", f"""\
**Press Run.** The horns of one species, the wings of another: each **Part Words** adds a part to the text. \
Choose other species, or mix two by **mixed_with**; copy a node for a further part.

Parts that the text leaves out are made up. For birds and dogs, open {title_of("part_words_sd15")}.""")

CREATURES_LOOK = Note("Where it looks", """\
**Part Attention Maps** shows for each word where the model looked while it drew.""")

DRAW_CREATURES = Folded(
    "Draw with part words", "3 8 9 10 11 12 13",
    shown="negative_prompt=9.text strength=3.strength pictures=11.batch_size steps=12.steps cfg=12.cfg "
          "seed=12.seed",
    outputs="image=13.0 attention=10.1",
)

CREATURE_WORDS = Layout(
    rows=((
        Group("Models", "models", (column(280, CREATURES_START, "1", Large("2", 210)),)),
        Group("Words", "concept", (
            column(250, Large("4", 310), Large("5", 310)), column(250, Large("6", 310), Large("7", 310)),
        )),
        Group("Draw", "render", (column(290, DRAW_CREATURES, CREATURES_LOOK),)),
        (
            Group("Result", "result", (column(440, Large("14", 420)),)),
            Group("Attention", "result", (column(440, Large("15", 200), Large("16", 300)),)),
        ),
    ),),
    random_seeds=("12",),
)

FIND_CREATURES_START = Note("Start here", f"""\
**Press Run.** Creatures of eight species are drawn into *input/creature_species*, and **Find Parts** tells \
their parts apart without being told that there are any: each has its color.

For your own pictures, open {title_of("find_the_parts_sd15")}.""")

FIND_CREATURES_LABEL = Note("Masks and words", f"""\
The same parts in a creature of mixed species, which was not there before. Below stand words for a prompt, \
which need a training: {title_of("train_part_words")}.""")

FIND_CREATURES = Layout(
    rows=((
        Group("Start", "models", (column(280, FIND_CREATURES_START, "1", Large("2", 420)),)),
        Group("Find", "train", (column(400, Large("3", 560), Large("4", 240), FIND_NAMES),)),
        Group("Creature", "pictures", (column(280, "5", Large("6", 280)),)),
        Group("Label", "render", (column(345, Large("7", 420), "8", FIND_CREATURES_LABEL),)),
        Group("Result", "result", (column(345, Large("9", 480)),)),
    ),),
)

TRAIN_CREATURES_START = Note("Start here", f"""\
**Press Run: from pictures to words for their parts.** Creatures of eight species are drawn into \
*input/creature_species*, a folder for each. Their parts are found, and each gets a word for each species.

**Cancel** whenever you like: Run resumes from there. For your own pictures, open \
{title_of("train_part_words_sd15")}.""")

TRAIN_CREATURES_WORDS = Note("Your words", """\
They count from 0: part, then species, in the order of the alphabet. Look at the sheet of **Find Parts** for \
the parts, name them in **part_names** before the training, and write words such as \\<horns:ember\\>.

600 steps give a first impression; the bundled words were trained longer.""")

DRAW_OWN_CREATURES = Folded(
    "Draw with part words", "7 8 9 10 11 12",
    shown="prompt=8.text negative_prompt=9.text strength=7.strength pictures=10.batch_size steps=11.steps "
          "cfg=11.cfg seed=11.seed",
    outputs="image=12.0",
)

TRAIN_CREATURES = Layout(
    rows=((
        Group("Start", "models", (column(280, TRAIN_CREATURES_START, "1", "2", Large("3", 380)),)),
        Group("Find", "train", (column(330, Large("4", 480), Large("5", 240)),)),
        Group("Train", "train", (column(400, Large("6", 700),),)),
        (
            Group("Draw", "render", (column(340, DRAW_OWN_CREATURES, TRAIN_CREATURES_WORDS),)),
            Group("Result", "result", (column(340, Large("13", 400)),)),
        ),
    ),),
    random_seeds=("11",),
)

LAYOUTS = {
    "find_the_parts": FIND_CREATURES, "find_the_parts_sd15": FIND, "part_words": CREATURE_WORDS,
    "part_words_sd15": WORDS, "train_part_words": TRAIN_CREATURES, "train_part_words_sd15": TRAIN,
}
