"""The layout of the graphs that explore and blend concepts, and what their notes say."""

from __future__ import annotations

from dev.layouts import Group, Large, Layout, Note, column, parts_to_concept, render_concept, title_of
from dev.piece_layouts import SDXL_FILES
from dev.subgraphs import Folded

EXPLORE_START = Note("Start here", f"""\
**Press Run.** Parts become a wall of sixteen creatures; one of them is picked and varied.

Look at the wall, type the number of the one that you like into **Pick Concepts**, and run again: only what \
has changed is computed. For another wall, raise the seed of **Parts to concept** by 16.

For SDXL, open {title_of("explore_concepts_sdxl")}.""")

PICK = Note("Which number", """\
Count from 1, row by row. For several at once, type for example 2, 7. **Vary** takes a single one, or one \
for each of its concepts.""")

VARY = Note("How far", """\
**strength** is how far variations move away, from 0 (not at all) to 1 (all new). The seed changes after \
every run.""")


def explore(start: tuple[Group, ...], ids: tuple[str, ...]) -> Layout:
    """The wall above, and what becomes of one concept of it below.

    Args:
        ids: of the nodes from Encode IP+ Parts on, in the order in which they follow one another.
    """
    (
        encode, sample, apply, prompt, negative, latent, noise, sampler, decode, wall,
        pick, apply_one, latent_one, sampler_one, decode_one, picked,
        vary, apply_more, latent_more, noise_more, sampler_more, decode_more, variations,
    ) = ids
    one = Folded(
        "Render the picked one", f"{apply_one} {latent_one} {sampler_one} {decode_one}",
        shown=f"weight={apply_one}.weight percent={latent_one}.percent steps={sampler_one}.steps "
              f"cfg={sampler_one}.cfg seed={sampler_one}.seed",
        outputs=f"image={decode_one}.0",
    )
    more = Folded(
        "Vary and render", f"{vary} {apply_more} {latent_more} {noise_more} {sampler_more} {decode_more}",
        shown=f"strength={vary}.strength concepts={vary}.concepts seed={vary}.seed "
              f"guidance={vary}.guidance steps={sampler_more}.steps cfg={sampler_more}.cfg",
        outputs=f"image={decode_more}.0",
    )
    render = render_concept(apply, prompt, negative, latent, sampler, decode, noise)
    return Layout(
        rows=(
            (
                *start,
                Group("Wall", "concept", (column(290, parts_to_concept(encode, sample)),)),
                Group("Render", "render", (column(290, render),)),
                Group("Result", "result", (column(360, Large(wall, 460)),)),
            ),
            (
                Group("Pick", "concept", (column(260, pick, PICK), column(290, one))),
                Group("Picked", "result", (column(250, Large(picked, 260)),)),
                Group("Vary", "concept", (column(300, more),)),
                Group("Variations", "result", (column(320, Large(variations, 310), VARY),)),
            ),
        ),
        random_seeds=(vary,),
    )


EXPLORE = explore(
    (
        Group("Start", "models", (column(280, EXPLORE_START, "1"),)),
        Group("Parts", "pictures", (column(250, "2"),)),
    ),
    tuple(str(number) for number in range(3, 26)),
)

EXPLORE_SDXL_START = Note("Start here", """\
A wall of sixteen small concepts; one is picked, drawn large, and varied.

Type the number of the one that you like into **Pick Concepts** and run again: only what has changed is \
computed. For your own parts, put **Load Image** in place of *Example parts*.""")

EXPLORE_SDXL = explore(
    (
        Group("Start", "models", (column(250, EXPLORE_SDXL_START, SDXL_FILES),)),
        Group("Models", "models", (column(250, "1", "2", "3", "4"),)),
        Group("Parts", "pictures", (column(220, "5", Large("6", 200)),)),
    ),
    tuple(str(number) for number in range(10, 33)),
)

BLEND_START = Note("Start here", f"""\
**Press Run.** Parts of two creatures become two concepts, and a strip shows what lies between them.

Change first: the parts, the seeds of the two concepts, and the **amounts** of **Blend Concepts**.

For SDXL, open {title_of("blend_concepts_sdxl")}.""")

BLEND_AMOUNTS = Note("How many", """\
There is one picture for each of the **amounts**: set **columns** of the grid to their number. All start \
from the same noise, so the strip changes smoothly.""")

BLEND = Layout(
    rows=(
        (
            Group("Start", "models", (column(290, BLEND_START, "1"),)),
            Group("First", "pictures", (
                column(250, "2"), column(300, parts_to_concept("3", "4", "The first concept")),
            )),
            Group("Second", "pictures", (
                column(250, "5"), column(300, parts_to_concept("6", "7", "The second concept")),
            )),
        ),
        (
            Group("Blend", "concept", (column(290, "8", BLEND_AMOUNTS),)),
            Group("Render", "render", (
                column(300, render_concept("9", "10", "11", "12", "14", "15", "13")), column(240, "16"),
            )),
            Group("Strip", "result", (column(600, Large("17", 280)),)),
        ),
    ),
)

BLEND_SDXL_START = Note("Start here", """\
A strip shows what lies between two concepts. For your own parts, put **Load Image** in place of the \
examples, **on white**.

To blend whole pictures, replace a concept with **Encode IP+ Image**.""")

BLEND_SDXL = Layout(
    rows=((
        Group("Models", "models", (column(290, BLEND_SDXL_START, "1", "2", "3", "4", SDXL_FILES),)),
        Group("First", "pictures", (
            column(290, "5", Large("6", 200), parts_to_concept("7", "8", "The first concept")),
        )),
        Group("Second", "pictures", (
            column(290, "9", Large("10", 200), parts_to_concept("11", "12", "The second concept")),
        )),
        (
            Group("Blend", "concept", (column(290, "13", BLEND_AMOUNTS),)),
            Group("Render", "render", (
                column(290, render_concept("14", "15", "16", "17", "19", "20", "18")),
            )),
        ),
        Group("Strip", "result", (column(420, "21", Large("22", 260)),)),
    ),),
)

LAYOUTS = {
    "blend_concepts": BLEND, "blend_concepts_sdxl": BLEND_SDXL, "explore_concepts": EXPLORE,
    "explore_concepts_sdxl": EXPLORE_SDXL,
}
