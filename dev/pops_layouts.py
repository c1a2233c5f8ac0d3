"""The layout of the graphs with pOps operators, and what their notes say.

Each comes in three kinds, which differ in the models, and in what draws an embedding: the creatures' renderer
or SDXL with a base IP-Adapter, or the decoder of Kandinsky 2.2.
"""

from __future__ import annotations

from dataclasses import replace

from dev.layouts import Cell, Group, Large, Layout, Note, Row, column, numbers, title_of
from dev.piece_layouts import files
from dev.subgraphs import Folded

OPERATORS = {
    "texture_an_object": ("pops-texturing",), "put_it_in_a_scene": ("pops-scene",),
    "say_it_with_a_word": ("pops-instruct",),
    "chain_operators": ("pops-instruct", "pops-scene", "pops-texturing"),
}
DECODERS = {"sdxl": ("ip-adapter-bigg",), "kandinsky": ("kandinsky-decoder",)}
CREATURES = "creatures"
# Nodes that load files, besides those of operators.
FIRST_LOADERS = {CREATURES: 1, "sdxl": 3, "kandinsky": 2}
SMALL, WIDE = 190, 400  # heights of previews, and the width of results
READ_WORDS = ("say_it_with_a_word", "chain_operators")


def files_note(graph: str, decoder: str) -> Note:
    """Which files a graph needs."""
    names = " ".join((*OPERATORS[graph], "kandinsky-prior", "clip-vision-bigg", *DECODERS[decoder]))
    if decoder == "sdxl":
        return files(names, "Choose your SDXL checkpoint. ")
    return files(names, "Words are read by the CLIP of an SDXL checkpoint. " if graph in READ_WORDS else "")


OWN = "For your own pictures, put **Load Image** in place of the examples; objects should be **on white**."

TEXTURE_START = Note("Start here", f"""\
**The object in the texture of another picture.** The operator makes four new embeddings out of those of \
both, and each is drawn.

{OWN} A texture is best as a patch that fills its picture.""")

SCENE_START = Note("Start here", f"""\
**The object in the scene of another picture.** The operator makes four new embeddings out of those of both, \
and each is drawn.

{OWN} A scene is best without anything in front.""")

WORD_START = Note("Start here", f"""\
**The same object, but as a word says.** Each line of **Words** gives one picture; the object alone comes \
first. Write adjectives, such as shiny, or kinds of art: the operator has learned 62 and 41 of them.

{OWN}""")

CHAIN_START = Note("Start here", f"""\
**One operator after another.** The object becomes what a word says, goes into a scene, and gets a texture; \
a strip shows each step. Leave one out, change their order, or add another.

{OWN}""")

STARTS = {
    "texture_an_object": TEXTURE_START, "put_it_in_a_scene": SCENE_START, "say_it_with_a_word": WORD_START,
    "chain_operators": CHAIN_START,
}
CREATURE_STARTS = {
    "texture_an_object": Note("Start here", f"""\
**Press Run.** The creature gets the color and the pattern of a patch. The operator makes four new \
embeddings out of those of both pictures, and each is drawn.

Other creatures: **whole** of **Creature Parts** in place of the example. For photos, open \
{title_of("texture_an_object_sdxl")}."""),
    "put_it_in_a_scene": Note("Start here", f"""\
**Press Run.** The creature comes into the scene of another picture. The operator makes four new embeddings \
out of those of both pictures, and each is drawn.

Other scenes: **without_things** of **Creature Scene** in place of the example. For photos, open \
{title_of("put_it_in_a_scene_sdxl")}."""),
    "say_it_with_a_word": Note("Start here", f"""\
**Press Run.** The same creature, but as a word says. Each line of **Words** gives one picture; the creature \
alone comes first.

It knows colors, *tall*, *boxy*, *plain*, *spotted*, *striped* and *scaly*, and parts: *red wings*, *bat \
wings*, *no horns*. For photos, open {title_of("say_it_with_a_word_sdxl")}."""),
    "chain_operators": Note("Start here", f"""\
**Press Run.** One operator after another: the creature becomes what a word says, goes into a scene, and \
gets a texture; a strip shows each step. Leave one out, change their order, or add another.

For photos, open {title_of("chain_operators_sdxl")}."""),
}

COMBINE = Note("How much of each", """\
The **strengths** weigh the two pictures; 0 leaves one out. **guidance** 0 is as published: 8 for texture, 1 \
for scene. Too much color: try 3 to 5.""")

CREATURE_COMBINE = Note("How much of each", """\
The **strengths** weigh the two pictures; 0 leaves one out. **guidance** is how closely results follow both: \
from 5 on, they break.""")

INSTRUCT = Note("How much of it", """\
**strength** is how much of the object counts; lower, the word counts more.""")

CHAIN = Note("Less is more", """\
Each operator loses a little of the object. Lower **second_strength** if a texture or a scene takes over.""")

RENDER = {
    CREATURES: Note("The prompt", """\
It stays empty: the embedding holds the scene as well. A lower **weight** lets words have a say."""),
    "sdxl": Note("As published", """\
The prompt stays empty. A lower **weight** lets words have a say. Lower **percent** if memory is short."""),
    "kandinsky": Note("As published", """\
*ddpm*, 50 steps and **cfg** 4 are published; *dpmpp_2m* with 20 steps is faster. It reads no words."""),
}

DEPTH_NOTE = Note("To keep the shape", """\
Switched off. Select the node and press **Ctrl+B**: the depth of the object then goes to SDXL by a \
ControlNet. **strength** 0.5 is as published.""")
DEPTH_IDS = ("20", "21", "22", "23", "24")
DEPTH = {
    "20": {"class_type": "LoadDA3Model", "inputs": {
        "model_name": "depth_anything_3_mono_large.safetensors", "weight_dtype": "default",
    }, "_meta": {"title": "Load Depth Anything 3"}},
    "21": {"class_type": "DA3Inference", "inputs": {
        "da3_model": ["20", 0], "image": ["5", 0], "resolution": 504, "resize_method": "upper_bound_resize",
        "mode": "mono",
    }, "_meta": {"title": "Run Depth Anything 3"}},
    "22": {"class_type": "DA3Render", "inputs": {
        "da3_geometry": ["21", 0], "output": "depth", "output.normalization": "v2_style",
        "output.apply_sky_clip": False,
    }, "_meta": {"title": "Depth of the object"}},
    "23": {"class_type": "ControlNetLoader", "inputs": {
        "control_net_name": "controlnet-depth-sdxl-1.0.safetensors",
    }, "_meta": {"title": "ControlNet for depth"}},
    "24": {"class_type": "ControlNetApplyAdvanced", "inputs": {
        "positive": ["14", 0], "negative": ["15", 0], "control_net": ["23", 0], "image": ["22", 0],
        "strength": 0.5, "start_percent": 0.0, "end_percent": 1.0, "vae": ["1", 2],
    }, "_meta": {"title": "Apply ControlNet"}},
}
"""Nodes that are bypassed, in the format of the API, which leaves them out."""
DEPTH_LINKS = {("17", "positive"): ("24", 0), ("17", "negative"): ("24", 1)}


def loaders(graph: str, decoder: str) -> list[str]:
    """The ids of the nodes that load files, which are the first ones."""
    words = 1 if decoder == "kandinsky" and graph in READ_WORDS else 0
    return numbers(1, FIRST_LOADERS[decoder] + words + len(OPERATORS[graph]))


def models(graph: str, decoder: str) -> Group:
    files = loaders(graph, decoder)
    rows: list[Row] = [*files]
    if graph == "chain_operators":
        names = list(zip(("word", "scene", "texture"), files[-3:], strict=True))
        rows[-3:] = [Folded(
            "Three operators", " ".join(files[-3:]),
            shown=" ".join(f"{name}={node}.file" for name, node in names),
            outputs=" ".join(f"{name}_operator={node}.0" for name, node in names),
        )]
    if decoder == CREATURES:
        return Group("Start", "models", (column(290, CREATURE_STARTS[graph], *rows),))
    return Group("Models", "models", (column(290, STARTS[graph], *rows, files_note(graph, decoder)),))


def render_embedding(decoder: str, first: int, fixed: bool = False) -> tuple[Folded, int]:
    """The subgraph that draws embeddings, of the nodes from `first` on, and the id behind them.

    Args:
        fixed: all pictures start from the same noise (not for Kandinsky).
    """
    if decoder == "kandinsky":
        _, latent, sampler, decode = nodes = numbers(first, 4)
        shown = f"percent={latent}.percent"
        title = "Render embedding (Kandinsky)"
    else:
        nodes = numbers(first, 8 if fixed else 7)
        _, apply, prompt, negative, latent, *_, sampler, decode = nodes
        shown = f"prompt={prompt}.text negative_prompt={negative}.text weight={apply}.weight " \
                f"percent={latent}.percent"
        title = "Render embedding"
    shown += f" steps={sampler}.steps cfg={sampler}.cfg sampler={sampler}.sampler_name seed={sampler}.seed"
    return Folded(title, " ".join(nodes), shown, outputs=f"image={decode}.0"), first + len(nodes)


def combine_pictures(left: str, right: str, combine: str) -> Folded:
    """The subgraph that encodes two pictures and combines them."""
    return Folded(
        "Combine two pictures", f"{left} {right} {combine}",
        shown=f"count={combine}.count seed={combine}.seed guidance={combine}.guidance "
              f"first_strength={combine}.first_strength second_strength={combine}.second_strength",
        sockets=f"first={left}.image second={right}.image", outputs=f"embedding={combine}.0",
    )


def two_pictures(graph: str, decoder: str) -> Layout:
    """The layout of a graph that combines two pictures."""
    first = len(loaders(graph, decoder)) + 1
    left, right, see_left, see_right, encode_left, encode_right, combine = numbers(first, 7)
    draw, result = render_embedding(decoder, first + 7)
    weights = CREATURE_COMBINE if decoder == CREATURES else COMBINE
    cells: tuple[Cell, ...] = (
        models(graph, decoder),
        Group("Pictures", "pictures", (
            column(250, left, Large(see_left, SMALL), right, Large(see_right, SMALL)),
        )),
        (
            Group("Combine", "concept", (column(310, combine_pictures(encode_left, encode_right, combine)),)),
            Group("Render", "render", (column(310, draw),)),
        ),
        Group("Result", "result", (column(WIDE, Large(str(result), 560), weights, RENDER[decoder]),)),
    )
    return Layout((cells,), random_seeds=(combine,))


def with_depth(layout: Layout) -> Layout:
    """The same with a group that is switched off and keeps the shape of the object."""
    load, infer, render, control, apply = DEPTH_IDS
    keep = Folded(
        "Keep the shape", f"{apply} {infer} {load} {render} {control}", shown=f"strength={apply}.strength",
        outputs=f"positive={apply}.0 negative={apply}.1",
    )
    depth = Group("Depth (switched off)", "render", (column(310, keep, DEPTH_NOTE),))
    ((*cells, (combine, render), result),) = layout.rows
    rows = ((*cells, (combine, depth), render, result),)
    return replace(layout, rows=rows, bypassed=DEPTH, detours=DEPTH_LINKS)


def words(decoder: str) -> Layout:
    """The layout of the graph that follows words."""
    graph = "say_it_with_a_word"
    first = len(loaders(graph, decoder)) + 1
    picture, see, encode, text, instruct, batch = numbers(first, 6)
    draw, after = render_embedding(decoder, first + 6, fixed=decoder != "kandinsky")
    alone, others, strip, save = numbers(after, 4)
    say = Folded(
        "Say it with a word", f"{encode} {instruct} {batch}",
        shown=f"strength={instruct}.strength seed={instruct}.seed guidance={instruct}.guidance "
              f"steps={instruct}.steps",
        outputs=f"embedding={batch}.0",
    )
    label = Folded("Label the words", f"{alone} {others} {strip}", sockets=f"words={strip}.labels",
                   shown=f"columns={strip}.columns", outputs=f"strip={strip}.0")
    return Layout(((
        models(graph, decoder),
        Group("Picture", "pictures", (column(250, picture, Large(see, 220)),)),
        Group("Say", "concept", (column(310, text, say, INSTRUCT),)),
        Group("Render", "render", (column(310, draw, RENDER[decoder]),)),
        Group("Strip", "result", (column(WIDE, label, Large(save, 310)),)),
    ),), random_seeds=(instruct,))


def chain(decoder: str) -> Layout:
    """The layout of the graph with three operators."""
    graph = "chain_operators"
    ids = numbers(len(loaders(graph, decoder)) + 1, 13)
    sources, seen, encoded, done, batch = ids[:3], ids[3:6], ids[6:9], ids[9:12], ids[12]
    draw, after = render_embedding(decoder, int(batch) + 1, fixed=decoder != "kandinsky")
    strip, save = numbers(after, 2)
    encode = Folded(
        "Encode three pictures", " ".join(encoded),
        sockets=" ".join(f"{name}={node}.image" for name, node in
                         zip(("object", "scene", "texture"), encoded, strict=True)),
        outputs=" ".join(f"{name}={node}.0" for name, node in
                         zip(("object", "scene", "texture"), encoded, strict=True)),
    )
    pictures = [row for node, see in zip(sources, seen, strict=True) for row in (node, Large(see, 150))]
    return Layout(((
        models(graph, decoder),
        Group("Pictures", "pictures", (column(220, *pictures),)),
        Group("Chain", "concept", (column(290, *done, batch),)),
        (
            Group("Encode", "pictures", (column(310, encode),)),
            Group("Render", "render", (column(310, draw, CHAIN),)),
        ),
        Group("Strip", "result", (column(WIDE, Large(strip, 410), Large(save, 310)),)),
    ),))


def named(graph: str, decoder: str) -> str:
    """The name of the API twin."""
    return graph if decoder == CREATURES else f"{graph}_{decoder}"


LAYOUTS = {
    **{named(graph, decoder): two_pictures(graph, decoder)
       for graph in ("texture_an_object", "put_it_in_a_scene") for decoder in FIRST_LOADERS},
    **{named("say_it_with_a_word", decoder): words(decoder) for decoder in FIRST_LOADERS},
    **{named("chain_operators", decoder): chain(decoder) for decoder in FIRST_LOADERS},
}
LAYOUTS["texture_an_object_sdxl"] = with_depth(LAYOUTS["texture_an_object_sdxl"])
