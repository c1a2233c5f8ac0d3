"""The layout of the graphs that insert objects, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

FILES = Note("Files", height=330, text="""\
Two commands, run in the folder of this pack. The first downloads all files, the second writes the UNet as \
ComfyUI loads it, with `M` for /path/to/ComfyUI/models:

`python -m pit download object-insertion --models M`

`python -m pit convert M/object_insertion/unet.safetensors \
M/diffusion_models/object_insertion_unet.safetensors`

With an InstructPix2Pix of *add-base*, **Patch InstructPix2Pix Bias** and a file of 22 MB will do.""")

ONE_START = Note("Start here", height=330, text="""\
**The object stands in the scene.** The model finds the place by itself: no mask, no box, no words.

The graph starts with a scene and an object that the pack draws. For your own, put **Load Image** in place \
of **Scene and object**: a scene of any size, and an object, best on white or with its mask (ComfyUI's \
**Remove Background** gives one) connected to **Encode Object**.

**RandomNoise** changes after every run.""")

ONE_TRY = Note("What to try", height=190, text="""\
The object does not appear: raise **guidance**. The scene changes: raise **image_guidance**, or connect a \
mask to **region**, outside of which every pixel is kept.

As published: sampler *euler_ancestral*, 100 steps, spacing *as published*.""")

MANY_START = Note("Start here", height=330, text="""\
**Several objects, several pictures, one run.** Each of two objects is inserted twice; then another one goes \
into all four pictures.

**variants** of **Encode two objects** is how many pictures of each object. A batch of scenes goes with one \
object, or with as many.

For your own pictures, put **Load Image** in place of what the pack draws; **other_objects** puts those of \
other sizes together.""")

MANY_TRY = Note("One after another", height=150, text="""\
The result of the first insertion is the scene of the second. To insert more, copy the group *Then another* \
and connect its **scene** to the last **Put Back into Scene**.""")


def models(left: int, top: int) -> Group:
    """The loaders of both graphs."""
    return Group("Models", left, top, (
        Stack(320, (FILES, ("1", 90), ("2", 60), ("3", 60), ("4", 90))),
    ))


ONE = Layout(
    groups=(
        models(0, 0),
        Group("Pictures", 400, 0, (
            Stack(300, (ONE_START,)), Stack(280, (("5", 540),)),
            Stack(280, (("6", 300), ("7", 160))), Stack(280, (("8", 340), ("9", 340))),
        )),
        Group("Encode", 1740, 0, (Stack(280, (("10", 420),)),)),
        Group("Insert", 2100, 0, (
            Stack(280, (("11", 280), ("12", 90), ONE_TRY)),
            Stack(280, (("13", 60), ("14", 90), ("15", 110), ("16", 50), ("17", 60))),
            Stack(480, (("18", 690),)),
        )),
    ),
    random_seeds=("14",),
)

MANY = Layout(
    groups=(
        models(0, 0),
        Group("Pictures", 400, 0, (
            Stack(300, (MANY_START,)), Stack(280, (("5", 540),)),
            Stack(280, (("6", 300), ("7", 160), ("8", 300))),
            Stack(280, (("9", 260), ("10", 260), ("11", 260))),
        )),
        Group("One in each", 1740, 0, (
            Stack(280, (("12", 420), ("14", 90), ("15", 60))),
            Stack(280, (("13", 280), ("16", 90), ("17", 110), ("18", 50), ("19", 60))),
            Stack(480, (("20", 690),)),
        )),
        Group("Then another", 1740, 1000, (
            Stack(280, (("21", 420), MANY_TRY)),
            Stack(280, (("22", 280), ("23", 90), ("24", 110), ("25", 50), ("26", 60))),
            Stack(480, (("27", 690),)),
        )),
    ),
    random_seeds=("16",),
)

LAYOUTS = {"insert_an_object_sd15": ONE, "insert_many_sd15": MANY}
