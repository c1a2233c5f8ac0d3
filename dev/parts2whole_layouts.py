"""The layout of the graph that dresses a figure, and what its notes say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

FILES = Note("Files", height=230, text="""\
Choose your checkpoint of Stable Diffusion 1.5: it draws the pictures to start from, and its text encoder \
reads the labels. One command, run in the folder of this pack, downloads the other files:

`python -m pit download parts2whole clothes-segmenter --models /path/to/ComfyUI/models`""")

START = Note("Start here", height=330, text="""\
**The face of one picture in the clothes of another.** Two pictures are drawn; **Clothes Parser** finds \
face, hair and clothes in them, and Parts2Whole puts these together, stitch by stitch.

For your own pictures, put **Load Image** in place of *The first picture* and *The second picture*.

The seed of the last **KSampler** changes after every run; the two pictures stay the same. Its steps, \
sampler and **cfg** are as published.""")

PARTS = Note("Parts", height=270, text="""\
A **Reference Part** is a picture, a label that no other has, and a mask. Copy one for a further part, such \
as shoes, and connect it to **Encode References**: there is always another socket.

A part does not appear: raise its **strength**. A mask is black: the picture does not show it. Too much \
comes along: mask it out.""")

POSE_NOTE = Note("To choose the pose", height=330, text="""\
This group is switched off: without it, the model chooses a pose.

Load a **DensePose** map (the colored one, on black) in the aspect of the picture, then select both nodes \
and press **Ctrl+B**. ComfyUI has no node that makes such maps: take one from the data set \
*DeepFashion-MultiModal-Parts2Whole*, or use Facebook's DensePose.""")
POSE = {
    "25": {
        "class_type": "LoadImage", "inputs": {"image": "example.png"}, "_meta": {"title": "DensePose map"},
    },
    "26": {"class_type": "PiT_PoseMap", "inputs": {
        "parts2whole": ["4", 1], "image": ["25", 0], "latent": ["8", 0], "strength": 1.0,
    }, "_meta": {"title": "Pose Map"}},
}
"""Nodes that are bypassed, in the format of the API, which leaves them out."""

DRESS = Layout(
    groups=(
        Group("Models", 0, 0, (
            Stack(300, (FILES, START)), Stack(260, (("1", 100), ("2", 60), ("3", 60), ("4", 180))),
        )),
        Group("Pictures", 680, 0, (
            Stack(280, (("5", 100), ("9", 270), ("11", 50))),
            Stack(280, (("6", 100), ("10", 270), ("12", 50))),
            Stack(280, (("7", 100), ("8", 110), PARTS)),
        )),
        Group("Pose (switched off)", 1680, 0, (
            Stack(260, (POSE_NOTE,)), Stack(260, (("25", 290), ("26", 250))),
        )),
        Group("Parts", 0, 760, (
            Stack(260, (("13", 500),)), Stack(260, (("14", 500),)),
            Stack(260, (("15", 130), ("16", 130), ("17", 130))),
        )),
        Group("Encode", 940, 760, (Stack(300, (("18", 500),)),)),
        Group("Render", 1320, 760, (
            Stack(280, (("19", 160), ("20", 100), ("21", 100))),
            Stack(260, (("22", 290), ("23", 50))),
            Stack(300, (("24", 500),)),
        )),
    ),
    random_seeds=("22",),
    bypassed=POSE,
    detours={("19", "pose"): ("26", 0)},
)

LAYOUTS = {"dress_a_figure_sd15": DRESS}
