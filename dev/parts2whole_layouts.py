"""The layout of the graph that dresses a figure, and what its notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column
from dev.piece_layouts import files
from dev.subgraphs import Folded

FILES = files(
    "parts2whole clothes-segmenter",
    "Choose your checkpoint of Stable Diffusion 1.5: it draws the first pictures and reads the labels. ",
)

START = Note("Start here", """\
**The face of one picture in the clothes of another.** Two pictures are drawn; **Clothes Parser** finds \
face, hair and clothes in them, and Parts2Whole puts these together.

For your own, connect **Load Image** in place of *Draw two pictures*. The seed of **Dress a figure** changes \
after every run.""")

PARTS = Note("Parts", """\
A **Reference Part** is a picture, a label that no other has, and a mask. Missing in the result: raise its \
**strength**. Too much comes along: mask it out.""")

POSE_NOTE = Note("To choose the pose", """\
Switched off: the model chooses. Load a **DensePose** map (colored, on black) in the aspect of the picture, \
then select both nodes and press **Ctrl+B**. ComfyUI has no node that makes such maps.""")
POSE = {
    "25": {
        "class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "DensePose map"},
    },
    "26": {"class_type": "PiT_PoseMap", "inputs": {
        "parts2whole": ["4", 1], "image": ["25", 0], "latent": ["8", 0], "strength": 1.0,
    }, "_meta": {"title": "Pose Map"}},
}
"""Nodes that are bypassed, in the format of the API, which leaves them out."""

DRAW = Folded(
    "Draw two pictures", "5 6 7 8 9 10 11 12",
    shown="first_prompt=5.text second_prompt=6.text width=8.width height=8.height steps=9.steps seed=9.seed",
    outputs="first=11.0 second=12.0 latent=8.0",
)
DRESSED = Folded(
    "Dress a figure", "19 18 20 21 22 23",
    shown="prompt=20.text negative_prompt=21.text image_weight=19.image_weight steps=22.steps cfg=22.cfg "
          "seed=22.seed",
    sockets="pose=19.pose part_1=18.references.reference0 part_2=18.references.reference1 "
            "part_3=18.references.reference2 part_4=18.references.reference3",
    outputs="image=23.0",
)

DRESS = Layout(
    rows=((
        Group("Models", "models", (column(280, START, "1", "2", "3", "4", FILES),)),
        Group("Pictures", "pictures", (column(280, DRAW, Large("13", 260), Large("14", 260)),)),
        Group("Parts", "pictures", (column(260, "15", "16", "17", PARTS),)),
        (
            Group("Dress", "render", (column(300, DRESSED),)),
            Group("Pose (switched off)", "render", (column(300, "26", POSE_NOTE),)),
        ),
        (
            Group("Result", "result", (column(360, Large("24", 480)),)),
            Group("Pose map (switched off)", "pictures", (column(360, Large("25", 300)),)),
        ),
    ),),
    random_seeds=("22",),
    bypassed=POSE,
    detours={("19", "pose"): ("26", 0)},
)

LAYOUTS = {"dress_a_figure_sd15": DRESS}
