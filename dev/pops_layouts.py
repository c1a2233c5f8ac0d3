"""The layout of the graphs with pOps operators, and what their notes say.

Each comes in two kinds, which differ in what draws an embedding: SDXL with a base IP-Adapter, or the decoder
of Kandinsky 2.2.
"""

from __future__ import annotations

from dev.layouts import Group, Layout, Note, Stack

OPERATORS = {
    "texture_an_object": ("pops-texturing",), "put_it_in_a_scene": ("pops-scene",),
    "say_it_with_a_word": ("pops-instruct",),
    "chain_operators": ("pops-instruct", "pops-scene", "pops-texturing"),
}
DECODERS = {"sdxl": ("ip-adapter-bigg",), "kandinsky": ("kandinsky-decoder",)}
PARTS, SCENE, PREVIEW = 540, 300, 280  # heights of nodes
READ_WORDS = ("say_it_with_a_word", "chain_operators")


def files_note(graph: str, decoder: str) -> Note:
    """Which files a graph needs, and the command that fetches them."""
    names = " ".join((*OPERATORS[graph], "kandinsky-prior", "clip-vision-bigg", *DECODERS[decoder]))
    command = (
        "downloads the other files (an operator has 4.1 GB):\n\n"
        f"`python -m pit download {names} --models /path/to/ComfyUI/models`"
    )
    if decoder == "sdxl":
        return Note(
            "Files", height=200,
            text=f"Choose your SDXL checkpoint. One command, run in the folder of this pack, {command}",
        )
    if graph in READ_WORDS:
        return Note("Files", height=240, text=(
            "Words are read by the CLIP of an SDXL checkpoint: choose yours. One command, run in the folder "
            f"of this pack, {command}"
        ))
    command = command.replace("the other files", "all files")
    return Note("Files", height=200, text=f"One command, run in the folder of this pack, {command}")


OWN_PICTURES = (
    "The graph starts with pictures that the pack draws. For your own, put **Load Image** in their place; "
    "objects should be **on white**."
)

TEXTURE_START = Note("Start here", height=290, text=f"""\
**The object in the texture of another picture.** The operator takes the embeddings of both and gives four \
new ones, each of which is drawn.

{OWN_PICTURES} A texture is best as a patch that it fills.

The seed of **pOps Combine** changes after every run.""")

SCENE_START = Note("Start here", height=290, text=f"""\
**The object in the scene of another picture.** The operator takes the embeddings of both and gives four new \
ones, each of which is drawn.

{OWN_PICTURES} A scene is best without anything in front.

The seed of **pOps Combine** changes after every run.""")

WORD_START = Note("Start here", height=330, text=f"""\
**The same object, but as a word says.** Each line of **Words** gives one picture; the object without any \
word comes first.

Write adjectives, such as `shiny`, or kinds of art: the operator has learned 62 and 41 of them.

{OWN_PICTURES}

The seed of **pOps Instruct** changes after every run.""")

CHAIN_START = Note("Start here", height=330, text=f"""\
**One operator after another.** The object becomes what a word says, then it goes into a scene, then it gets \
a texture; a strip shows each step.

An embedding goes from operator to operator as it is: leave one out, change their order, or add another.

{OWN_PICTURES}

Other seeds of the three operators give other results.""")

COMBINE = Note("How much of each", height=190, text="""\
**first_strength** and **second_strength** weigh the two pictures; 0 leaves one out, and the operator \
invents it.

**guidance** 0 is as published: 8 for texture, 1 for scene. If there is too much color, try 3 to 5.""")

INSTRUCT = Note("How much of it", height=150, text="""\
**strength** is how much of the object counts; lower, the word counts more.

Keep **count** at 1 here: the strip has one label for each line.""")

CHAIN = Note("Less is more", height=150, text="""\
Each operator loses a little of the object. Lower **second_strength** if a texture or a scene takes over, \
and try several seeds of the first operator before the others.""")

RENDER = {
    "sdxl": Note("As published", height=190, text="""\
The prompt stays empty, since everything is in the embedding. A lower **weight** of **Apply IP+ Tokens** \
lets words have a say.

If memory is short, lower **percent** of **Empty Latent for Tokens**."""),
    "kandinsky": Note("As published", height=190, text="""\
Sampler *ddpm* with *ddim_uniform*, 50 steps and **cfg** 4 are the published settings. *dpmpp_2m* with 20 \
steps is faster.

This decoder reads no words: everything is in the embedding."""),
}

DEPTH_NOTE = Note("To keep the shape", height=230, text="""\
This group is switched off: the graph runs without it and its files. Select its nodes and press **Ctrl+B** \
to switch them on; ComfyUI's page then offers both files.

The depth of the object goes to SDXL by a ControlNet, so that every result has its outline. **strength** 0.5 \
is as published; this takes the same number of steps, but more memory.""")
DEPTH_IDS = ("20", "21", "22", "23", "24")
DEPTH = {
    "20": {"class_type": "LoadDA3Model", "inputs": {
        "model_name": "depth_anything_3_mono_large.safetensors", "weight_dtype": "default",
    }, "_meta": {"title": "Load Depth Anything 3"}},
    "21": {"class_type": "DA3Inference", "inputs": {
        "da3_model": ["20", 0], "image": ["5", 2], "resolution": 504, "resize_method": "upper_bound_resize",
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


def numbers(first: int, count: int) -> list[str]:
    """Ids of nodes that follow one another."""
    return [str(number) for number in range(first, first + count)]


def loaders(graph: str, decoder: str) -> list[tuple[str, int]]:
    """The nodes that load files, with their heights; their ids are the first ones."""
    operators = [130] * len(OPERATORS[graph])
    own = [100, 60, 60] if decoder == "sdxl" else [90, 60, *([100] if graph in READ_WORDS else [])]
    heights = [*own, *operators]
    return list(zip(numbers(1, len(heights)), heights, strict=True))


def rendering(decoder: str, first: int, fixed: bool = False) -> list[Stack]:
    """The stacks that draw embeddings, from the node `first` on.

    Args:
        fixed: all pictures start from the same noise (SDXL).
    """
    heights = [60, 180, 88, 120, 110] if decoder == "sdxl" else [60, 110]
    heights += [60] if fixed and decoder == "sdxl" else []
    rows = tuple(zip(numbers(first, len(heights)), heights, strict=True))
    sampler, decode = numbers(first + len(heights), 2)
    return [Stack(300, rows), Stack(280, ((sampler, 280), (decode, 50), RENDER[decoder]))]


def behind(stacks: list[Stack], count: int) -> list[str]:
    """Ids of the nodes behind those of stacks, in which they follow one another."""
    inside = [int(row[0]) for stack in stacks for row in stack.rows if not isinstance(row, Note)]
    return numbers(max(inside) + 1, count)


def two_pictures(graph: str, decoder: str, start: Note) -> Layout:
    """The layout of a graph that combines two pictures."""
    files = loaders(graph, decoder)
    first = len(files) + 1
    left, right, see_left, see_right, encode_left, encode_right, combine = numbers(first, 7)
    drawn = rendering(decoder, first + 7)
    (result,) = behind(drawn, 1)
    second = PARTS if graph == "texture_an_object" else SCENE
    groups = (
        Group("Models", 0, 0, (Stack(320, (files_note(graph, decoder), *files)),)),
        Group("Pictures", 400, 0, (
            Stack(280, (start,)), Stack(280, ((left, PARTS), (see_left, PREVIEW))),
            Stack(280, ((right, second), (see_right, PREVIEW))),
        )),
        Group("Encode", 1400, 0, (Stack(280, ((encode_left, 330), (encode_right, 330))),)),
        Group("Combine", 1760, 0, (Stack(280, ((combine, 300), COMBINE)),)),
        Group("Render", 2120, 0, (*drawn, Stack(480, ((result, 690),)))),
    )
    return Layout(groups, random_seeds=(combine,))


def with_depth(layout: Layout) -> Layout:
    """The same with a group that is switched off and keeps the shape of the object."""
    load, infer, render, control, apply = DEPTH_IDS
    depth = Group("Depth (switched off)", 400, 1040, (
        Stack(280, (DEPTH_NOTE,)), Stack(300, ((load, 90), (control, 60))),
        Stack(300, ((infer, 150),)), Stack(300, ((render, 140),)), Stack(300, ((apply, 190),)),
    ))
    return Layout((*layout.groups, depth), layout.random_seeds, DEPTH, DEPTH_LINKS)


def words(decoder: str) -> Layout:
    """The layout of the graph that follows words."""
    graph, fixed = "say_it_with_a_word", decoder == "sdxl"
    files = loaders(graph, decoder)
    picture, see, encode, text, instruct, batch, first = numbers(len(files) + 1, 7)
    drawn = rendering(decoder, int(first), fixed)
    before, after, strip, save = behind(drawn, 4)
    groups = (
        Group("Models", 0, 0, (Stack(320, (files_note(graph, decoder), *files)),)),
        Group("Picture", 400, 0, (Stack(280, (WORD_START,)), Stack(280, ((picture, PARTS), (see, PREVIEW))))),
        Group("Encode", 1080, 0, (Stack(280, ((encode, 330),)),)),
        Group("Say", 1440, 0, (Stack(300, ((text, 110), (instruct, 270), (batch, 90), INSTRUCT)),)),
        Group("Render", 1820, 0, tuple(drawn)),
        Group("Strip", 2520, 0, (
            Stack(280, ((before, 110), (after, 110), (strip, 150))), Stack(720, ((save, 330),)),
        )),
    )
    return Layout(groups, random_seeds=(instruct,))


def chain(decoder: str) -> Layout:
    """The layout of the graph with three operators."""
    graph, fixed = "chain_operators", decoder == "sdxl"
    files = loaders(graph, decoder)
    ids = numbers(len(files) + 1, 14)
    sources, shown, encoded, done, batch = ids[:3], ids[3:6], ids[6:9], ids[9:12], ids[12]
    drawn = rendering(decoder, int(ids[13]), fixed)
    strip, save = behind(drawn, 2)
    groups = (
        Group("Models", 0, 0, (Stack(320, (files_note(graph, decoder), *files)),)),
        Group("Pictures", 400, 0, (
            Stack(280, (CHAIN_START,)),
            *(
                Stack(280, ((source, height), (see, PREVIEW)))
                for source, see, height in zip(sources, shown, (PARTS, SCENE, PARTS), strict=True)
            ),
        )),
        Group("Encode", 1720, 0, tuple(Stack(280, ((each, 330),)) for each in encoded)),
        Group("Chain", 400, 1040, (
            *(Stack(280, ((each, 300),)) for each in done), Stack(280, ((batch, 110), CHAIN)),
        )),
        Group("Render", 1720, 1040, tuple(drawn)),
        Group("Strip", 2420, 1040, (Stack(720, ((strip, 150), (save, 330))),)),
    )
    return Layout(groups, random_seeds=())


LAYOUTS = {
    **{f"texture_an_object_{decoder}": two_pictures("texture_an_object", decoder, TEXTURE_START)
       for decoder in DECODERS},
    **{f"put_it_in_a_scene_{decoder}": two_pictures("put_it_in_a_scene", decoder, SCENE_START)
       for decoder in DECODERS},
    **{f"say_it_with_a_word_{decoder}": words(decoder) for decoder in DECODERS},
    **{f"chain_operators_{decoder}": chain(decoder) for decoder in DECODERS},
}
LAYOUTS["texture_an_object_sdxl"] = with_depth(LAYOUTS["texture_an_object_sdxl"])
