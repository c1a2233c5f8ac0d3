"""The layout of the graphs that insert objects, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column, title_of
from dev.subgraphs import Folded

FILES = Note("Files", """\
Two commands, run in the folder of this pack; the second writes the UNet as ComfyUI loads it. M is your \
models folder.

**python -m pit download object-insertion --models M**

**python -m pit convert M/object_insertion/unet.safetensors \
M/diffusion_models/object_insertion_unet.safetensors**""")

ONE_START = Note("Start here", """\
**The object stands in the scene.** The model finds the place by itself: no mask, no box, no words.

For your own pictures, put **Load Image** in place of *Scene* and *Object*: the object on white, or with its \
mask connected to **object_mask**. The seed changes after every run.""")

ONE_TRY = Note("What to try", """\
The object does not appear: raise **guidance**. The scene changes: raise **image_guidance**, or connect a \
mask to **region**, outside of which every pixel is kept. As published: 100 **steps**.""")

MANY_START = Note("Start here", """\
**Several objects, several pictures, one run.** Each of two objects is inserted twice; then another goes \
into all four pictures.

**variants** is how many pictures of each object. For your own, put **Load Image** in place of the \
examples.""")

MANY_TRY = Note("One after another", """\
The result of the first insertion is the scene of the second. For more, copy *Insert another object* \
and connect its **scene** to the last image.""")

INSERT = Folded(
    "Insert an object", "10 11 1 2 3 4 12 13 14 15 16 17",
    shown="unet_name=1.unet_name vae_name=2.vae_name clip_name=3.clip_name optimizer=4.file "
          "guidance=11.guidance image_guidance=11.image_guidance steps=12.steps seed=14.noise_seed",
    sockets="object=10.image object_mask=10.mask scene=11.scene region=11.region", outputs="image=17.0",
)


def insertion(title: str, encode: str, insert: str, rest: str) -> Folded:
    """One insertion with models and settings from outside; `rest` is noise, sampler, decoder, put back."""
    noise, _, _, back = rest.split()
    return Folded(
        title, f"{encode} {insert} {rest}",
        shown=f"variants={encode}.variants guidance={insert}.guidance "
              f"image_guidance={insert}.image_guidance seed={noise}.noise_seed",
        sockets=f"object={encode}.image object_mask={encode}.mask scene={insert}.scene "
                f"region={insert}.region", outputs=f"image={back}.0",
    )


ONE = Layout(
    rows=((
        Group("Start", "models", (column(320, ONE_START, FILES),)),
        Group("Pictures", "pictures", (column(280, "5", Large("8", 260), "6", Large("9", 200)),)),
        Group("Insert", "render", (column(360, INSERT, ONE_TRY),)),
        Group("Result", "result", (column(460, Large("18", 600)),)),
    ),),
    random_seeds=("14",),
)

MANY = Layout(
    rows=((
        Group("Start", "models", (column(300, MANY_START, FILES),)),
        Group("Models", "models", (column(290, "1", "2", "3", Large("4", 170), "14", "15"),)),
        Group("Pictures", "pictures", (
            column(230, "5", Large("9", 150), "6", Large("10", 150), "8", Large("11", 150)),
        )),
        (
            Group("One in each", "render", (
                column(300, insertion("Insert objects", "12", "13", "16 17 18 19")),
            )),
            Group("Then another", "render", (
                column(300, insertion("Insert another object", "21", "22", "23 24 25 26"), MANY_TRY),
            )),
        ),
        Group("Result", "result", (column(400, Large("20", 440), Large("27", 440)),)),
    ),),
    random_seeds=("16",),
)

DEMO_START = Note("Start here", f"""\
**Press Run.** The object stands in the scene, where there is room for it: no mask, no box, no words.

Change first: **first_thing** of *Creature Scene*, for another object, or its **scene**. \
For photos, open {title_of("insert_an_object_sd15")}.""")

DEMO_TRY = Note("What to try", """\
Another **seed** is another try; it changes after every run. A wrong object: raise **guidance**. A changed \
scene: lower it, or connect a mask to **region**, outside of which every pixel is kept.""")

DEMO_INSERT = Folded(
    "Insert into the scene", "6 7 8 9 10 11 12 13",
    shown="guidance=7.guidance image_guidance=7.image_guidance steps=8.steps seed=10.noise_seed",
    sockets="object=6.image object_mask=6.mask scene=7.scene region=7.region", outputs="image=13.0",
)

DEMO_ONE = Layout(
    rows=((
        Group("Start", "models", (column(280, DEMO_START, "1"),)),
        Group("Drawn", "pictures", (column(270, "2", "3"),)),
        Group("Pictures", "pictures", (column(250, Large("4", 270), Large("5", 230)),)),
        Group("Insert", "render", (column(320, DEMO_INSERT, DEMO_TRY),)),
        Group("Result", "result", (column(440, Large("14", 520)),)),
    ),),
    random_seeds=("10",),
)

DEMO_MANY_START = Note("Start here", """\
**Press Run.** Each of two objects is inserted twice; then another one goes into all four pictures.

Change first: the things of *Scene and two objects* and *Another object*. **variants** is how many pictures \
of each object there are.""")

DEMO_MANY_TRY = Note("One after another", """\
The result of the first insertion is the scene of the second: beside these creatures, there is room for two \
things.""")

DEMO_MANY = Layout(
    rows=((
        Group("Start", "models", (column(270, DEMO_MANY_START, "1", "2", "8", "9"),)),
        Group("Drawn", "pictures", (column(270, "3", "4"),)),
        Group("Pictures", "pictures", (column(220, Large("5", 220), Large("6", 200), Large("7", 200)),)),
        (
            Group("One in each", "render", (
                column(300, insertion("Insert objects", "10", "11", "12 13 14 15")),
            )),
            Group("Then another", "render", (
                column(300, insertion("Insert another object", "17", "18", "19 20 21 22"), DEMO_MANY_TRY),
            )),
        ),
        Group("Result", "result", (column(400, Large("16", 440), Large("23", 440)),)),
    ),),
    random_seeds=("12",),
)

LAYOUTS = {
    "insert_an_object": DEMO_ONE, "insert_many": DEMO_MANY, "insert_an_object_sd15": ONE,
    "insert_many_sd15": MANY,
}
