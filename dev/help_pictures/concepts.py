"""Pictures of the nodes from parts to concepts, and of those that render them."""

from __future__ import annotations

from PIL import Image

from dev.help_pictures.chain import CFG, Creatures
from dev.help_pictures.sheet import Cell, Words, sheet
from dev.help_pictures.studio import Recipe, Studio

WEIGHTS = (-1.0, 0.0, 1.0, 1.5)
WINGS = 2  # the number of the wings among the given parts
LAYERS = ("all", "strong middle", "weak middle", "weak output")
SETS = ("ember", "lagoon", "moss", "storm")


def cut_out_part(studio: Studio) -> Image.Image:
    """A picture and a mask, and the part."""
    graph = studio.graph()
    drawn = Creatures(graph).parts("wings", seed=13)  # whose arms do not hide them
    part = graph.add("PiT_CutOutPart", image=drawn["whole"], mask=drawn["masks"])
    keys = graph.show(drawn["whole"]), graph.show_masks(drawn["masks"]), graph.show(part)
    picture, mask, result = studio.pictures(graph, *keys)
    return sheet([Cell(picture, "a picture"), "+", Cell(mask, "a mask"), "->", Cell(result, "the part")])


def encode_parts(studio: Studio) -> Image.Image:
    """Parts, and what the encoder sees of them."""
    graph = studio.graph()
    creatures = Creatures(graph)
    parts = creatures.parts()
    keys = {}
    for name, more in {"what the encoder sees": {}, "with sketch 1": {"sketch": 1.0}}.items():
        encoded = creatures.encode(parts, **more)
        graph.tell(encoded)  # or it would not run
        keys[name] = graph.watch(encoded, 3)
    given = graph.show(parts, 3)
    shown = studio.run(graph)
    seen = [Cell(shown[key], name) for name, key in keys.items()]
    return sheet([Cell(shown[given], "parts", 1), "->", *seen])


def encode_image(studio: Studio) -> Image.Image:
    """A picture, and what is rendered of its tokens."""
    graph = studio.graph()
    creatures = Creatures(graph)
    picture = creatures.example("creature")
    keys = graph.show(picture), graph.show(creatures.draw(creatures.image_tokens(picture), images=4), 4)
    given, drawn = studio.pictures(graph, *keys)
    words = Words("16 tokens", room=100)
    return sheet([Cell(given, "a picture"), "->", words, "->", Cell(drawn, "drawn of them, four seeds", 2)])


def part_weight(studio: Studio) -> Image.Image:
    """One concept with several weights of its wings."""
    graph = studio.graph()
    creatures = Creatures(graph)
    parts = creatures.parts()
    given, keys = graph.show(parts, 3), {}
    for weight in WEIGHTS:
        weighed = graph.add("PiT_PartWeight", parts=creatures.encode(parts), part=WINGS, weight=weight)
        keys[weight] = graph.show(creatures.draw(creatures.sample(weighed), same=True))
    shown = studio.run(graph)
    drawn = [Cell(shown[key], f"wings {weight:g}") for weight, key in keys.items()]
    return sheet([Cell(shown[given], "parts", 1), "->", *drawn])


def sample_prior(studio: Studio) -> Image.Image:
    """Parts, and what several seeds make of them."""
    graph = studio.graph()
    creatures = Creatures(graph)
    parts = creatures.parts()
    keys = graph.show(parts, 3), graph.show(creatures.draw(creatures.sample(creatures.encode(parts), 8)), 8)
    given, drawn = studio.pictures(graph, *keys)
    return sheet([Cell(given, "parts", 1), "->", Cell(drawn, "concepts that keep them: eight seeds", 4)])


def load_ip_prior(studio: Studio) -> Image.Image:
    """What a prior is for."""
    graph = studio.graph()
    creatures = Creatures(graph)
    parts = creatures.example("parts of moss")
    keys = graph.show(parts, 3), graph.show(creatures.draw(creatures.sample(creatures.encode(parts), 4)), 4)
    given, drawn = studio.pictures(graph, *keys)
    prior = Words("IP-Prior", "completes", 110)
    return sheet([Cell(given, "parts", 1), "->", prior, "->", Cell(drawn, "whole concepts", 2)])


def load_ip_adapter(studio: Studio) -> Image.Image:
    """What an IP-Adapter is for."""
    graph = studio.graph()
    creatures = Creatures(graph)
    picture = creatures.example("another creature")
    tokens = creatures.image_tokens(picture)
    prompts = ("a creature at night", "a creature in the snow")
    keys = [graph.show(picture), *(graph.show(creatures.draw(tokens, each, weight=0.7)) for each in prompts)]
    picture, *drawn = studio.pictures(graph, *keys)
    adapter = Words("IP-Adapter", "tokens beside words", 120)
    ends = [Cell(each, words.removeprefix("a creature ")) for words, each in zip(prompts, drawn, strict=True)]
    return sheet([Cell(picture, "a picture"), "->", adapter, "->", *ends])


def pick_concepts(studio: Studio) -> Image.Image:
    """A wall, and one of it."""
    graph = studio.graph()
    creatures = Creatures(graph)
    wall = creatures.concepts(12)
    picked = graph.add("PiT_PickConcepts", tokens=wall, numbers="6")
    keys = [graph.show(creatures.draw(each, same=True), count) for each, count in ((wall, 12), (picked, 1))]
    concepts, one = studio.pictures(graph, *keys)
    return sheet([Cell(concepts, "numbers: 6", 4, (5,)), "->", Cell(one, "the same concept, alone")])


def empty_latent(studio: Studio) -> Image.Image:
    """As many pictures as concepts, and several of each."""
    graph = studio.graph()
    creatures = Creatures(graph)
    concepts = creatures.concepts(3)
    keys = [graph.show(creatures.draw(concepts, images=count), 3 * count) for count in (1, 2)]
    one, two = studio.pictures(graph, *keys)
    return sheet([Cell(one, "three concepts"), Cell(two, "images_per_concept 2", 3)])


def apply_tokens(studio: Studio) -> Image.Image:
    """Words alone, and tokens of several weights beside them."""
    graph = studio.graph()
    creatures = Creatures(graph)
    tokens, words = creatures.concepts(), "a creature in a forest"
    latent = graph.add("PiT_EmptyLatent", model=creatures.models["MODEL"], tokens=tokens)
    keys = {
        "concept": graph.show(creatures.draw(tokens, same=True)),
        "words alone": graph.show(creatures.rendered(creatures.models["MODEL"], latent, words, cfg=CFG)),
    } | {
        f"weight {weight:g}": graph.show(creatures.draw(tokens, words, same=True, weight=weight))
        for weight in (0.5, 1.0)
    }
    shown = studio.run(graph)
    concept, *others = (Cell(shown[key], name) for name, key in keys.items())
    return sheet([concept, "->", *others])


def layer_weights(studio: Studio) -> Image.Image:
    """One concept with several presets."""
    graph = studio.graph()
    creatures = Creatures(graph)
    tokens, keys = creatures.concepts(), {}
    for preset in LAYERS:
        weights = graph.add("PiT_LayerWeights", preset=preset)
        drawn = creatures.draw(tokens, "a creature at night", same=True, layer_weights=weights)
        keys[preset] = graph.show(drawn)
    shown = studio.run(graph)
    return sheet([Cell(shown[key], preset) for preset, key in keys.items()])


def load_part_sets(studio: Studio) -> Image.Image:
    """A folder, its sets, and what becomes of each."""
    graph = studio.graph()
    creatures = Creatures(graph)
    sets = graph.add("PiT_LoadPartSets", folder="examples of the pack")
    drawn = creatures.draw(creatures.sample(creatures.encode(sets["parts"]), 3))
    keys = graph.show(sets["parts"], 3 * len(SETS)), graph.show(drawn, 3 * len(SETS))
    parts, concepts = studio.pictures(graph, *keys)
    folder = Words("\n".join(f"my_ideas/{name}" for name in SETS), "a folder", 150)
    return sheet([folder, "->", Cell(parts, "sets of parts", 3), "->", Cell(concepts, "concepts", 3)])


RECIPES: dict[str, Recipe] = {
    "PiT_ApplyTokens": apply_tokens, "PiT_CutOutPart": cut_out_part, "PiT_EmptyLatent": empty_latent,
    "PiT_EncodeImage": encode_image, "PiT_EncodeParts": encode_parts, "PiT_LayerWeights": layer_weights,
    "PiT_LoadIPAdapter": load_ip_adapter, "PiT_LoadIPPrior": load_ip_prior,
    "PiT_LoadPartSets": load_part_sets, "PiT_PartWeight": part_weight, "PiT_PickConcepts": pick_concepts,
    "PiT_SamplePrior": sample_prior,
}
