"""Pictures of the nodes that insert objects."""

from __future__ import annotations

from typing import Any

from PIL import Image

from dev.help_pictures.chain import Creatures, Link
from dev.help_pictures.graph import Graph, Node
from dev.help_pictures.sheet import Cell, Words, difference, sheet
from dev.help_pictures.studio import Recipe, Studio

QUERIES, STEPS = 16, 30
GUIDANCES = (3.0, 7.0, 12.0)


class Insertion(Creatures):
    """The models that insert objects in a graph, a scene, and things."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.inserter = graph.add("PiT_LoadCreatureInstruct")
        who = self.parts(seed=4)["creature"]
        self.drawn = graph.add("PiT_CreatureScene", seed=3, first_thing="lantern", creature=who)
        self.scene, self.thing = self.drawn["without_things"], self.drawn["things"]

    def objects(self, pictures: Link, **more: Any) -> Node:
        """Contexts of objects."""
        return self.graph.add(
            "PiT_EncodeObject", optimizer=self.inserter["optimizer"],
            clip_vision=self.inserter["CLIP_VISION"], image=pictures, queries=QUERIES, fit="letterbox",
            **more,
        )

    def inserted(
        self, pictures: Link, seed: int = 0, steps: int = STEPS, spacing: str = "karras",
        sampler: str = "dpmpp_2m", variants: int = 1, **more: Any,
    ) -> Node:
        """The scene with objects; `more` for Insert Object, by default what suits the creature models."""
        graph, model, vae = self.graph, self.inserter["MODEL"], self.inserter["VAE"]
        contexts = self.objects(pictures, variants=variants)
        insert = graph.add(
            "PiT_InsertObject", model=model, vae=vae, scene=self.scene,
            object_context=contexts["object_context"], null_context=contexts["null_context"],
            **{"guidance": 3.0, "image_guidance": 1.0} | more,
        )
        sigmas = graph.add("PiT_InsertionSchedule", model=model, steps=steps, spacing=spacing)
        samples = graph.add(
            "SamplerCustomAdvanced", noise=graph.add("RandomNoise", noise_seed=seed), guider=insert["guider"],
            sampler=graph.add("KSamplerSelect", sampler_name=sampler), sigmas=sigmas,
            latent_image=insert["latent"],
        )
        decoded = graph.add("VAEDecode", samples=samples, vae=vae)
        return graph.add("PiT_PutBack", image=decoded, place=insert["place"])


def insert_object(studio: Studio) -> Image.Image:
    """A scene, an object, and both with more and more guidance."""
    graph = studio.graph()
    insertion = Insertion(graph)
    keys = [graph.show(insertion.scene), graph.show(insertion.thing)]
    keys += [graph.show(insertion.inserted(insertion.thing, guidance=each)) for each in GUIDANCES]
    scene, thing, *results = studio.pictures(graph, *keys)
    cells = [Cell(each, f"guidance {guidance:g}") for guidance, each in zip(GUIDANCES, results, strict=True)]
    return sheet([Cell(scene, "a scene"), "+", Cell(thing, "an object"), "->", *cells])


def encode_object(studio: Studio) -> Image.Image:
    """Two objects, each inserted twice."""
    graph = studio.graph()
    insertion = Insertion(graph)
    things = insertion.example("lantern and mushroom")
    result = insertion.inserted(things, variants=2)
    keys = graph.show(things, 2), graph.show(insertion.scene), graph.show(result, 4)
    objects, scene, results = studio.pictures(graph, *keys)
    return sheet([
        Cell(objects, "objects", 1), "+", Cell(scene, "a scene"), "->", Cell(results, "variants 2", 2),
    ])


def load_embedding_optimizer(studio: Studio) -> Image.Image:
    """What an optimizer is for."""
    graph = studio.graph()
    insertion = Insertion(graph)
    keys = graph.show(insertion.thing), graph.show(insertion.inserted(insertion.thing))
    thing, result = studio.pictures(graph, *keys)
    words = Words("what stands\nin place of\nwords", "the optimizer", 130)
    return sheet([Cell(thing, "an object"), "->", words, "->", Cell(result, "inserted")])


def load_creature_instruct(studio: Studio) -> Image.Image:
    """A scene and an object, and the scene with it, by three seeds."""
    graph = studio.graph()
    insertion = Insertion(graph)
    keys = [graph.show(insertion.scene), graph.show(insertion.thing)]
    keys += [graph.show(insertion.inserted(insertion.thing, seed=seed)) for seed in range(3)]
    scene, thing, *results = studio.pictures(graph, *keys)
    drawn = Cell([each for (each,) in results], "with the object: three seeds")
    return sheet([Cell(scene, "a scene"), "+", Cell(thing, "an object"), "->", drawn])


def insertion_schedule(studio: Studio) -> Image.Image:
    """Few steps as published, few other ones, and many."""
    graph = studio.graph()
    insertion = Insertion(graph)
    settings = {
        "10, as published": (10, "as published", "euler_ancestral"),
        "10, karras": (10, "karras", "dpmpp_2m"),
        "100, as published": (100, "as published", "euler_ancestral"),
    }
    keys = [graph.show(insertion.scene)] + [
        graph.show(insertion.inserted(insertion.thing, steps=steps, spacing=spacing, sampler=sampler))
        for steps, spacing, sampler in settings.values()
    ]
    scene, *results = studio.pictures(graph, *keys)
    cells = [Cell(each, name) for name, each in zip(settings, results, strict=True)]
    return sheet([Cell(scene, "a scene"), "->", *cells])


def put_back(studio: Studio) -> Image.Image:
    """A scene and a region, the result, and where it differs from the scene."""
    graph = studio.graph()
    insertion = Insertion(graph)
    # The thing's own place, with room around it.
    region = graph.add("GrowMask", mask=insertion.drawn["thing_masks"], expand=24, tapered_corners=True)
    result = insertion.inserted(insertion.thing, region=region)
    keys = graph.show(insertion.scene), graph.show_masks(region), graph.show(result)
    (scene,), (mask,), (after,) = studio.pictures(graph, *keys)
    return sheet([
        Cell([scene], "a scene"), "+", Cell([mask], "a region"), "->", Cell([after], "put back"),
        Cell([difference(scene, after)], "what has changed"),
    ])


def patch_instruct_bias(studio: Studio) -> Image.Image:
    """What the patch adds, and what the model is for."""
    graph = studio.graph()
    insertion = Insertion(graph)
    keys = graph.show(insertion.scene), graph.show(insertion.inserted(insertion.thing))
    scene, result = studio.pictures(graph, *keys)
    return sheet([
        Words("add-base", "your file", 100), "+", Words("320\nvalues", "the patch", 80), "=",
        Words("the published\nmodel", room=120), "->",
        Cell([*scene, *result], "inserts, here as the creature models do it"),
    ])


def train_embedding_optimizer(studio: Studio) -> Image.Image:
    """A triplet that it learns from, and what it does."""
    graph = studio.graph()
    insertion = Insertion(graph)
    who = insertion.parts(seed=11)["creature"]
    triplet = graph.add(
        "PiT_CreatureScene", seed=5, scene="snow", first_thing="mushroom", creature=who,
    )
    names = ("without_things", "things", "picture")
    keys = [graph.show(triplet[name]) for name in names]
    keys += [graph.show(insertion.scene), graph.show(insertion.thing)]
    keys.append(graph.show(insertion.inserted(insertion.thing)))
    scene, thing, target, other, new, result = studio.pictures(graph, *keys)
    return sheet(
        [Cell(scene), "+", Cell(thing), "=", Cell(target)],
        [Cell(other, "scene"), "+", Cell(new, "object"), "->", Cell(result, "after training")],
    )


RECIPES: dict[str, Recipe] = {
    "PiT_EncodeObject": encode_object, "PiT_InsertObject": insert_object,
    "PiT_InsertionSchedule": insertion_schedule, "PiT_LoadCreatureInstruct": load_creature_instruct,
    "PiT_LoadEmbeddingOptimizer": load_embedding_optimizer, "PiT_PatchInstructBias": patch_instruct_bias,
    "PiT_PutBack": put_back, "PiT_TrainEmbeddingOptimizer": train_embedding_optimizer,
}
