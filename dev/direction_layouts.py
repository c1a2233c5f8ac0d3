"""Where everything lies in the graphs with directions and kept tokens, and what the notes in them say."""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

FIND_START = Note("Start here", height=350, text="""\
**Press Run.** From 32 creatures without wings and 32 with, a direction is found; it gives wings to a \
creature that was not among them.

Change first:
- **Pictures of two kinds** and **A creature to edit**: the same **difference** in both.
- **count**: how many pictures it takes. The chart shows each where it lies if it is left out.
- **IP+ Direction Edit**: its amounts.

For pictures of your own, set **pictures** of *Find IP+ Direction* to `folders`, one folder in ComfyUI's \
input for each kind.""")

FIND_KEPT = Note("Kept", height=110, text="""\
**Save IP+ Direction** writes `models/ip_directions/my_direction.safetensors`. Press R, and \
**Load IP+ Direction** offers it, in any graph.""")

STRIP_SIZE = Note("How many", height=130, text="""\
As many **amounts** as pictures: set **batch_size** of the empty latent to their number.

All pictures start from the same noise, and *euler* adds none, so that only the edit changes them.""")

RENDER = (("1", 100), ("2", 100), ("3", 110), ("4", 60), ("5", 280), ("6", 50))


def render(first: int) -> tuple[Stack, Stack]:
    """Prompts, latents and sampler, whose ids begin after that of Apply IP+ Tokens."""
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
creature on the left, to a tall and warm one on the right.

Change first:
- **One direction** and **Another direction**: ten come with the creature models.
- **Both at once**: `first without second` frees one direction of the other.
- **IP+ Direction Edit**: its amounts, also as `-1 to 1 in 9`.

For SDXL, put **Encode IP+ Image** or a prior of its own in front, and a published or found direction.""")

EDIT_UNITS = Note("Units", height=150, text="""\
`raw` counts in the direction itself. A single direction from **Find IP+ Direction** also knows its \
`standard deviations`, and what is `recommended`; a combination does not.""")

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
**Press Run.** Three concepts out of files are drawn beside two that are made of them: the first, given what \
makes the second differ from the third, and what lies half-way between those two.

**Save IP+ Tokens** writes the new one to `models/ip_tokens/my_concept.safetensors`. Press R, and \
**Load IP+ Tokens** offers it, in any graph.

Any concept can be kept: put it behind *IP-Prior Sample* or *Encode IP+ Image*.""")

LIBRARY_SIZE = Note("How many", height=110, text="""\
Five concepts go into **Batch Concepts**, so **batch_size** of the empty latent is 5, and **labels** has \
five lines.""")

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
