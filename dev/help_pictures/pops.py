"""Pictures of the nodes with image embeddings and operators on them (pOps)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from dev.help_pictures.chain import NATIVE, Creatures, Link
from dev.help_pictures.graph import Graph, Node
from dev.help_pictures.sheet import Cell, Item, Words, sheet
from dev.help_pictures.studio import Recipe, Studio
from pit.demo.drawing.creature import creature_from_seed
from pit.demo.drawing.draw import draw_creature

OBJECT, OTHER, TEXTURE, SCENE, THING = "creature", "another creature", "spots", "meadow", "lantern"
WORDS = ("blue body", "no wings", "spotted", "cyclops eyes")
WORD = "bat wings"
FILE = "my_embedding\n.safetensors"
HERE = "here by the creature models"


class Operators(Creatures):
    """The creature models, and their operators on embeddings."""

    def operator(self, words: str) -> Node:
        """A bundled operator, by a word in its name."""
        file = self.graph.choice("PiT_LoadOperator", "file", words)
        return self.graph.add("PiT_LoadOperator", file=file, base="none")

    def embedding(self, picture: Link) -> Node:
        return self.graph.add(
            "PiT_EncodeEmbedding", clip_vision=self.models["CLIP_VISION"], image=picture
        )

    def combined(self, words: str, first: Link, second: Link, **more: Any) -> Node:
        """What an operator makes of two embeddings."""
        return self.graph.add(
            "PiT_Combine", operator=self.operator(words), first=first, second=second, **more
        )

    def instructed(self, embedding: Link, words: str) -> Node:
        return self.graph.add(
            "PiT_Instruct", operator=self.operator("instruct"), embedding=embedding,
            clip=self.models["CLIP"], words=words,
        )

    def embedding_drawn(self, embedding: Link, prompt: str = "", **more: Any) -> Node:
        """Pictures of embeddings, by the base IP-Adapter; they need no words."""
        adapter = self.models["base_adapter"]
        tokens = self.graph.add("PiT_EmbeddingToTokens", embedding=embedding, ip_adapter=adapter)
        return self.draw(tokens, prompt, ip_adapter=adapter, **more)


def started(studio: Studio) -> tuple[Graph, Operators]:
    graph = studio.graph()
    return graph, Operators(graph)


def load_operator(studio: Studio) -> Image.Image:
    """One object, and what four operators make of it."""
    graph, operators = started(studio)
    examples = {name: operators.example(name) for name in (OBJECT, TEXTURE, SCENE, THING)}
    seen = {name: operators.embedding(each) for name, each in examples.items()}
    made = {
        "texture": operators.combined("texturing", seen[OBJECT], seen[TEXTURE]),
        "scene": operators.combined("scene", seen[OBJECT], seen[SCENE]),
        "union": operators.combined("union", seen[OBJECT], seen[THING]),
        "instruct": operators.instructed(seen[OBJECT], WORD),
    }
    keys = [graph.show(examples[OBJECT])]
    keys += [graph.show(operators.embedding_drawn(each, same=True)) for each in made.values()]
    before, *after = studio.pictures(graph, *keys)
    cells = [Cell(each, name) for name, each in zip(made, after, strict=True)]
    return sheet([Cell(before, "an object"), "->", *cells])


def combine(studio: Studio) -> Image.Image:
    """Two pictures and what becomes of them, by two operators."""
    graph, operators = started(studio)
    rows = {"texturing": TEXTURE, "scene": SCENE}
    keys = []
    for kind, second in rows.items():
        pictures = operators.example(OBJECT), operators.example(second)
        made = operators.combined(kind, *map(operators.embedding, pictures), count=3)
        keys += [*map(graph.show, pictures), graph.show(operators.embedding_drawn(made), 3)]
    first, texture, textured, again, scene, placed = studio.pictures(graph, *keys)
    return sheet(
        [Cell(first), "+", Cell(texture), "->", Cell(textured)],
        [Cell(again, "first"), "+", Cell(scene, "second"), "->", Cell(placed, "texture, and scene")],
    )


def instruct(studio: Studio) -> Image.Image:
    """A picture, and the same as words say."""
    graph, operators = started(studio)
    picture = operators.example(OTHER)
    made = operators.instructed(operators.embedding(picture), "\n".join(WORDS))
    keys = graph.show(picture), graph.show(operators.embedding_drawn(made, same=True), len(WORDS))
    before, after = studio.pictures(graph, *keys)
    cells = [Cell([each], words) for words, each in zip(WORDS, after, strict=True)]
    return sheet([Cell(before, "a picture"), "->", *cells])


def compose(studio: Studio) -> Image.Image:
    """Parts, and wholes of them."""
    graph, operators = started(studio)
    parts = operators.parts()
    made = graph.add(
        "PiT_Compose", operator=operators.operator("compose"), count=4,
        parts__part0=operators.embedding(parts),
    )
    given, drawn = studio.pictures(
        graph, graph.show(parts, 3), graph.show(operators.embedding_drawn(made), 4)
    )
    return sheet([Cell(given, "parts", 1), "->", Cell(drawn, "wholes", 2)])


def through_words(
    studio: Studio, between: Words, caption: str, prompts: tuple[str, ...] = ("",) * 3, **more: Any
) -> Image.Image:
    """A picture, what it becomes, and what is drawn of that with these words."""
    graph, operators = started(studio)
    picture = operators.example(OBJECT)
    embedding = operators.embedding(picture)
    keys = [graph.show(picture)]
    for seed, prompt in enumerate(prompts):
        keys.append(graph.show(operators.embedding_drawn(embedding, prompt, seed=seed, **more)))
    before, *after = studio.pictures(graph, *keys)
    drawn: list[Item] = [Cell([each for (each,) in after], caption)]
    return sheet([Cell(before, "a picture"), "->", between, "->", *drawn])


def encode_embedding(studio: Studio) -> Image.Image:
    """A picture, and what its embedding still knows of it."""
    return through_words(studio, Words("one vector", room=100), "drawn of it alone")


def embedding_to_tokens(studio: Studio) -> Image.Image:
    """An embedding beside words."""
    prompts = tuple(f"a creature {place}" for place in ("at night", "in the snow", "on a beach"))
    tokens = Words("embedding,\n4 tokens", room=100)
    return through_words(studio, tokens, "beside the words of a prompt", prompts, weight=0.7)


def load_base_ip_adapter(studio: Studio) -> Image.Image:
    """What a base IP-Adapter is for."""
    return through_words(studio, Words("base\nIP-Adapter", room=110), "drawn of its embedding")


def load_kandinsky_decoder(studio: Studio) -> Image.Image:
    """What a decoder is for."""
    return through_words(studio, Words("embedding,\ndecoder", room=110), f"drawn, {HERE}")


def kandinsky_conditioning(studio: Studio) -> Image.Image:
    """What the two conditionings are for."""
    return through_words(studio, Words("positive,\nnegative", room=110), f"no words needed, {HERE}")


def save_embedding(studio: Studio) -> Image.Image:
    """A picture and the file of its embedding."""
    graph, operators = started(studio)
    (picture,) = studio.pictures(graph, graph.show(operators.example(OBJECT)))
    file = Words(FILE, "in models/image_embeddings", 200)
    return sheet([Cell(picture, "a picture"), "->", Words("one vector", room=110), "->", file])


def load_embedding(studio: Studio) -> Image.Image:
    """A file, and what is drawn of it."""
    graph, operators = started(studio)
    embedding = operators.embedding(operators.example(OBJECT))
    (drawn,) = studio.pictures(graph, graph.show(operators.embedding_drawn(embedding, images=3), 3))
    return sheet([Words(FILE, "in models/image_embeddings", 150), "->", Cell(drawn, "drawn again")])


def train_operator(studio: Studio) -> Image.Image:
    """What an operator learns from, and what it does."""
    before, other = creature_from_seed(11, 0.0), creature_from_seed(12, 0.0)
    worn = {name: other.attributes[name] for name in ("pattern", "body_color")}
    after = replace(before, attributes=before.attributes | worn)
    learned = [draw_creature(each, NATIVE) for each in (before, other, after)]
    graph, operators = started(studio)
    pictures = operators.example(OBJECT), operators.example(TEXTURE)
    made = operators.combined("texturing", *map(operators.embedding, pictures))
    keys = [*map(graph.show, pictures), graph.show(operators.embedding_drawn(made))]
    first, second, result = studio.pictures(graph, *keys)
    return sheet(
        [Cell(learned[:1]), "+", Cell(learned[1:2]), "=", Cell(learned[2:])],
        [Cell(first, "object"), "+", Cell(second, "texture"), "->", Cell(result, "after training")],
    )


def operator_prompts(studio: Studio) -> Image.Image:
    """Two of the prompts that the node writes for one example of each kind."""
    graph = studio.graph()
    kinds = {"texture": {"kind__variants": 1}, "scene": {}, "union": {}}
    keys = {}
    for kind, more in kinds.items():
        node = graph.add("PiT_OperatorPrompts", folder="my_pairs", seed=3, kind=kind, **more)
        keys[kind] = [graph.tell(node[name]) for name in ("prompt", "second")]
    texts = studio.run(graph).texts
    return sheet([
        Words("\n\n".join(texts[key] for key in each), kind, 190) for kind, each in keys.items()
    ])


RECIPES: dict[str, Recipe] = {
    "PiT_Combine": combine, "PiT_Compose": compose, "PiT_EmbeddingToTokens": embedding_to_tokens,
    "PiT_EncodeEmbedding": encode_embedding, "PiT_Instruct": instruct,
    "PiT_KandinskyConditioning": kandinsky_conditioning, "PiT_LoadBaseIPAdapter": load_base_ip_adapter,
    "PiT_LoadEmbedding": load_embedding, "PiT_LoadKandinskyDecoder": load_kandinsky_decoder,
    "PiT_LoadOperator": load_operator, "PiT_OperatorPrompts": operator_prompts,
    "PiT_SaveEmbedding": save_embedding, "PiT_TrainOperator": train_operator,
}
