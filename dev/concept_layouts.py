"""The layout of the graphs that explore and blend concepts, and what their notes say."""

from __future__ import annotations

from dev.layouts import SDXL_FILES, SDXL_PARTS, Group, Layout, Note, Stack

EXPLORE_START = Note("Start here", height=330, text="""\
**Press Run.** Parts of one creature become a wall of sixteen creatures; one of them is picked and varied.

Then look at the wall, type the number of the one that you like into **Pick Concepts**, and press Run again. \
Only what has changed is computed: the wall stays, because its seed is fixed.

For another wall, change the parts, or raise the seed of its **IP-Prior Sample** by 16 (its concepts).

For SDXL, open the template *explore_concepts_sdxl*.""")

EXPLORE_PICK = Note("Which number", height=150, text="""\
Count the pictures on the wall from 1, row by row.

To render several at once, type for example `2, 7`. **Vary** takes a single one, or one for each of its \
concepts.""")

EXPLORE_VARY = Note("How far", height=190, text="""\
**strength** is how far the variations move away from the picked one, from 0 (not at all) to 1 (all new). \
Creatures change little below 0.6.

The seed changes after every run, which gives other variations; **concepts** is how many.""")

EXPLORE_NOISE = Note("The same noise", height=110, text="""\
All pictures start from the same noise, so only their concepts make them differ, and the picked one looks \
as it does on the wall.""")

EXPLORE = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (EXPLORE_START, ("1", 130))),)),
        Group("Parts", 380, 0, (Stack(280, (("2", 340),)),)),
        Group("Encode", 740, 0, (Stack(300, (("3", 480),)),)),
        Group("Wall", 1120, 0, (
            Stack(280, (("4", 590), ("5", 180))),
            Stack(280, (("6", 100), ("7", 100), ("8", 110), ("9", 60), ("10", 280), ("11", 50))),
            Stack(480, (("12", 690), EXPLORE_NOISE)),
        )),
        Group("Pick", 0, 1220, (
            Stack(280, (EXPLORE_PICK, ("13", 60), ("14", 180), ("15", 110))),
            Stack(280, (("16", 280), ("17", 50))),
            Stack(360, (("18", 480),)),
        )),
        Group("Vary", 1120, 1220, (
            Stack(280, (("19", 590), EXPLORE_VARY)),
            Stack(280, (("20", 180), ("21", 110), ("22", 60), ("23", 280), ("24", 50))),
            Stack(480, (("25", 690),)),
        )),
    ),
    random_seeds=("19",),
)

EXPLORE_SDXL_SIZES = Note("Small, then large", height=130, text="""\
The wall is rendered small and in few steps, the picked one large and in many. If memory is short, render \
the wall with fewer **concepts**, or at a lower **percent** of the model's own size.""")

EXPLORE_SDXL_PICK = Note("Which number", height=210, text="""\
Look at the wall, type the number of the one that you like, and press Run again. Only what has changed is \
computed: the wall stays, because its seed is fixed.

Count from 1, row by row. To render several at once, type for example `2, 7`. **Vary** takes a single one, \
or one for each of its concepts.""")

EXPLORE_SDXL_VARY = Note("How far", height=170, text="""\
**strength** is how far the variations move away from the picked one, from 0 (not at all) to 1 (all new).

The seed changes after every run, which gives other variations; **concepts** is how many.""")

EXPLORE_SDXL = Layout(
    groups=(
        Group("Models", 0, 0, (Stack(300, (SDXL_FILES, ("1", 100), ("2", 60), ("3", 60), ("4", 90))),)),
        Group("Parts", 380, 0, (
            Stack(280, (SDXL_PARTS,)), Stack(280, (("5", 340), ("6", 330))),
        )),
        Group("Encode", 1060, 0, (Stack(300, (("10", 540),)),)),
        Group("Wall", 1440, 0, (
            Stack(280, (("11", 360), ("12", 180), ("13", 120), ("14", 120))),
            Stack(280, (("15", 110), ("16", 60), ("17", 280), ("18", 50), EXPLORE_SDXL_SIZES)),
            Stack(480, (("19", 520),)),
        )),
        Group("Pick", 0, 1170, (
            Stack(280, (EXPLORE_SDXL_PICK, ("20", 60), ("21", 180), ("22", 110))),
            Stack(280, (("23", 280), ("24", 50))),
            Stack(360, (("25", 400),)),
        )),
        Group("Vary", 1440, 1170, (
            Stack(280, (("26", 360), EXPLORE_SDXL_VARY, ("27", 180))),
            Stack(280, (("28", 110), ("29", 60), ("30", 280), ("31", 50))),
            Stack(480, (("32", 520),)),
        )),
    ),
    random_seeds=("26",),
)

BLEND_START = Note("Start here", height=290, text="""\
**Press Run.** Parts of two creatures become two concepts, and a strip shows what lies between them.

Things to change first:
- **Creature Parts**: the seeds and switches, for other parts.
- The seeds of **The first concept** and **The second concept**, for others with the same parts.
- **Blend Concepts**: its amounts.

For SDXL, open the template *blend_concepts_sdxl*.""")

BLEND_AMOUNTS = Note("How many", height=190, text="""\
There is one picture for each of the **amounts**: set **columns** of the grid to their number.

All pictures start from the same noise, and *euler* adds none, so the strip changes smoothly from one \
concept to the other.""")

BLEND = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (BLEND_START, ("1", 130))),)),
        Group("First", 380, 0, (
            Stack(280, (("2", 340),)), Stack(300, (("3", 480),)), Stack(280, (("4", 590),)),
        )),
        Group("Second", 380, 760, (
            Stack(280, (("5", 340),)), Stack(300, (("6", 480),)), Stack(280, (("7", 590),)),
        )),
        Group("Blend", 1440, 0, (
            Stack(280, (BLEND_AMOUNTS, ("8", 110), ("9", 180))),
            Stack(280, (("10", 100), ("11", 100), ("12", 110), ("13", 60))),
            Stack(280, (("14", 280), ("15", 50), ("16", 130))),
        )),
        Group("Strip", 1440, 790, (Stack(920, (("17", 310),)),)),
    ),
    random_seeds=(),
)

BLEND_SDXL_PARTS = Note("Start here", height=250, text="""\
A strip shows what lies between two concepts. The graph starts with parts that the pack draws; for your \
own, put **Load Image** in their place, one node for each part, **on white**.

**Encode IP+ Parts** always has another socket. Its **reference_slot** is on for the characters prior; turn \
it off for the others.

To blend whole pictures, replace a concept with **Encode IP+ Image**.""")

BLEND_SDXL = Layout(
    groups=(
        Group("Models", 0, 0, (
            Stack(300, (SDXL_FILES, ("1", 100), ("2", 60), ("3", 60), ("4", 90), BLEND_SDXL_PARTS)),
        )),
        Group("First", 380, 0, (
            Stack(280, (("5", 340), ("6", 330))), Stack(300, (("7", 540),)), Stack(280, (("8", 360),)),
        )),
        Group("Second", 380, 880, (
            Stack(280, (("9", 340), ("10", 330))), Stack(300, (("11", 540),)), Stack(280, (("12", 360),)),
        )),
        Group("Blend", 1440, 0, (
            Stack(280, (BLEND_AMOUNTS, ("13", 110), ("14", 180))),
            Stack(280, (("15", 120), ("16", 120), ("17", 110), ("18", 60))),
            Stack(280, (("19", 280), ("20", 50), ("21", 130))),
        )),
        Group("Strip", 1440, 880, (Stack(920, (("22", 310),)),)),
    ),
    random_seeds=(),
)

LAYOUTS = {
    "blend_concepts": BLEND, "blend_concepts_sdxl": BLEND_SDXL, "explore_concepts": EXPLORE,
    "explore_concepts_sdxl": EXPLORE_SDXL,
}
