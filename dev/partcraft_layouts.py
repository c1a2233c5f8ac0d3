"""The layout of the graphs with part words, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

DOWNLOAD = "One command, run in the folder of this pack, downloads the other files"


def files_note(names: str, height: int, more: str = "") -> Note:
    """Which files a graph with Stable Diffusion 1.5 needs, and the command that fetches them."""
    return Note("Files", height=height, text=(
        f"Choose your checkpoint of Stable Diffusion 1.5. {DOWNLOAD}{more}:\n\n"
        f"`python -m pit download {names} --models /path/to/ComfyUI/models`"
    ))


WORDS_FILES = files_note("partcraft-cub", 190, (
    ", also the LoRA that has to lie beside the words (for dogs, *partcraft-dogs*)"
))

WORDS_START = Note("Start here", height=270, text="""\
**The head of one bird, the wings of another.** Each **Part Words** adds a part of a species to the text; \
choose others from the lists, or mix two of them by **mixed_with**.

You can also write the words yourself, in any **CLIP Text Encode** behind **Apply PartCraft**, in negative \
prompts too: `<head:cardinal>`, `(<wing:blue jay>:1.2)`, `<body:mallard|cardinal>`.

The seed of **KSampler** changes after every run.""")

WORDS_PICK = Note("More words, other things", height=150, text="""\
Copy a **Part Words** for a further part, such as the tail, and put it into the chain.

Write behind the words what has these parts: `a photo of a <head:cardinal> <wing:blue jay> teddy bear`.""")

WORDS_LOOK = Note("Where it looks", height=150, text="""\
**Part Attention Maps** shows, for each picture and each word, where the model looked while it drew.

It takes some time in each step: leave both nodes out if you do not need them.""")

WORDS = Layout(
    groups=(
        Group("Models", 0, 0, (Stack(320, (WORDS_FILES, ("1", 100), ("2", 150))),)),
        Group("Words", 400, 0, (
            Stack(300, (WORDS_START, WORDS_PICK)), Stack(280, (("4", 270), ("5", 270))),
            Stack(280, (("6", 270), ("3", 180))),
        )),
        Group("Render", 1420, 0, (
            Stack(280, (("7", 100), ("8", 110), ("9", 110))),
            Stack(280, (("10", 110), ("11", 290), ("12", 50))),
        )),
        Group("Result", 400, 760, (Stack(480, (("13", 480),)),)),
        Group("Attention", 960, 760, (Stack(300, (WORDS_LOOK, ("14", 260))), Stack(480, (("15", 480),)))),
    ),
    random_seeds=("11",),
)

FIND_FILES = Note("Files", height=150, text=(
    "Only DINOv2 is needed, 346 MB. One command, run in the folder of this pack, downloads it:\n\n"
    "`python -m pit download dinov2-base --models /path/to/ComfyUI/models`"
))

FIND_START = Note("Start here", height=290, text="""\
**Press Run.** A hundred creatures that the pack draws are looked at, and **Find Parts** tells their parts \
apart without being told that there are any: each has its color.

For your own pictures, put 100 or more of one kind of thing into a folder in ComfyUI's `input`, press **R**, \
set **pictures** of **Find Parts** to *folder*, and choose it. **Load Image** takes the place of *Others to \
label*.

A picture takes a few seconds on a CPU.""")

FIND_NAMES = Note("Names", height=210, text="""\
Look at the sheet, and write what the parts are into **part_names**, in their order: `head, , wing`.

Is the background in color, and the thing dark? Choose the other cluster in **foreground** (among the \
advanced inputs of **Find Parts**).

**Load Part Clusters** brings the saved file into other graphs.""")

FIND_LABEL = Note("Masks and words", height=170, text="""\
**Label Parts** finds the same parts in other pictures. Below it stand the words of each picture, which a \
prompt understands after a training (template *train_part_words_sd15*).

Write names into **parts** for the masks of these alone.""")

FIND = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(320, (FIND_START,)), Stack(280, (FIND_FILES, ("1", 60))))),
        Group("Pictures", 720, 0, (Stack(360, (("2", 150), ("3", 300))),)),
        Group("Find", 1160, 0, (Stack(480, (("4", 560),)), Stack(300, (("5", 230), FIND_NAMES)))),
        Group("Label", 440, 710, (
            Stack(280, (("6", 150), ("7", 270))), Stack(360, (("8", 480),)),
            Stack(300, (FIND_LABEL, ("9", 50))), Stack(480, (("10", 480),)),
        )),
    ),
    random_seeds=(),
)

TRAIN_FILES = files_note("dinov2-base", 190)

TRAIN_START = Note("Start here", height=410, text="""\
**From a folder of pictures to words for their parts.** Put 100 or more pictures of one kind of thing into \
the folder `my_pictures` in ComfyUI's `input`, and press **R**: then **Find Parts** and **Train PartCraft** \
offer it. Press Run.

**Train PartCraft** shows the loss, and what is drawn from the words of some pictures, while it learns. \
**Cancel** whenever you like: Run resumes from there. A finished training is not repeated.

Try first whether the parts make sense: template *find_the_parts_sd15*.""")

TRAIN_SIZES = Note("How long", height=170, text="""\
2,000 steps are for about a hundred pictures. The preset *small card* needs the least memory.

Are the folders in your folder classes, such as species? Set **codes_by** (advanced) to *folders*, and the \
words have their names.""")

TRAIN_WORDS = Note("Your words", height=210, text="""\
`<1:1>` is code 1 of part 1, both counted from 0. With names in **part_names** of **Save Part Clusters**, \
before the training, it is `<wing:2>`: there, codes are counted from 1.

To use the words later, put **Load PartCraft** in place of the training; **Part Words** then lists them.""")

TRAIN = Layout(
    groups=(
        Group("Start", 0, 0, (
            Stack(320, (TRAIN_START,)), Stack(280, (TRAIN_FILES, ("1", 100), ("2", 60))),
        )),
        Group("Find", 720, 0, (Stack(400, (("3", 480),)), Stack(300, (("4", 230), TRAIN_SIZES)))),
        Group("Train", 1560, 0, (Stack(580, (("5", 1200),)),)),
        Group("Render", 0, 640, (
            Stack(300, (("6", 180), ("7", 100), ("8", 110))),
            Stack(280, (("9", 110), ("10", 290), ("11", 50))),
            Stack(280, (TRAIN_WORDS,)), Stack(520, (("12", 560),)),
        )),
    ),
    random_seeds=("10",),
)

LAYOUTS = {"find_the_parts_sd15": FIND, "part_words_sd15": WORDS, "train_part_words_sd15": TRAIN}
