"""Pictures of the nodes that make data sets, and train priors and IP-LoRAs."""

from __future__ import annotations

from dataclasses import replace

from PIL import Image

from dev.help_pictures.chain import NATIVE, Creatures
from dev.help_pictures.graph import Graph, Node
from dev.help_pictures.sheet import Cell, Words, sheet
from dev.help_pictures.studio import Recipe, Studio
from dev.help_pictures.tokens import NEW_SCENE, SCENES_LORA
from pit.demo.datasets import write_creature_dataset
from pit.demo.drawing.creature import creature_from_seed
from pit.demo.drawing.draw import draw_creature

DOMAINS = ("characters", "products", "plush")
FOLDER = "help_things"
TREE = "my_things/target/1.png\nmy_things/parts/1/0.png\nmy_things/parts/1/1.png\n..."
# Trainings of minutes: enough to see them learn, too little to be good.
PICTURES, STEPS_SHOWN = 400, (40, 200, 800)
TRAINING = {
    "preset": "recommended", "batch": 32, "hidden_dim": 192, "layers": 5, "heads": 6, "save_every": 200,
}
LEARNER = creature_from_seed(11, 0.0)


def dataset_prompts(studio: Studio) -> Image.Image:
    """A prompt of each domain."""
    graph = studio.graph()
    keys = {
        domain: graph.tell(graph.add("PiT_DatasetPrompts", domain=domain, count=1, seed=2)["prompts"])
        for domain in DOMAINS
    }
    texts = studio.run(graph).texts
    return sheet([Words(texts[key], domain, 190) for domain, key in keys.items()])


def make_parts(studio: Studio) -> Image.Image:
    """Pictures, and the parts into which they are cut."""
    graph = studio.graph()
    creatures = Creatures(graph)
    pictures = [creatures.parts(seed=seed)["whole"] for seed in (4, 7, 11)]
    batch = graph.batch(pictures)
    made = graph.add("PiT_MakeParts", images=batch, name="help_parts")
    whole, parts = studio.pictures(graph, graph.show(batch, 3), graph.show(made["sheet"]))
    return sheet([Cell(whole, "pictures", 1), "->", Cell(parts, "with their parts")])


def drawn_dataset(studio: Studio, graph: Graph, count: int = 4) -> Node:
    """Load Dataset on a folder of drawn creatures."""
    name = studio.input_folder(
        FOLDER, lambda folder: write_creature_dataset(folder, count, 0, 0.3, lambda done, total: None)
    )
    return graph.add("PiT_LoadDataset", folder=f"input/{name}")


def load_dataset(studio: Studio) -> Image.Image:
    """A folder, and what is in it."""
    graph = studio.graph()
    node = drawn_dataset(studio, graph)
    (found,) = studio.pictures(graph, graph.show(node["sheet"]))
    return sheet([Words(TREE, "a folder", 200), "->", Cell(found, "pictures and their parts")])


def encode_dataset(studio: Studio) -> Image.Image:
    """Pictures and parts, and what becomes of them."""
    graph = studio.graph()
    node = drawn_dataset(studio, graph)
    (found,) = studio.pictures(graph, graph.show(node["sheet"]))
    tokens = Words("16 tokens\nfor each picture\nand each part,\nin 4 variants", "a token cache", 150)
    return sheet([Cell(found, "a dataset"), "->", tokens])


def trained(studio: Studio, steps: int) -> dict[str, list[Image.Image]]:
    """A training of so many steps: its chart, given parts, and what its prior makes of them."""
    graph = studio.graph()
    creatures = Creatures(graph)
    data = graph.add("PiT_CreatureDataset", count=PICTURES, coherence=1.0, name="help_prior")
    tokens = graph.add(
        "PiT_EncodeDataset", dataset=data["dataset"], name="help_prior", variants=2, **creatures.encoders
    )
    # ComfyUI does not repeat a training that is finished, for whichever node it is asked for.
    prior = graph.add(
        "PiT_TrainPrior", tokens=tokens["tokens"], name=f"help_prior_{steps}", steps=steps, **TRAINING
    )
    parts = creatures.parts(species="ember")
    drawn = creatures.draw(creatures.sample(creatures.encode(parts), 4, prior=prior["prior"]))
    keys = graph.show(parts, 3), graph.show(drawn, 4), graph.show(prior["chart"])
    return dict(zip(("parts", "drawn", "chart"), studio.pictures(graph, *keys), strict=True))


def train_prior(studio: Studio) -> Image.Image:
    """The chart of a training, and what its prior makes."""
    last = trained(studio, STEPS_SHOWN[-1])
    return sheet([
        Cell(last["chart"], "minutes on a CPU"), "->", Cell(last["drawn"], "concepts of your own prior", 2),
    ])


def training_preview(studio: Studio) -> Image.Image:
    """What a prior makes of the same parts the longer it learns."""
    found = [trained(studio, steps) for steps in STEPS_SHOWN]
    cells = [
        Cell(each["drawn"], f"after {steps} steps", 2)
        for steps, each in zip(STEPS_SHOWN, found, strict=True)
    ]
    return sheet([Cell(found[0]["parts"], "parts", 1), "->", *cells])


def train_ip_lora(studio: Studio) -> Image.Image:
    """What an IP-LoRA learns from, and what it does."""
    graph = studio.graph()
    creatures = Creatures(graph)
    tokens = creatures.concepts()
    model = graph.add("PiT_ApplyIPLora", model=creatures.apply(tokens), file=SCENES_LORA)
    (drawn,) = studio.pictures(graph, graph.show(creatures.draw(tokens, NEW_SCENE, model=model)))
    reference, target = (
        draw_creature(replace(LEARNER, scene=scene), NATIVE) for scene in ("white", "night_meadow")
    )
    words = Words("a creature in\na night meadow", "a caption", 130)
    return sheet([
        Cell([reference], "a reference"), "+", words, "->", Cell([target], "learns this"), "->",
        Cell(drawn, "draws another"),
    ])


RECIPES: dict[str, Recipe] = {
    "PiT_DatasetPrompts": dataset_prompts, "PiT_EncodeDataset": encode_dataset,
    "PiT_LoadDataset": load_dataset, "PiT_MakeParts": make_parts, "PiT_TrainIPLora": train_ip_lora,
    "PiT_TrainPrior": train_prior, "PiT_TrainingPreview": training_preview,
}
