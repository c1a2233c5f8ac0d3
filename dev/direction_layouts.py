"""The layout of the graphs with directions and saved tokens, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

FIND_START = Note("Start here", height=350, text="""\
**Press Run.** From 32 creatures without wings and 32 with wings, a direction is found, which gives wings to \
a creature that was not among them.

Things to change first:
- **Pictures of two kinds** and **A creature to edit**: the same **difference** in both.
- **count**: how many pictures are used. The chart shows where each lies if it is left out.
- **IP+ Direction Edit**: its amounts.

For your own pictures, set **pictures** of *Find IP+ Direction* to `folders`, with one folder for each kind \
in ComfyUI's input folder.""")

FIND_KEPT = Note("Saved", height=110, text="""\
**Save IP+ Direction** writes `models/ip_directions/my_direction.safetensors`. Press R, and **Load IP+ \
Direction** lists it in any graph.""")

STRIP_SIZE = Note("How many", height=130, text="""\
There is one picture for each of the **amounts**, since **Empty Latent for Tokens** follows them.

All pictures start from the same noise, and *euler* adds none, so only the edit changes them.""")

RENDER = (("1", 100), ("2", 100), ("3", 110), ("4", 60), ("5", 280), ("6", 50))


def render(first: int) -> tuple[Stack, Stack]:
    """Apply IP+ Tokens, with the id `first`, then prompts, latents and sampler, with the next ids."""
    rows = tuple((str(first + number), height) for number, (_, height) in enumerate(RENDER, 1))
    return Stack(280, ((str(first), 180), *rows[:3])), Stack(280, rows[3:])


FIND = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (FIND_START, ("1", 130))),)),
        Group("Kinds", 380, 0, (Stack(280, (("2", 130),)),)),
        Group("Direction", 740, 0, (Stack(480, (("3", 440), ("4", 90))), Stack(280, (FIND_KEPT,)))),
        Group("Edit", 0, 760, (
            Stack(280, (("5", 130), ("6", 60))), Stack(300, (("7", 200), STRIP_SIZE)),
        )),
        Group("Render", 720, 760, render(8)),
        Group("Strip", 1380, 760, (Stack(900, (("15", 330), ("16", 330))),)),
    ),
    random_seeds=(),
)

EDIT_START = Note("Start here", height=330, text="""\
**Press Run.** One concept is moved along two directions at once, by five amounts: to a round and cold \
creature on the left, and to a tall and warm one on the right.

Things to change first:
- **One direction** and **Another direction**: ten come with the creature models.
- **Both at once**: `first without second` removes the second direction from the first.
- **IP+ Direction Edit**: its amounts, for example `-1 to 1 in 9`.

For SDXL, use its own models, and a published or found direction.""")

EDIT_UNITS = Note("Units", height=150, text="""\
`raw` measures in lengths of the direction itself. A single direction from **Find IP+ Direction** also has \
`standard deviations` and a `recommended` amount; a combination has neither.""")

EDIT = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (EDIT_START, ("1", 130))),)),
        Group("Concept", 380, 0, (
            Stack(280, (("2", 340),)), Stack(300, (("3", 480),)), Stack(280, (("4", 590),)),
        )),
        Group("Directions", 1380, 0, (
            Stack(300, (("5", 200), ("6", 200))), Stack(300, (("7", 150), ("8", 200), EDIT_UNITS)),
        )),
        Group("Render", 380, 760, render(9)),
        Group("Strip", 1040, 760, (Stack(980, (("16", 330), ("17", 330))),)),
        Group("Sizes", 0, 760, (Stack(300, (STRIP_SIZE,)),)),
    ),
    random_seeds=(),
)

LIBRARY_START = Note("Start here", height=310, text="""\
**Press Run.** Three concepts from files are rendered, and two that are made from them: the first, with what \
distinguishes the second from the third added, and the one half-way between those two.

**Save IP+ Tokens** writes the new one to `models/ip_tokens/my_concept.safetensors`. Press R, and **Load IP+ \
Tokens** lists it in any graph.

You can save any concept: put the node after *IP-Prior Sample* or *Encode IP+ Image*.""")

LIBRARY_SIZE = Note("How many", height=110, text="""\
Five concepts go into **Batch Concepts**, so there are five pictures, and five lines of **labels**.""")

LIBRARY = Layout(
    groups=(
        Group("Start", 0, 0, (Stack(300, (LIBRARY_START, ("1", 130))),)),
        Group("Load", 380, 0, (Stack(300, (("2", 160), ("3", 160), ("4", 160))),)),
        Group("Make", 760, 0, (Stack(300, (("5", 150), ("6", 110), ("7", 130), ("8", 90))),)),
        Group("Render", 1140, 0, render(9)),
        Group("Strip", 0, 840, (Stack(980, (("16", 330), ("17", 330))), Stack(300, (LIBRARY_SIZE,)))),
    ),
    random_seeds=(),
)

LAYOUTS = {"edit_by_direction": EDIT, "find_a_direction": FIND, "token_library": LIBRARY}
