"""Pictures of the nodes that load the creature models, and of those that draw and measure creatures."""

from __future__ import annotations

from PIL import Image

from dev.help_pictures.chain import NATIVE, Creatures
from dev.help_pictures.sheet import Cell, sheet
from dev.help_pictures.studio import Recipe, Studio

SPOKEN = (
    "a creature and a red ball in a meadow", "a blue lantern and a green mushroom in the snow",
    "a purple round creature with yellow bat wings at night", "a creature seen from behind under the sea",
)
EXAMPLES = (
    ("parts of ember", 3), ("parts of storm", 3), ("creature", 1), ("another creature", 1),
    ("lantern and mushroom", 2), ("balloon", 1), ("spots", 1), ("meadow", 1), ("meadow with a creature", 1),
)
DIFFERENCE = "no wings to bat wings"


def load_creature_models(studio: Studio) -> Image.Image:
    """Two sets of parts, and what the models make of them."""
    graph = studio.graph()
    creatures, keys = Creatures(graph), []
    for species in ("ember", "storm"):
        parts = creatures.example(f"parts of {species}")
        drawn = creatures.draw(creatures.sample(creatures.encode(parts), 3))
        keys.append((graph.show(parts, 3), graph.show(drawn, 3)))
    shown = studio.run(graph)
    (ember, first), (storm, second) = keys
    return sheet(
        [Cell(shown[ember]), "->", Cell(shown[first])],
        [Cell(shown[storm], "parts"), "->", Cell(shown[second], "whole creatures, in seconds on a CPU")],
    )


def load_creature_sd15(studio: Studio) -> Image.Image:
    """Texts, and what is drawn by them."""
    graph = studio.graph()
    creatures, base = Creatures(graph), graph.add("PiT_LoadCreatureSD15")
    latent = graph.add("EmptyLatentImage", width=NATIVE, height=NATIVE)
    keys = {
        words: graph.show(creatures.rendered(
            base["MODEL"], latent, words, clip=base["CLIP"], sampler="euler_ancestral",
        ))
        for words in SPOKEN
    }
    shown = studio.run(graph)
    return sheet([Cell(shown[key], words) for words, key in keys.items()])


def creature_parts(studio: Studio) -> Image.Image:
    """All that the node gives, and the whole in other poses."""
    graph = studio.graph()
    creatures = Creatures(graph)
    node = creatures.parts(raise_arms=0.0)
    poses = [
        creatures.parts(view=view, raise_arms=arms, raise_wings=arms)
        for view, arms in (("side", 0.0), ("back", 0.0), ("front", 1.0))
    ]
    parts, masks = graph.show(node["parts"], 3), graph.show_masks(node["masks"], 3)
    whole, label_map = graph.show(node["whole"]), graph.show(node["label_map"])
    posed = [graph.show(pose["whole"]) for pose in poses]
    shown = studio.run(graph)
    return sheet([
        Cell(shown[parts], "parts", 1), Cell(shown[whole], "whole"), Cell(shown[label_map], "label_map"),
        Cell(shown[masks], "masks", 1), Cell([shown[key][0] for key in posed], "poses", 1),
    ])


def creature_scene(studio: Studio) -> Image.Image:
    """All that the node gives."""
    graph = studio.graph()
    node = graph.add(
        "PiT_CreatureScene", seed=3, first_thing="lantern", creature=Creatures(graph).parts()["creature"],
    )
    names = ("picture", "without_things", "things", "label_map")
    keys = {name: graph.show(node[name]) for name in names}
    keys["thing_masks"] = graph.show_masks(node["thing_masks"])
    shown = studio.run(graph)
    return sheet([Cell(shown[key], name) for name, key in keys.items()])


def creature_kinds(studio: Studio) -> Image.Image:
    """Creatures of both kinds."""
    graph = studio.graph()
    node = graph.add("PiT_CreatureKinds", difference=DIFFERENCE, count=6)
    keys = graph.show(node["first"], 6), graph.show(node["second"], 6)
    first, second = studio.pictures(graph, *keys)
    return sheet([Cell(first, "first: no wings", 3), Cell(second, "second: bat wings", 3)])


def creature_species(studio: Studio) -> Image.Image:
    """A creature of each species."""
    graph = studio.graph()
    key = graph.show(graph.add("PiT_CreatureSpecies", count=1, name="help_species")["images"], 8)
    return sheet([Cell(*studio.pictures(graph, key), "a folder for each species", 4)])


def creature_dataset(studio: Studio) -> Image.Image:
    """What the node shows of a data set."""
    graph = studio.graph()
    node = graph.add("PiT_CreatureDataset", count=4, name="help_creatures")
    key = graph.show(node["sheet"])
    return sheet([Cell(studio.run(graph)[key], "creatures and their parts")])


def measure_creatures(studio: Studio) -> Image.Image:
    """Creatures that keep parts, and the table of what they keep."""
    graph = studio.graph()
    creatures = Creatures(graph)
    node = creatures.parts()
    drawn = creatures.draw(creatures.sample(creatures.encode(node["parts"]), 16), "a creature at night")
    table = graph.add("PiT_MeasureCreatures", images=drawn, creature=node["creature"], scene="night")
    parts, pictures, found = studio.pictures(
        graph, graph.show(node["parts"], 3), graph.show(drawn, 16), graph.show(table["table"])
    )
    return sheet([Cell(parts, "given", 1), "->", Cell(pictures, "drawn", 4), "->", Cell(found, "kept")])


def example_pictures(studio: Studio) -> Image.Image:
    """What the list offers, but for the parts of the other creatures."""
    graph = studio.graph()
    keys = [
        graph.show(graph.add("PiT_ExamplePictures", pictures=name), count) for name, count in EXAMPLES
    ]
    shown = studio.run(graph)
    return sheet([Cell([each for key in keys for each in shown[key]], columns=7)])


RECIPES: dict[str, Recipe] = {
    "PiT_CreatureDataset": creature_dataset, "PiT_CreatureKinds": creature_kinds,
    "PiT_CreatureParts": creature_parts, "PiT_CreatureScene": creature_scene,
    "PiT_CreatureSpecies": creature_species,
    "PiT_ExamplePictures": example_pictures, "PiT_LoadCreatureModels": load_creature_models,
    "PiT_LoadCreatureSD15": load_creature_sd15, "PiT_MeasureCreatures": measure_creatures,
}
