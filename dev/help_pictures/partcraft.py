"""Pictures of the nodes that find parts, and draw by words of them (PartCraft)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from dev.help_pictures.chain import NATIVE, Creatures, Link
from dev.help_pictures.graph import Graph, Node, options_of
from dev.help_pictures.sheet import Cell, Words, sheet
from dev.help_pictures.studio import Recipe, Studio

PICTURES, SHOWN = 100, 6  # to find parts in, of which a few are shown
# The first three that have words, each of another species.
PREFERRED, SPECIES = ("horns", "wings", "tail", "ears", "body", "legs"), ("ember", "storm", "frost")
FILE = "my_parts\n.safetensors"
FINEST = "an 8th"  # of the sizes of attention maps: pictures are small


class Parts(Creatures):
    """The creature models in a graph, with an encoder that tells parts apart, and words for them."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.base = graph.add("PiT_LoadCreatureSD15")
        self.words_file = graph.choice("PiT_PartWords", "file")

    def dino(self) -> Node:
        return self.graph.add("PiT_LoadDino", file=self.graph.choice("PiT_LoadDino", "file"))

    def found(self, dino: Node) -> tuple[Node, Node]:
        """Find Parts on a hundred creatures, and a few of these."""
        graph = self.graph
        pictures = graph.add("PiT_CreatureKinds", count=PICTURES)["second"]
        found = graph.add("PiT_FindParts", clip_vision=dino, pictures="batch", pictures__images=pictures)
        return found, graph.add("ImageFromBatch", image=pictures, batch_index=0, length=SHOWN)

    def labeled(self, picture: Link) -> Node:
        """Label Parts on another picture."""
        dino = self.dino()
        found, _ = self.found(dino)
        return self.graph.add("PiT_LabelParts", clip_vision=dino, clusters=found["clusters"], image=picture)

    def mixture(self) -> dict[str, str]:
        """Parts that have words, each of another species."""
        entry = self.graph.definitions["PiT_PartWords"]["input"]["required"]["file"]
        (option,) = (each for each in entry[1]["options"] if each["key"] == self.words_file)
        offered = options_of(option["inputs"]["required"]["part"])
        parts = [part for part in PREFERRED if part in offered]
        return dict(zip(parts, SPECIES, strict=False))

    def pure(self) -> dict[str, dict[str, str]]:
        """The same parts, all of one species, by species."""
        return {species: dict.fromkeys(self.mixture(), species) for species in SPECIES}

    def prompt(self, whose: Mapping[str, str]) -> Link:
        """A text with a word for each part, as the words were learned."""
        text: Any = "a photo of a"
        for part, species in whose.items():
            text = self.graph.add(
                "PiT_PartWords", file=self.words_file, file__part=part, file__whose=species, text=text,
            )["text"]
        return text

    def drawn(self, words: Link, count: int = 1, attention: bool = False) -> tuple[Node, Node | None]:
        """Pictures by a text with part words, and Part Attention on them if it is asked for."""
        graph = self.graph
        file = graph.choice("PiT_LoadPartCraft", "file")
        craft = graph.add(
            "PiT_ApplyPartCraft", model=self.base["MODEL"], clip=self.base["CLIP"],
            part_words=graph.add("PiT_LoadPartCraft", file=file),
        )
        model, watching = craft["model"], None
        if attention:
            positive = graph.add("CLIPTextEncode", clip=craft["clip"], text=words)
            watching = graph.add("PiT_PartAttention", model=model, positive=positive, size=FINEST)
            model = watching["model"]
        latent = graph.add("EmptyLatentImage", width=NATIVE, height=NATIVE, batch_size=count)
        return self.rendered(model, latent, words, clip=craft["clip"], sampler="euler_ancestral"), watching


def find_parts(studio: Studio) -> Image.Image:
    """Creatures, and the parts that are found in them."""
    graph = studio.graph()
    parts = Parts(graph)
    found, few = parts.found(parts.dino())
    pictures, colored = studio.pictures(graph, graph.show(few, SHOWN), graph.show(found["sheet"]))
    return sheet([Cell(pictures, "pictures, no labels", 2), "->", Cell(colored, "their parts")])


def label_parts(studio: Studio) -> Image.Image:
    """Another picture, its parts in colors, and their masks."""
    graph = studio.graph()
    picture = graph.add("PiT_CreatureKinds", count=1, seed=1000)["second"]
    labeled = Parts(graph).labeled(picture)
    keys = graph.show(picture), graph.show(labeled["preview"]), graph.show_masks(labeled["masks"], 0)
    before, colored, masks = studio.pictures(graph, *keys)
    return sheet([
        Cell(before, "a picture"), "->", Cell(colored, "its parts"), Cell(masks, "a mask of each", 3),
    ])


def load_dino(studio: Studio) -> Image.Image:
    """A picture, and how the encoder tells its places apart."""
    return labeled_by(studio, Words("DINO", room=90), "tells its parts apart")


def load_part_clusters(studio: Studio) -> Image.Image:
    """A picture, a file of clusters, and the parts that it finds."""
    return labeled_by(studio, Words(FILE, "in models/part_clusters", 150), "the same parts as before")


def labeled_by(studio: Studio, between: Words, caption: str) -> Image.Image:
    """Two pictures and their parts."""
    graph = studio.graph()
    pictures = graph.add("PiT_CreatureKinds", count=2, seed=1000)["second"]
    labeled = Parts(graph).labeled(pictures)
    keys = graph.show(pictures, 2), graph.show(labeled["preview"], 2)
    before, colored = studio.pictures(graph, *keys)
    return sheet([Cell(before, "pictures", 1), "->", between, "->", Cell(colored, caption, 1)])


def save_part_clusters(studio: Studio) -> Image.Image:
    """Parts that were found, and the names that they get."""
    graph = studio.graph()
    parts = Parts(graph)
    found, _ = parts.found(parts.dino())
    (colored,) = studio.pictures(graph, graph.show(found["sheet"]))
    return sheet([
        Cell(colored, "parts"), "+", Words("body, horns,\nwings, tail, ...", "part_names", 140), "->",
        Words(FILE, "in models/part_clusters", 150),
    ])


def part_words(studio: Studio) -> Image.Image:
    """A text with words, and what is drawn by it."""
    graph = studio.graph()
    parts = Parts(graph)
    words = parts.prompt(parts.mixture())
    drawn, _ = parts.drawn(words, 4)
    text, key = graph.tell(words), graph.show(drawn, 4)
    shown = studio.run(graph)
    return sheet([Words(shown.texts[text], "the text", 220), "->", Cell(shown[key], "drawn by it", 2)])


def load_partcraft(studio: Studio) -> Image.Image:
    """The words of three species, and each of them drawn."""
    graph = studio.graph()
    parts = Parts(graph)
    keys = {name: graph.show(parts.drawn(parts.prompt(whose))[0]) for name, whose in parts.pure().items()}
    shown = studio.run(graph)
    return sheet([
        Words("a word for each\npart of each\nspecies", room=150), "->",
        *(Cell(shown[key], f"<...:{name}>") for name, key in keys.items()),
    ])


def apply_partcraft(studio: Studio) -> Image.Image:
    """Pure species, and a mixture of their parts."""
    graph = studio.graph()
    parts = Parts(graph)
    wanted = [*parts.pure().values(), parts.mixture()]
    keys = [graph.show(parts.drawn(parts.prompt(whose))[0]) for whose in wanted]
    *pure, mixed = studio.pictures(graph, *keys)
    first, second, third = map(Cell, pure, SPECIES)
    told = ", ".join(f"{part} of {species}" for part, species in parts.mixture().items())
    return sheet([first, "+", second, "+", third, "->", Cell(mixed, told)])


def attention_maps(studio: Studio, caption: str) -> Image.Image:
    """A picture, and where the model looked at each word."""
    graph = studio.graph()
    parts = Parts(graph)
    drawn, watching = parts.drawn(parts.prompt(parts.mixture()), attention=True)
    maps = graph.add("PiT_PartAttentionMaps", attention=watching["attention"], image=drawn)
    picture, seen = studio.pictures(graph, graph.show(drawn), graph.show(maps["pictures"], 0))
    return sheet([Cell(picture, "drawn by part words"), "->", Cell(seen, caption)])


def part_attention(studio: Studio) -> Image.Image:
    """What recording is for."""
    return attention_maps(studio, "recorded while it was drawn")


def part_attention_maps(studio: Studio) -> Image.Image:
    """What the node shows."""
    return attention_maps(studio, "where each word acts")


def measure_part_words(studio: Studio) -> Image.Image:
    """Pictures by part words, and the scores."""
    graph = studio.graph()
    parts = Parts(graph)
    dino = parts.dino()
    clusters = graph.add("PiT_LoadPartClusters", file=graph.choice("PiT_LoadPartClusters", "file"))
    words = parts.prompt(parts.mixture())
    drawn, _ = parts.drawn(words, 4)
    scores = graph.add(
        "PiT_MeasurePartWords", clip_vision=dino, clusters=clusters, image=drawn, prompts=words,
        part_words=graph.add("PiT_LoadPartCraft", file=graph.choice("PiT_LoadPartCraft", "file")),
    )
    text, told = graph.tell(words), {name: graph.tell(scores[name]) for name in ("exact", "similarity")}
    key = graph.show(drawn, 4)
    shown = studio.run(graph)
    found = "\n".join(f"{name} {shown.texts[each]:.4}" for name, each in told.items())
    return sheet([
        Words(shown.texts[text], "asked for", 190), "->", Cell(shown[key], "drawn", 2), "->",
        Words(found, "measured", 130),
    ])


def train_partcraft(studio: Studio) -> Image.Image:
    """Pictures, the parts found in them, and what is drawn by words for these."""
    graph = studio.graph()
    parts = Parts(graph)
    found, few = parts.found(parts.dino())
    drawn, _ = parts.drawn(parts.prompt(parts.mixture()), 4)
    keys = graph.show(few, SHOWN), graph.show(found["sheet"]), graph.show(drawn, 4)
    pictures, colored, mixed = studio.pictures(graph, *keys)
    return sheet([
        Cell(pictures, "pictures", 2), "->", Cell(colored, "their parts"), "->",
        Cell(mixed, "drawn by words for parts", 2),
    ])


RECIPES: dict[str, Recipe] = {
    "PiT_ApplyPartCraft": apply_partcraft, "PiT_FindParts": find_parts, "PiT_LabelParts": label_parts,
    "PiT_LoadDino": load_dino, "PiT_LoadPartClusters": load_part_clusters,
    "PiT_LoadPartCraft": load_partcraft, "PiT_MeasurePartWords": measure_part_words,
    "PiT_PartAttention": part_attention, "PiT_PartAttentionMaps": part_attention_maps,
    "PiT_PartWords": part_words, "PiT_SavePartClusters": save_part_clusters,
    "PiT_TrainPartCraft": train_partcraft,
}
