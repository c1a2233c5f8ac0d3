"""Words for a text-to-image model that makes examples to learn from, and the names that they are read by.

The published scripts (github.com/pOpsPaper/pOps) draw from 20,853 objects, 104 places and 310 textures; these
are others of the same kinds, in sentences of the same form.
"""
from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ...messages import quoted

PLACE_SHARE = 0.5  # of the pictures in which a scene is not what is learned
MOST_MATERIALS = 3
LONGEST_NAME = 60  # characters of a name before its number

THINGS = (
    "chair, armchair, table, lamp, vase, teapot, cup, bottle, bowl, basket, candle, clock, mirror, book, "
    "guitar, violin, trumpet, drum, camera, telephone, typewriter, suitcase, backpack, umbrella, hat, boot, "
    "sneaker, glove, crown, helmet, mask, teddy bear, doll, toy train, kite, ball, drone, robot, car, "
    "truck, bus, bicycle, motorcycle, sailboat, airplane, helicopter, rocket, house, castle, windmill, "
    "lighthouse, statue, fountain, bench, mailbox, barrel, anchor, wheelbarrow, shovel, hammer, axe, key, "
    "lantern, dog, cat, horse, cow, sheep, pig, goat, rabbit, squirrel, fox, wolf, bear, panda, lion, "
    "tiger, elephant, giraffe, zebra, deer, monkey, kangaroo, turtle, frog, lizard, snail, duck, owl, "
    "parrot, eagle, penguin, flamingo, fish, crab, octopus, butterfly, beetle, dragon, pumpkin, mushroom, "
    "pineapple, apple, pear, cake, cupcake, sandwich, ice cream cone, cactus, bonsai tree, sunflower, rose"
)
PLACES = (
    "on a beach, in a forest, on grass, in a desert, in the snow, in a swamp, on a mountain, in a valley, "
    "in a cave, on a cliff, in a meadow, in a field of wheat, in a jungle, on a frozen lake, by a river, on "
    "a road, in a street, in an alley, on a bridge, on a rooftop, in a park, in a garden, in a playground, "
    "in a stadium, in a market, in a museum, in a library, in a kitchen, in a bathroom, in a bedroom, in a "
    "living room, in a workshop, in a factory, in a garage, in a greenhouse, in a cathedral, in a train "
    "station, on a stage, on a wooden table, on a marble floor, on a carpet, in a canyon, on a pier, in a "
    "harbor, on the moon"
)
MATERIALS = (
    "moss, bark, wood, bamboo, wicker, straw, cork, leaves, grass, petals, feathers, fur, wool, felt, "
    "denim, velvet, silk, lace, leather, snakeskin, fish scales, burlap, yarn, paper, cardboard, newspaper, "
    "origami, clay, porcelain, terracotta, brick, concrete, marble, granite, sandstone, slate, pebbles, "
    "sand, mud, coral, bone, ivory, pearls, amber, crystal, glass, stained glass, ice, water, lava, smoke, "
    "gold, silver, copper, bronze, rusty iron, chrome, steel wool, gears, circuit boards, plastic, rubber, "
    "balloons, foam, wax, chocolate, candy, honey, bread, cheese, pasta, berries, jelly beans, beads, "
    "buttons, mosaic tiles"
)
SCENE = re.compile(r"(?:(?:in|on|at|by|near|under|inside)\s+)?(?:(an?|the)\s+)?(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class PairWords:
    """What pictures are drawn of.

    Attributes:
        variants: how many pictures of a texture's object there are besides the first one.
    """

    things: tuple[str, ...] = tuple(THINGS.split(", "))
    places: tuple[str, ...] = tuple(PLACES.split(", "))
    materials: tuple[str, ...] = tuple(MATERIALS.split(", "))
    variants: int = 5


@dataclass(frozen=True)
class PairPrompts:
    """What makes one example.

    Attributes:
        prompt: of the picture.
        first: the thing in it that is to be found.
        second: the other thing, or else prompts: of the empty scene, or of each variant of the picture.
        seeds: one for each of `second`.
        names: of the files, without number and ending: of the picture; of the mask or the first cut-out; of
            the empty scene, the variants or the second cut-out.
    """

    prompt: str
    first: str
    second: tuple[str, ...]
    seeds: tuple[int, ...]
    names: tuple[str, str, str]


Said = tuple[str, str, list[str], str]


def pair_prompts(mode: str, seed: int, words: PairWords | None = None) -> PairPrompts:
    """Prompts of one example, and names by which `read_operator_dataset` reads its pictures.

    They depend on all that is given, and the names on the seed: files of several examples, and of one that
    was made in part, are never taken for each other.

    Args:
        mode: one of `PAIRS`.
        words: ours by default.
    Raises:
        ValueError: another mode, or a union of less than two things.
    """
    if mode not in PAIRS:
        raise ValueError(f"Expected one of {', '.join(PAIRS)}, got {quoted(mode)}.")
    rng = random.Random(f"{mode}/{seed}")
    write, endings = PAIRS[mode]
    prompt, first, second, shown = write(rng, words or PairWords())
    name = f"{plain_name(shown)}_{seed}"
    seeds = tuple(rng.getrandbits(64) for _ in second)
    return PairPrompts(prompt, first, tuple(second), seeds, tuple(name + ending for ending in endings))


def lines_of_words(text: str, default: tuple[str, ...]) -> tuple[str, ...]:
    """Each line once, without the signs that mean something to text encoders; the default if there is none.

    Raises ValueError for lines without a letter or a number.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    wordless = next((line for line in lines if not plain_name(line)), None)
    if wordless is not None:
        raise ValueError(f"Expected words on each line, got {quoted(wordless)}. Write some.")
    words = (" ".join(re.split(r"[\s,:()]+", line)).strip() for line in lines)
    return tuple(dict.fromkeys(words)) or default


def write_texture(rng: random.Random, words: PairWords) -> Said:
    """An object, and the same made from other materials each time."""
    thing, place = rng.choice(words.things), some_place(rng, words)
    made = [
        joined(f"{with_article(thing)} made from", " and ".join(some_materials(rng, words)), place)
        for _ in range(words.variants)
    ]
    shown = joined(thing, place)
    return with_article(shown), thing, made, shown


def write_scene(rng: random.Random, words: PairWords) -> Said:
    """An object in a scene, and the scene without it."""
    thing, place = rng.choice(words.things), rng.choice(words.places)
    shown = joined(thing, place)
    return f"A photo of {with_article(shown)}", thing, [f"A photo of {emptied(place)}"], shown


def write_union(rng: random.Random, words: PairWords) -> Said:
    """Two things in one picture."""
    if len(words.things) < 2:
        raise ValueError(f"Expected two things or more for a union, got {len(words.things)}. Add lines.")
    one, other = rng.sample(words.things, 2)
    place = some_place(rng, words)
    prompt = joined(f"A photo of {with_article(one)} and {with_article(other)}", place)
    return prompt, one, [other], joined(one, "and", other, place)


PAIRS: Mapping[str, tuple[Callable[[random.Random, PairWords], Said], tuple[str, str, str]]] = {
    "texture": (write_texture, ("/base", "/mask", "/variant")),
    "scene": (write_scene, ("", "_mask", "_inpainted")),
    "union": (write_union, ("", "_OBJ_0", "_OBJ_1")),
}
"""How each kind is written, and what its files are called behind the name of the example."""


def some_place(rng: random.Random, words: PairWords) -> str:
    return rng.choice(words.places) if rng.random() < PLACE_SHARE else ""


def some_materials(rng: random.Random, words: PairWords) -> Sequence[str]:
    return rng.sample(words.materials, min(rng.randint(1, MOST_MATERIALS), len(words.materials)))


def emptied(place: str) -> str:
    """`on a beach` as `an empty beach`; the published script writes `empty` and the last word alone."""
    article, scene = SCENE.fullmatch(place).groups("")
    return joined("an" if article.lower() in ("a", "an") else article, "empty", scene)


def with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def joined(*pieces: str) -> str:
    return " ".join(piece for piece in pieces if piece)


def plain_name(words: str) -> str:
    """Words as a piece of a file name; "" if there is no letter and no number in them."""
    return re.sub(r"[\W_]+", "_", words).strip("_")[:LONGEST_NAME].rstrip("_")
