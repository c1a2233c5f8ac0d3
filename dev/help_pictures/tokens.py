"""Pictures of the nodes that combine, keep and show concepts, and of those with IP-LoRAs."""

from __future__ import annotations

from PIL import Image

from dev.help_pictures.chain import Creatures
from dev.help_pictures.sheet import Cell, Words, sheet
from dev.help_pictures.studio import Recipe, Studio

SPECIES = ("bloom", "ember", "tide")
AMOUNTS = ("0", "0.25", "0.5", "0.75", "1")
FILE = "my_concept\n.safetensors"
NEW_SCENE = "a creature in a night meadow"
SCENES_LORA, SHEET_LORA = "creature models: scenes", "creature models: character sheet"
SHEET_WORDS = "a creature and the creature"


def batch_concepts(studio: Studio) -> Image.Image:
    """Three concepts, and all of them drawn with other words in one run."""
    graph = studio.graph()
    creatures = Creatures(graph)
    concepts = [creatures.saved(name) for name in SPECIES]
    slots = {f"concepts__tokens{number}": each for number, each in enumerate(concepts)}
    batch = graph.add("PiT_BatchConcepts", **slots)
    keys = [graph.show(creatures.draw(each, same=True)) for each in concepts]
    keys.append(graph.show(creatures.draw(batch, "a creature in the snow", weight=0.7), 3))
    first, second, third, together = studio.pictures(graph, *keys)
    return sheet(
        [Cell(first), "+", Cell(second), "+", Cell(third)],
        ["->", Cell(together, "all of them in the snow, in one run")],
    )


def blend_concepts(studio: Studio) -> Image.Image:
    """What lies between two concepts."""
    graph = studio.graph()
    creatures = Creatures(graph)
    second = creatures.sample(creatures.encode(creatures.parts("horns", "wings", seed=3)), seed=2)
    blended = graph.add(
        "PiT_BlendConcepts", first=creatures.concepts(), second=second, amounts=", ".join(AMOUNTS),
    )
    (drawn,) = studio.pictures(graph, graph.show(creatures.draw(blended, same=True), len(AMOUNTS)))
    return sheet([Cell([each], amount) for each, amount in zip(drawn, AMOUNTS, strict=True)])


def token_arithmetic(studio: Studio) -> Image.Image:
    """A concept with what tells two others apart."""
    graph = studio.graph()
    creatures = Creatures(graph)
    first, plus, minus = (creatures.saved(name) for name in SPECIES)
    result = graph.add(
        "PiT_TokenArithmetic", tokens=first, mode="add a difference", mode__plus=plus, mode__minus=minus,
        mode__amount=1.0,
    )
    keys = [graph.show(creatures.draw(each, same=True)) for each in (first, plus, minus, result)]
    tokens, added, taken, made = map(Cell, studio.pictures(graph, *keys), ("tokens", "plus", "minus", ""))
    return sheet([tokens, "+", added, "-", taken, "=", made])


def save_tokens(studio: Studio) -> Image.Image:
    """A concept and its file."""
    graph = studio.graph()
    creatures = Creatures(graph)
    concepts = creatures.concepts()
    (drawn,) = studio.pictures(graph, graph.show(creatures.draw(concepts)))
    return sheet([Cell(drawn, "a concept that you like"), "->", Words(FILE, "in models/ip_tokens", 190)])


def load_tokens(studio: Studio) -> Image.Image:
    """A file, and the concept with several words."""
    graph = studio.graph()
    creatures = Creatures(graph)
    tokens = creatures.saved("storm")
    scenes = ("", " at night", " on a beach")
    keys = [graph.show(creatures.draw(tokens, f"a creature{scene}", weight=0.8)) for scene in scenes]
    drawn = zip(studio.pictures(graph, *keys), scenes, strict=True)
    cells = [Cell(pictures, f"a creature{scene}") for pictures, scene in drawn]
    return sheet([Words(FILE, "in models/ip_tokens", 130), "->", *cells])


def labelled_strip(studio: Studio) -> Image.Image:
    """A strip, as the node makes it."""
    graph = studio.graph()
    creatures = Creatures(graph)
    scenes = ("snow", "forest", "sea", "lava")
    prompts = ("in the snow", "in a forest", "under the sea", "on lava")
    drawn = [
        creatures.draw(creatures.saved("ember"), f"a creature {each}", same=True, weight=0.8)
        for each in prompts
    ]
    batch = graph.batch(drawn)
    strip = graph.add("PiT_LabelledStrip", images=batch, labels="\n".join(scenes))
    (pictures,) = studio.pictures(graph, graph.show(strip))
    return sheet([Cell(pictures)])


def ip_lora_prompt(studio: Studio) -> Image.Image:
    """What the node writes."""
    graph = studio.graph()
    kinds = {
        "mode: scene": {"mode": "scene", "mode__scene": "a snowy forest", "mode__style": "studio photo"},
        "mode: character sheet": {"mode": "character sheet"},
    }
    written = {name: graph.add("PiT_IPLoraPrompt", **mode) for name, mode in kinds.items()}
    keys = {name: graph.tell(node["positive"]) for name, node in written.items()}
    texts = studio.run(graph).texts
    return sheet([Words(texts[key], name, 290) for name, key in keys.items()])


def apply_ip_lora(studio: Studio) -> Image.Image:
    """A concept in a scene without and with an IP-LoRA, and its character sheet."""
    graph = studio.graph()
    creatures = Creatures(graph)
    tokens = creatures.concepts()
    patched = creatures.apply(tokens)
    for_scenes = graph.add("PiT_ApplyIPLora", model=patched, file=SCENES_LORA)
    for_sheets = graph.add("PiT_ApplyIPLora", model=patched, file=SHEET_LORA)
    keys = {
        "a concept": graph.show(creatures.draw(tokens)),
        "night meadow, without": graph.show(creatures.draw(tokens, NEW_SCENE, model=patched)),
        "with an IP-LoRA": graph.show(creatures.draw(tokens, NEW_SCENE, model=for_scenes)),
        "or a sheet": graph.show(creatures.draw(tokens, SHEET_WORDS, percent=200, model=for_sheets)),
    }
    shown = studio.run(graph)
    concept, *drawn = (Cell(shown[key], name) for name, key in keys.items())
    return sheet([concept, "->", *drawn])


RECIPES: dict[str, Recipe] = {
    "PiT_ApplyIPLora": apply_ip_lora, "PiT_BatchConcepts": batch_concepts,
    "PiT_BlendConcepts": blend_concepts, "PiT_IPLoraPrompt": ip_lora_prompt,
    "PiT_LabelledStrip": labelled_strip, "PiT_LoadTokens": load_tokens, "PiT_SaveTokens": save_tokens,
    "PiT_TokenArithmetic": token_arithmetic,
}
