"""The layout of the graphs that make pictures for pOps operators to learn from, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

SAMPLER, DETECT, LATENT, PROMPT = 280, 250, 110, 110  # heights of nodes
SAVED = 330

FILES = """\
Choose your SDXL checkpoint. ComfyUI's page offers all files when it opens this graph: SAM3 (1.7 GB) finds \
things by their names{more}."""

RUNS = """\
**Press Run: one example is made.** Its pictures go to `output/pops_datasets/{folder}`, under names that \
**Train pOps Operator** understands. The seed of **pOps Dataset Prompts** changes after every run, so the \
next one adds another example. An operator needs thousands: set the number of runs next to Run, and let it \
work overnight.

{what}

For your own **things** and **places**, write one on each line; nothing uses the lists of the pack."""

NOT_FOUND = Note("Not found", height=110, text="""\
An empty mask means that SAM3 did not find it. The training leaves such an example out and says so; nothing \
has to be deleted.""")

TURBO = Note("Faster", height=110, text="""\
Size, steps and **cfg** are for SDXL. Turbo and Lightning need 4 steps and **cfg** 1; the published pictures \
were made by Turbo, in one step.""")


def files_note(more: str, height: int) -> Note:
    return Note("Files", FILES.format(more=more), height)


def start(folder: str, what: str, height: int) -> Note:
    return Note("Start here", RUNS.format(folder=folder, what=what), height)


TEXTURE_VARIANTS = Note("The same shape", height=130, text="""\
The depth of the first picture goes into every variant. A lower **strength** of **Apply ControlNet** gives \
the material more freedom, a higher one keeps the shape better.""")

TEXTURE = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(340, (
            start("my_textures", "An object is drawn, found and drawn again in **variants** other materials. "
                  "The training cuts the patches itself.", 330),
            ("5", 440),
        )),)),
        Group("Models", 420, 0, (Stack(320, (
            files_note(", Depth Anything 3 and a ControlNet (2.5 GB) keep their shape", 130), ("1", 100),
            ("2", 100), ("3", 90), ("4", 60),
        )),)),
        Group("Picture", 820, 0, (
            Stack(300, (("6", PROMPT), ("7", PROMPT), ("8", LATENT), TURBO)),
            Stack(280, (("9", SAMPLER), ("10", 50))),
        )),
        Group("Mask", 1500, 0, (Stack(300, (("11", PROMPT), ("12", DETECT), ("19", 30), NOT_FOUND)),)),
        Group("Depth", 1880, 0, (Stack(300, (("13", 150), ("14", 140))),)),
        Group("Variants", 2260, 0, (
            Stack(300, (("15", PROMPT), ("16", 190), TEXTURE_VARIANTS)),
            Stack(280, (("17", SAMPLER), ("18", 50))),
        )),
        Group("Save", 2940, 0, (Stack(300, (("20", SAVED), ("21", SAVED))), Stack(480, (("22", 730),)))),
    ),
    random_seeds=("5",),
)

SCENE_EMPTY = Note("Without the object", height=150, text="""\
**Grow Mask** makes room for shadows; the mask that is saved is the one that was found. The model, 20 steps \
and **cfg** 8 are the published ones. Pictures of other places in a folder `backgrounds` beside \
the pictures stand behind half of the objects.""")

SCENE = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(340, (
            start("my_scenes", "An object is drawn in a scene and found, and the scene is drawn without it.",
                  330),
            ("4", 370),
        )),)),
        Group("Models", 420, 0, (Stack(320, (
            files_note(", and SDXL for inpainting (5.1 GB) empties the scene", 130), ("1", 100), ("2", 100),
            ("3", 90),
        )),)),
        Group("Picture", 820, 0, (
            Stack(300, (("5", PROMPT), ("6", PROMPT), ("7", LATENT), TURBO)),
            Stack(280, (("8", SAMPLER), ("9", 50))),
        )),
        Group("Mask", 1500, 0, (
            Stack(300, (("10", PROMPT), ("11", DETECT), ("12", 90), ("17", 30), NOT_FOUND)),
        )),
        Group("Empty scene", 1880, 0, (
            Stack(300, (("13", PROMPT), ("14", 140), SCENE_EMPTY)),
            Stack(280, (("15", SAMPLER), ("16", 50))),
        )),
        Group("Save", 2560, 0, (Stack(300, (("18", SAVED), ("19", SAVED))), Stack(480, (("20", 730),)))),
    ),
    random_seeds=("4",),
)

UNION_SORT = Note("Worth a look", height=150, text="""\
Delete pictures whose things overlap, or of which one is hardly to be seen; their cut-outs are left out \
then. The published script keeps those whose boxes overlap by a tenth at most.""")

UNION = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(340, (
            start("my_unions", "Two things are drawn in one picture, found, and cut out.", 310), ("3", 370),
        )),)),
        Group("Models", 420, 0, (Stack(320, (files_note("", 110), ("1", 100), ("2", 100))),)),
        Group("Picture", 820, 0, (
            Stack(300, (("4", PROMPT), ("5", PROMPT), ("6", LATENT), TURBO)),
            Stack(280, (("7", SAMPLER), ("8", 50))),
        )),
        Group("First thing", 1500, 0, (Stack(300, (("9", PROMPT), ("10", DETECT), ("11", 30), ("12", 50))),)),
        Group("Second thing", 1880, 0, (
            Stack(300, (("13", PROMPT), ("14", DETECT), ("15", 30), ("16", 50), NOT_FOUND)),
        )),
        Group("Save", 2260, 0, (
            Stack(300, (("18", SAVED), ("19", SAVED))), Stack(480, (("17", 560), UNION_SORT)),
        )),
    ),
    random_seeds=("3",),
)

LAYOUTS = {
    "make_texture_pairs_sdxl": TEXTURE, "make_scene_pairs_sdxl": SCENE, "make_union_pairs_sdxl": UNION,
}
