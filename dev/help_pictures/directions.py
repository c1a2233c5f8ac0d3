"""Pictures of the nodes with directions."""

from __future__ import annotations

from typing import Any

from PIL import Image

from dev.help_pictures.chain import Creatures, Link
from dev.help_pictures.graph import Node
from dev.help_pictures.sheet import Cell, Words, sheet
from dev.help_pictures.studio import Recipe, Studio

DIFFERENCE = "no wings to bat wings"
KINDS = 32  # pictures of each, of which a few are shown
SHOWN = 4
AMOUNTS = ("-1", "-0.5", "0", "0.5", "1")
TALL, WARM = "round to tall body", "cold to warm body"
EDITED = 103  # the seed of a creature without wings
FILE = "my_direction\n.safetensors"


def loaded(creatures: Creatures, name: str) -> Node:
    return creatures.graph.add("PiT_LoadDirection", file=f"creature models: {name}")


def edited(creatures: Creatures, tokens: Link, direction: Link, amounts: str, **more: Any) -> Node:
    """Pictures of a concept that is moved along a direction."""
    tokens = creatures.graph.add(
        "PiT_DirectionEdit", tokens=tokens, direction=direction, amounts=amounts, **more
    )
    return creatures.draw(tokens["tokens"], same=True)


def a_concept(creatures: Creatures) -> Node:
    return creatures.sample(creatures.encode(creatures.parts("legs", "tail", seed=30)), seed=3)


def both_kinds(creatures: Creatures) -> tuple[Node, list[str]]:
    """Creatures of two kinds, and by what the first few of them are found after a run."""
    graph = creatures.graph
    kinds = graph.add("PiT_CreatureKinds", difference=DIFFERENCE, count=KINDS)
    few = [
        graph.add("ImageFromBatch", image=kinds[name], batch_index=0, length=SHOWN)
        for name in ("first", "second")
    ]
    return kinds, [graph.show(each, SHOWN) for each in few]


def find_direction(studio: Studio) -> Image.Image:
    """Pictures of two kinds, and the chart of the direction."""
    graph = studio.graph()
    creatures = Creatures(graph)
    kinds, keys = both_kinds(creatures)
    found = graph.add(
        "PiT_FindDirection", pictures="batches", pictures__first=kinds["first"],
        pictures__second=kinds["second"], **creatures.encoders,
    )
    first, second, chart = studio.pictures(graph, *keys, graph.show(found["chart"]))
    return sheet([Cell(first, "first", 2), Cell(second, "second", 2), "->", Cell(chart, "a direction")])


def direction_between(studio: Studio) -> Image.Image:
    """Concepts of two kinds, and an edit by what tells them apart."""
    graph = studio.graph()
    creatures = Creatures(graph)
    kinds, keys = both_kinds(creatures)
    tokens = {name: creatures.image_tokens(kinds[name]) for name in ("first", "second")}
    direction = graph.add("PiT_DirectionBetween", **tokens)["direction"]
    one = graph.add("PiT_CreatureKinds", difference=DIFFERENCE, count=1, seed=EDITED)
    strip = edited(creatures, creatures.image_tokens(one), direction, "0, 1", unit="recommended")
    first, second, (before, after) = studio.pictures(graph, *keys, graph.show(strip, 2))
    return sheet([
        Cell(first, "first", 2), Cell(second, "second", 2), "->",
        Cell([before], "another one"), Cell([after], "edited"),
    ])


def direction_edit(studio: Studio) -> Image.Image:
    """One concept by several amounts."""
    graph = studio.graph()
    creatures = Creatures(graph)
    strip = edited(creatures, a_concept(creatures), loaded(creatures, WARM), ", ".join(AMOUNTS))
    (drawn,) = studio.pictures(graph, graph.show(strip, len(AMOUNTS)))
    return sheet([Cell([each], amount) for each, amount in zip(drawn, AMOUNTS, strict=True)])


def combine_directions(studio: Studio) -> Image.Image:
    """One concept along two directions, and along their sum."""
    graph = studio.graph()
    creatures = Creatures(graph)
    concept, tall, warm = a_concept(creatures), loaded(creatures, TALL), loaded(creatures, WARM)
    both = graph.add("PiT_CombineDirections", first=tall, second=warm, mode="sum")
    edits = {"first: tall": tall, "second: warm": warm, "their sum": both}
    keys = [graph.show(creatures.draw(concept, same=True))]
    keys += [graph.show(edited(creatures, concept, each, "1")) for each in edits.values()]
    before, *after = studio.pictures(graph, *keys)
    cells = [Cell(each, name) for name, each in zip(edits, after, strict=True)]
    return sheet([Cell(before, "a concept"), "->", *cells])


def load_direction(studio: Studio) -> Image.Image:
    """A file, and what it does to a concept."""
    graph = studio.graph()
    creatures = Creatures(graph)
    strip = edited(creatures, a_concept(creatures), loaded(creatures, TALL), "-1, 0, 1")
    (drawn,) = studio.pictures(graph, graph.show(strip, 3))
    return sheet([Words(FILE, "in models/ip_directions", 160), "->", Cell(drawn, "round ... tall")])


def save_direction(studio: Studio) -> Image.Image:
    """Pictures of two kinds, and the file of what tells them apart."""
    graph = studio.graph()
    _, keys = both_kinds(Creatures(graph))
    first, second = studio.pictures(graph, *keys)
    file = Words(FILE, "in models/ip_directions", 170)
    return sheet([Cell(first, "from", 2), "->", Cell(second, "to", 2), "=", file])


RECIPES: dict[str, Recipe] = {
    "PiT_CombineDirections": combine_directions, "PiT_DirectionBetween": direction_between,
    "PiT_DirectionEdit": direction_edit, "PiT_FindDirection": find_direction,
    "PiT_LoadDirection": load_direction, "PiT_SaveDirection": save_direction,
}
