"""The layout of the graphs with directions and saved tokens, and what their notes say."""

from __future__ import annotations

from dev.layouts import (
    Group,
    Large,
    Layout,
    Note,
    column,
    numbers,
    parts_to_concept,
    render_concept,
    title_of,
)
from dev.subgraphs import Folded

FIND_START = Note("Start here", """\
**Press Run.** From 32 creatures without wings and 32 with wings a direction is found, which gives wings to \
another creature.

Change first: the same **difference** in both **Creature Kinds**, **count**, and the **amounts**.

For your own pictures, set **pictures** of **Find IP+ Direction** to *folders*, with one folder for each \
kind in ComfyUI's *input*.""")

FIND_KEPT = Note("Saved", f"""\
The direction goes to models/ip_directions. Press **R**, and **Load IP+ Direction** lists it in any graph, \
such as {title_of("edit_by_direction")}.""")

STRIP_SIZE = Note("How many", """\
There is one picture for each of the **amounts**. All start from the same noise, so only the edit changes \
them.""")


def render(first: int) -> Folded:
    """The subgraph that draws tokens, of nodes that follow one another; `first` is Apply IP+ Tokens."""
    apply, prompt, negative, latent, noise, sampler, decode = numbers(first, 7)
    return render_concept(apply, prompt, negative, latent, sampler, decode, noise)


FIND = Layout(
    rows=((
        Group("Start", "models", (column(280, FIND_START, "1"),)),
        Group("Kinds", "pictures", (column(270, "2", "5", "6"),)),
        Group("Direction", "concept", (column(350, Large("3", 500), Large("4", 160), FIND_KEPT),)),
        (
            Group("Edit", "concept", (column(300, "7", STRIP_SIZE),)),
            Group("Render", "render", (column(300, render(8)),)),
        ),
        Group("Strip", "result", (column(390, Large("15", 410), Large("16", 310)),)),
    ),),
)

EDIT_START = Note("Start here", """\
**Press Run.** One concept is moved along two directions at once, by five amounts: round and cold on the \
left, tall and warm on the right.

Change first: the two directions (ten come with the creature models), how they are joined, and the \
**amounts**, for example -1 to 1 in 9.""")

EDIT_UNITS = Note("Units", """\
*raw* measures in lengths of the direction itself. A single direction from **Find IP+ Direction** also has \
*standard deviations* and a *recommended* amount.""")

EDIT = Layout(
    rows=((
        Group("Start", "models", (column(280, EDIT_START, "1"),)),
        Group("Parts", "pictures", (column(250, "2"),)),
        Group("Directions", "concept", (column(300, Large("5", 160), Large("6", 160), "7", "8"),)),
        (
            Group("Concept", "concept", (column(300, parts_to_concept("3", "4", "A concept")),)),
            Group("Render", "render", (column(300, render(9)),)),
        ),
        Group("Strip", "result", (column(420, Large("16", 410), Large("17", 310), EDIT_UNITS),)),
    ),),
)

LIBRARY_START = Note("Start here", """\
**Press Run.** Three concepts from files are drawn, and two that are made from them: the first with what \
tells the second from the third, and the one half-way between those two.

**Save IP+ Tokens** writes to models/ip_tokens. Press **R**, and **Load IP+ Tokens** lists it \
in any graph.""")

LIBRARY_SIZE = Note("How many", """\
Five concepts go into **Batch Concepts**, so there are five pictures, and five lines of **labels**.""")

LIBRARY = Layout(
    rows=((
        (
            Group("Start", "models", (column(290, LIBRARY_START, "1"),)),
            Group("Load", "pictures", (column(290, Large("2", 160), Large("3", 160), Large("4", 160)),)),
        ),
        Group("Make", "concept", (column(300, "5", "6", "7", Large("8", 160)),)),
        Group("Render", "render", (column(300, render(9), LIBRARY_SIZE),)),
        Group("Strip", "result", (column(420, Large("16", 410), Large("17", 310)),)),
    ),),
)

LAYOUTS = {"edit_by_direction": EDIT, "find_a_direction": FIND, "token_library": LIBRARY}
