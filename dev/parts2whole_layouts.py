"""The layout of the graphs that make a whole of references and a pose, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column, columns, title_of
from dev.piece_layouts import files
from dev.subgraphs import Folded

FILES = files(
    "parts2whole clothes-segmenter",
    "Choose your checkpoint of Stable Diffusion 1.5: it draws the first pictures and reads the labels. ",
    "ComfyUI's page offers only some of the files.",
)

START = Note("Start here", """\
**The face of one picture in the clothes of another.** Two pictures are drawn; **Clothes Parser** finds \
face, hair and clothes in them, and Parts2Whole puts these together.

For your own, keep *Draw two pictures* for its **latent**, and connect two **Load Image** in place of its \
**first** and **second**. The seed of **Dress a figure** changes \
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

WEAR_START = Note("Start here", f"""\
**Press Run.** The body of one creature, the wings of another and the horns of a third come together in the \
pose of a fourth, four times.

Change first: the **seed** of a part, for that of another creature. For people, open \
{title_of("dress_a_figure_sd15")}.""")

WEAR_PARTS = Note("Parts", """\
Each is a picture, a mask and a word: *body, eyes, mouth, horns, ears, wings, arms, legs* or *tail*. To give \
another part, open its subgraph: change the switch and **words**. For more, copy one and connect it.""")

WEAR_POSE = Note("The pose", """\
A label map: a color for each part. What is given takes its shape from the references, everything else from \
the map. Try **view**, or draw a map of your own in these colors.""")


def part_of(name: str, drawn: str, reference: str) -> Folded:
    """A creature, and one of its parts as a reference."""
    return Folded(
        name, f"{drawn} {reference}", shown=f"seed={drawn}.seed strength={reference}.strength",
        outputs=f"reference={reference}.0 picture={drawn}.2",
    )


def numbered(name: str, count: int) -> list[str]:
    """The name with the numbers from 1 on."""
    return [f"{name}_{number}" for number in range(1, count + 1)]


def drawn_whole(encode: str, *slots: str) -> Folded:
    """What reads references and draws the whole, of the nodes from the encoding on."""
    first = int(encode)
    _, apply, prompt, negative, sampler, decode = (str(first + number) for number in range(6))
    sockets = " ".join(f"{slot}={encode}.references.reference{number}" for number, slot in enumerate(slots))
    return Folded(
        "Draw the whole", f"{encode} {apply} {prompt} {negative} {sampler} {decode}",
        shown=f"prompt={prompt}.text image_weight={apply}.image_weight steps={sampler}.steps "
              f"cfg={sampler}.cfg seed={sampler}.seed",
        sockets=f"pose={apply}.pose {sockets}", outputs=f"image={decode}.0",
    )


WEAR = Layout(
    rows=((
        Group("Start", "models", (column(260, WEAR_START, "1", WEAR_PARTS),)),
        Group("Parts", "pictures", columns(
            190,
            (part_of("A body", "2", "5"), Large("8", 190)),
            (part_of("Wings", "3", "6"), Large("9", 190)),
            (part_of("Horns", "4", "7"), Large("10", 190)),
        )),
        Group("Pose", "pictures", (column(260, Folded(
            "A creature in a pose", "11",
            shown="seed=11.seed view=11.view raise_arms=11.raise_arms raise_wings=11.raise_wings "
                  "lean=11.lean", outputs="label_map=11.3",
        ), Large("13", 260), WEAR_POSE),)),
        (
            Group("Draw", "render", (column(380, "12", drawn_whole("14", *numbered("part", 4))),)),
            Group("Result", "result", (column(380, Large("20", 420)),)),
        ),
    ),),
    random_seeds=("18",),
)

POSED_START = Note("Start here", """\
**Press Run.** One creature is drawn four times, each time in another pose.

Change first: *Which creature*, and the poses, each of which may be seen from the *front*, the *side* or the \
*back*.""")

POSED_REFERENCE = Note("All of it", """\
One reference shows the whole creature: its word is *creature*, and it needs no mask. Single parts of others \
can stand beside it: add **Reference Part** with a mask, and connect it.""")

POSED_MAPS = Note("Your own poses", """\
One map serves all four pictures. Draw it in the colors that you see, one for each part, on \
violet.""")

FOUR_POSES = Folded(
    "Four poses", "5 6 7 8 9",
    shown=" ".join(
        f"{name}_{number}={4 + number}.{name}"
        for number in range(1, 5) for name in ("view", "raise_arms", "raise_wings", "lean")
    ),
    sockets="creature=5.seed", outputs="label_maps=9.0",
)

POSED = Layout(
    rows=((
        Group("Start", "models", (column(270, POSED_START, "1", POSED_MAPS),)),
        Group("Creature", "pictures", (column(270, "2", Folded(
            "A creature", "3 13", sockets="creature=3.seed", outputs="reference=13.0 picture=3.2",
        ), Large("4", 240), POSED_REFERENCE),)),
        Group("Poses", "pictures", (column(300, FOUR_POSES, Large("10", 260)),)),
        Group("Draw", "render", (column(290, "11", "12", drawn_whole("14", "creature", "part")),)),
        Group("Result", "result", (column(400, Large("20", 480)),)),
    ),),
    random_seeds=("18",),
)

LAYOUTS = {"dress_a_figure": WEAR, "creature_in_a_pose": POSED, "dress_a_figure_sd15": DRESS}
