"""Pictures of the nodes that put references together in a pose (Parts2Whole)."""

from __future__ import annotations

from typing import Any, NamedTuple

from PIL import Image

from dev.help_pictures.chain import NATIVE, Creatures, Link
from dev.help_pictures.graph import Graph, Node
from dev.help_pictures.sheet import Cell, Words, sheet, tinted
from dev.help_pictures.studio import Recipe, Studio

SOURCES = {"body": 4, "wings": 7, "horns": 11}  # the seeds of the creatures whose parts are taken
# What a person wears, by what a creature has in its place, in the order of its masks.
NAMES = {"body": "upper-clothes", "mouth": "face", "horns": "hat", "legs": "shoes"}
POSES = ({"view": "front", "raise_wings": 1.0}, {"view": "side"})


class Reference(NamedTuple):
    """A part of a creature: its picture, its mask, and Reference Part on both."""

    picture: Link
    mask: Link
    node: Node


class Figures(Creatures):
    """Parts2Whole for creatures in a graph, and references for it."""

    def __init__(self, graph: Graph):
        super().__init__(graph)
        self.whole = graph.add("PiT_LoadCreatureParts2Whole")
        self.latent = graph.add("EmptyLatentImage", width=NATIVE, height=NATIVE)

    def reference(self, part: str, seed: int, masked: bool = True) -> Reference:
        drawn = self.parts(part, seed=seed)
        # Without a mask, all of the creature counts.
        more = {"words": part, "mask": drawn["masks"]} if masked else {"words": "creature"}
        node = self.graph.add("PiT_ReferencePart", image=drawn["whole"], **more)
        return Reference(drawn["whole"], drawn["masks"], node)

    def references(self) -> list[Reference]:
        return [self.reference(part, seed) for part, seed in SOURCES.items()]

    def encoded(self, references: list[Reference]) -> Node:
        slots = {f"references__reference{number}": each.node for number, each in enumerate(references)}
        return self.graph.add(
            "PiT_EncodeReferences", parts2whole=self.whole["parts2whole"], clip=self.whole["CLIP"],
            vae=self.whole["VAE"], clip_vision=self.whole["CLIP_VISION"], latent=self.latent, **slots,
        )

    def posed(self, **pose: Any) -> tuple[Link, Node]:
        """A drawn pose, as a picture and by Pose Map."""
        label_map = self.parts(seed=3, **pose)["label_map"]
        return label_map, self.graph.add(
            "PiT_PoseMap", parts2whole=self.whole["parts2whole"], image=label_map, latent=self.latent,
        )

    def together(self, references: list[Reference], pose: Link | None = None, seed: int = 0) -> Node:
        """A picture of all references."""
        more = {} if pose is None else {"pose": pose}
        model = self.graph.add(
            "PiT_ApplyParts2Whole", model=self.whole["MODEL"], parts2whole=self.whole["parts2whole"],
            references=self.encoded(references)["references"], **more,
        )
        return self.rendered(model, self.latent, "a creature", seed, "euler_ancestral", self.whole["CLIP"])


def shown_parts(studio: Studio, graph: Graph, references: list[Reference], *keys: str) -> list:
    """The references with their parts in color, then what else is shown."""
    pictures = [(graph.show(each.picture), graph.show_masks(each.mask)) for each in references]
    shown = studio.run(graph)
    colored = [tinted(shown[picture][0], shown[mask][0]) for picture, mask in pictures]
    return [colored, *(shown[key] for key in keys)]


def apply_parts2whole(studio: Studio) -> Image.Image:
    """Parts of three creatures and a pose, and what they become."""
    graph = studio.graph()
    figures = Figures(graph)
    references = figures.references()
    label_map, pose = figures.posed(**POSES[0])
    keys = graph.show(label_map), graph.show(figures.together(references, pose))
    colored, drawn_pose, result = shown_parts(studio, graph, references, *keys)
    return sheet([
        Cell(colored, "references, their parts in red"), "+", Cell(drawn_pose, "a pose"), "->",
        Cell(result, "a whole"),
    ])


def load_parts2whole(studio: Studio) -> Image.Image:
    """Parts of three creatures, and several wholes."""
    graph = studio.graph()
    figures = Figures(graph)
    references = figures.references()
    keys = [graph.show(figures.together(references, seed=seed)) for seed in range(4)]
    colored, *wholes = shown_parts(studio, graph, references, *keys)
    whole = Cell([each for (each,) in wholes], "wholes, four seeds", 2)
    return sheet([Cell(colored, "references", 1), "->", whole])


def load_creature_parts2whole(studio: Studio) -> Image.Image:
    """Parts of three creatures and a pose, and several wholes."""
    graph = studio.graph()
    figures = Figures(graph)
    references = figures.references()
    label_map, pose = figures.posed(**POSES[0])
    keys = [graph.show(label_map)]
    keys += [graph.show(figures.together(references, pose, seed)) for seed in range(4)]
    colored, drawn_pose, *wholes = shown_parts(studio, graph, references, *keys)
    whole = Cell([each for (each,) in wholes], "wholes, four seeds", 2)
    return sheet([Cell(colored, "references", 1), "+", Cell(drawn_pose, "a pose"), "->", whole])


def pose_map(studio: Studio) -> Image.Image:
    """The same references in two poses."""
    graph = studio.graph()
    figures = Figures(graph)
    references, keys = figures.references(), []
    for pose in POSES:
        label_map, node = figures.posed(**pose)
        keys += [graph.show(label_map), graph.show(figures.together(references, node))]
    first, one, second, other = studio.pictures(graph, *keys)
    return sheet([
        Cell(first, "a pose"), "->", Cell(one, "in it"), Cell(second, "another pose"), "->",
        Cell(other, "in it"),
    ])


def reference_part(studio: Studio) -> Image.Image:
    """A picture, its mask and its label, and what is drawn of it without and with the mask."""
    graph = studio.graph()
    figures = Figures(graph)
    masked, whole = (figures.reference("wings", 7, masked) for masked in (True, False))
    keys = [graph.show(masked.picture), graph.show_masks(masked.mask)]
    keys += [graph.show(figures.together([each])) for each in (masked, whole)]
    picture, mask, with_mask, without = studio.pictures(graph, *keys)
    return sheet([
        Cell(picture, "image"), "+", Cell(mask, "mask"), "+", Words("wings", "label", 80), "->",
        Cell(with_mask, "its wings"), Cell(without, "no mask, all of it"),
    ])


def encode_references(studio: Studio) -> Image.Image:
    """References, and the masks as the network sees them."""
    graph = studio.graph()
    figures = Figures(graph)
    references = figures.references()
    encoded = figures.encoded(references)
    keys = graph.show_masks(encoded["masks"], len(SOURCES)), graph.show(figures.together(references))
    colored, masks, result = shown_parts(studio, graph, references, *keys)
    return sheet([
        Cell(colored, "references", 1), "->", Cell(masks, "read of them", 1), "->", Cell(result, "a whole"),
    ])


def single_mask(graph: Graph, masks: Link, number: int) -> Node:
    """One mask of a batch, for which ComfyUI has no node of its own."""
    pictures = graph.add("MaskToImage", mask=masks)
    one = graph.add("ImageFromBatch", image=pictures, batch_index=number, length=1)
    return graph.add("ImageToMask", image=one, channel="red")


def clothes_parser(studio: Studio) -> Image.Image:
    """A figure with masks by name, and the masks of the labels."""
    graph = studio.graph()
    drawn = Creatures(graph).parts(*NAMES, seed=4)
    masks = [single_mask(graph, drawn["masks"], number) for number in range(len(NAMES))]
    parser = graph.add(
        "PiT_ClothesParser", image=drawn["whole"], file="masks by name", names="\n".join(NAMES.values()),
        **{f"masks__mask{number}": mask for number, mask in enumerate(masks)},
    )
    graph.tell(parser)  # or it would not run
    picture, labels = studio.pictures(graph, graph.show(drawn["whole"]), graph.watch(parser))
    return sheet([Cell(picture, "a figure"), "->", Cell(labels, "the masks of the six labels")])


def measure_pictures(studio: Studio) -> Image.Image:
    """A reference, a picture near it and one far from it, and the measure of both."""
    graph = studio.graph()
    creatures = Creatures(graph)
    reference, other = creatures.example("creature"), creatures.example("another creature")
    near = creatures.draw(creatures.image_tokens(reference))
    far = creatures.draw(creatures.image_tokens(other))
    report = graph.add(
        "PiT_MeasurePictures", pictures=graph.batch([near, far]), references=reference,
        clip_vision=creatures.models["CLIP_VISION"],
    )
    told, keys = graph.tell(report), [graph.show(each) for each in (reference, near, far)]
    shown = studio.run(graph)
    first, close, distant = (shown[key] for key in keys)
    return sheet([
        Cell(first, "a reference"), Cell(close, "picture 1"), Cell(distant, "picture 2"), "->",
        Words(shown.texts[told], "the report", 190),
    ])


def train_parts2whole(studio: Studio) -> Image.Image:
    """What it learns from, and what it does."""
    graph = studio.graph()
    figures = Figures(graph)
    lesson = figures.parts("body", "horns", "wings", seed=3)
    references = figures.references()
    label_map, pose = figures.posed(**POSES[0])
    keys = [graph.show(lesson["parts"], 3), graph.show(lesson["label_map"]), graph.show(lesson["whole"])]
    keys += [graph.show(label_map), graph.show(figures.together(references, pose))]
    colored, parts, learned_pose, target, new_pose, result = shown_parts(studio, graph, references, *keys)
    return sheet(
        [Cell(parts), "+", Cell(learned_pose), "=", Cell(target)],
        [Cell(colored, "parts"), "+", Cell(new_pose, "a pose"), "->", Cell(result, "after training")],
    )


RECIPES: dict[str, Recipe] = {
    "PiT_ApplyParts2Whole": apply_parts2whole, "PiT_ClothesParser": clothes_parser,
    "PiT_EncodeReferences": encode_references, "PiT_LoadCreatureParts2Whole": load_creature_parts2whole,
    "PiT_LoadParts2Whole": load_parts2whole,
    "PiT_MeasurePictures": measure_pictures, "PiT_PoseMap": pose_map,
    "PiT_ReferencePart": reference_part, "PiT_TrainParts2Whole": train_parts2whole,
}
