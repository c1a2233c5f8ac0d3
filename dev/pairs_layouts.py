"""The layout of the graphs that make pictures for pOps operators to learn from, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column, numbers
from dev.subgraphs import Folded

SAVED = 300  # height of a node that saves


def files_note(more: str) -> Note:
    return Note("Files", (
        "Choose your SDXL checkpoint. ComfyUI's page offers all files when it opens this graph: SAM3 (1.7 "
        f"GB) finds things by their names{more}."
    ))


def start(folder: str, what: str) -> Note:
    return Note("Start here", f"""\
**Press Run: one example is made**, in output/pops_datasets/{folder}. {what}

The seed changes after every run, so the next one adds another. An operator needs thousands: set the number \
of runs next to Run. For your own **things** and **places**, write one on each line.""")


NOT_FOUND = Note("Not found", """\
An empty mask means that SAM3 did not find it. The training leaves such an example out and says so.""")

TURBO = Note("Faster", """\
Steps and **cfg** are for SDXL. Turbo and Lightning need 4 steps and **cfg** 1.""")


def draw(first: int, outputs: str = "") -> Folded:
    """The subgraph that draws a picture, of the nodes from `first` on."""
    prompt, negative, latent, sampler, decode = numbers(first, 5)
    return Folded(
        "Draw the picture", f"{prompt} {negative} {latent} {sampler} {decode}",
        shown=f"negative_prompt={negative}.text width={latent}.width height={latent}.height "
              f"steps={sampler}.steps cfg={sampler}.cfg",
        outputs=f"image={decode}.0 {outputs}",
    )


TEXTURE = Layout(
    rows=((
        Group("Start", "models", (
            column(320, start("my_textures", "An object is drawn, found, and drawn again in **variants** "
                              "other materials."), "5"),
        )),
        Group("Models", "models", (
            column(290, files_note(", Depth Anything 3 and a ControlNet (2.5 GB) keep their shape"),
                   "1", "2", "3", "4"),
        )),
        (
            Group("Picture", "render", (column(320, draw(6, "negative=7.0 latent=8.0"), TURBO),)),
            Group("Mask", "pictures", (column(320, Folded(
                "Find the object", "11 12 19", shown="threshold=12.threshold", outputs="mask=19.0",
            ), NOT_FOUND),)),
        ),
        Group("Variants", "render", (column(310, Folded(
            "Draw the variants", "13 14 15 16 17 18",
            shown="strength=16.strength steps=17.steps cfg=17.cfg", outputs="images=18.0",
        ), Note("The same shape", """\
The depth of the first picture goes into every variant. A lower **strength** gives the material more \
freedom.""")),)),
        Group("Save", "result", (column(320, Large("20", SAVED), Large("21", 200), Large("22", SAVED)),)),
    ),),
    random_seeds=("5",),
)

SCENE = Layout(
    rows=((
        Group("Start", "models", (
            column(320, start("my_scenes", "An object is drawn in a scene and found, and the scene is drawn "
                              "without it."), "4"),
        )),
        Group("Models", "models", (
            column(290, files_note(", and SDXL for inpainting (5.1 GB) empties the scene"), "1", "2", "3"),
        )),
        (
            Group("Picture", "render", (column(320, draw(5, "negative=6.0"), TURBO),)),
            Group("Mask", "pictures", (column(320, Folded(
                "Find the object", "10 11 17", shown="threshold=11.threshold",
                outputs="mask=11.0 picture=17.0",
            ), NOT_FOUND),)),
        ),
        Group("Empty scene", "render", (column(310, Folded(
            "Empty the scene", "12 13 14 15 16", shown="grow=12.expand steps=15.steps cfg=15.cfg",
            outputs="image=16.0",
        ), Note("Without the object", """\
**grow** makes room for shadows; the mask that is saved is the one that was found. 20 steps and **cfg** 8 \
are published. A folder *backgrounds* with pictures of places stands behind half of the objects.""")),)),
        Group("Save", "result", (column(320, Large("18", SAVED), Large("19", 200), Large("20", SAVED)),)),
    ),),
    random_seeds=("4",),
)


def cut_out(title: str, first: int) -> Folded:
    """The subgraph that finds a thing and cuts it out, of the nodes from `first` on."""
    _, detect, _, join = numbers(first, 4)
    return Folded(title, " ".join(numbers(first, 4)), shown=f"threshold={detect}.threshold",
                  outputs=f"image={join}.0")


UNION = Layout(
    rows=((
        Group("Start", "models", (
            column(320, start("my_unions", "Two things are drawn in one picture, found, and cut out."), "3"),
        )),
        Group("Models", "models", (column(290, files_note(""), "1", "2"),)),
        Group("Picture", "render", (column(310, draw(4), TURBO),)),
        (
            Group("Things", "pictures", (
                column(300, cut_out("Cut out the first thing", 9), cut_out("Cut out the second thing", 13),
                       NOT_FOUND),
            )),
        ),
        Group("Save", "result", (
            column(320, Large("17", SAVED), Large("18", 200), Large("19", 200), Note("Worth a look", """\
Delete pictures whose things overlap, or of which one is hardly to be seen; their cut-outs are left out \
then.""")),
        )),
    ),),
    random_seeds=("3",),
)

LAYOUTS = {
    "make_texture_pairs_sdxl": TEXTURE, "make_scene_pairs_sdxl": SCENE, "make_union_pairs_sdxl": UNION,
}
