"""What the creatures' pOps operators learn from: embeddings of pictures, and of what is to become of them."""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...files.records import Models
from ...piece_it_together.parts import place_part
from ...pops.training.draw import Drawn
from ..drawing.composition import Composition, compose, draw_composition
from ..drawing.creature import PARTS
from ..drawing.draw import seen_by_encoder
from ..drawing.instructions import INSTRUCTIONS, PHRASES, instruction_for, sample_instruction
from ..drawing.scenes import draw_scene, plain_scene
from ..drawing.things import Thing, draw_thing, sample_thing
from ..drawing.variety import random_ground
from ..models.sizes import PICTURE_SIZE
from .data import training_creature, training_picture

Rows = dict[str, np.ndarray]
# Of the pictures that operators change: the creature alone on white, and of these, placed at random.
ALONE_SHARE, PLACED_SHARE = 0.25, 0.5
# Of the samples whose second slot says what is so already, and those that undo what the others do.
SAME_SHARE, UNDONE_SHARE = 0.15, 0.4
SWAP_SHARE = 0.5
THINGS, THINGS_DRAWN = "things", 1600  # twenty of each kind and color


class Change(NamedTuple):
    """A picture, what an operator is told about it, and what it is to make of it.

    Attributes:
        before: what it shows.
        alone: whether it is the clean picture of the data set in place of the other one.
        given: what the second slot shows, by `mode`: for texture the number of the creature that a patch is
            of, for scene an empty picture, for union the number of a thing, for instruct that of an
            instruction.
        after: what is to become of it.
        undone: the second slot that leads from there back to the first; None = there is none.
    """

    before: Composition
    alone: bool
    given: int | Composition
    after: Composition
    undone: int | Composition | None


def texture_change(seed: int, index: int, count: int) -> Change:
    """Body color and pattern of another creature of the data set."""
    rng = random.Random(f"{seed}/{index}/texture")
    before, alone = picture_before(seed, index, rng)
    other = rng.randrange(count)
    values = training_creature(seed, other).attributes
    worn = {name: values[name] for name in ("pattern", "body_color")}
    return Change(before, alone, other, with_attributes(before, worn), index)


def scene_change(seed: int, index: int, count: int) -> Change:
    """Another ground."""
    rng = random.Random(f"{seed}/{index}/scene")
    before, alone = picture_before(seed, index, rng)
    scene, ground = random_ground(rng)
    after = replace(before, scene=scene, ground=ground)
    return Change(before, alone, Composition(scene, ground), after, Composition(before.scene, before.ground))


def union_change(seed: int, index: int, count: int) -> Change:
    """A thing more, beside the creature."""
    rng = random.Random(f"{seed}/{index}/union")
    before, alone = picture_before(seed, index, rng, most_things=1)
    number = rng.randrange(THINGS_DRAWN)
    things = [*(thing for thing, _ in before.things), training_thing(seed, number)]
    after = compose(before.creature, things, scene=before.scene, ground=before.ground, rng=rng)
    return Change(before, alone, number, after, None)


def instruct_change(seed: int, index: int, count: int) -> Change:
    """One attribute, as words say."""
    rng = random.Random(f"{seed}/{index}/instruct")
    before, alone = picture_before(seed, index, rng)
    said = sample_instruction(before.creature, rng)
    was = instruction_for(before.creature, said.attribute)
    after = with_attributes(before, {said.attribute: said.value})
    return Change(before, alone, INSTRUCTIONS.index(said), after, INSTRUCTIONS.index(was))


CHANGES: Mapping[str, Callable[[int, int, int], Change]] = {
    "texture": texture_change, "scene": scene_change, "union": union_change, "instruct": instruct_change,
}
"""By mode; each takes the seed of the data set, the number of a row, and the number of all rows."""


def picture_before(
    seed: int, index: int, rng: random.Random, most_things: int = 2
) -> tuple[Composition, bool]:
    """The picture of a row, or the creature alone on white; and whether it is that."""
    picture = training_picture(seed, index)
    shown = picture.composition
    alone = rng.random() < ALONE_SHARE or shown.creature is None or len(shown.things) > most_things
    return (compose(picture.creature), True) if alone else (shown, False)


def with_attributes(composition: Composition, values: Mapping[str, str]) -> Composition:
    """The same with other values for some attributes of its creature."""
    creature = composition.creature
    return replace(composition, creature=replace(creature, attributes={**creature.attributes, **values}))


def training_thing(seed: int, number: int) -> Thing:
    """Thing number `number` of those that creatures are united with."""
    return sample_thing(random.Random(f"{seed}/{number}/thing"))


# Pictures -------------------------------------------------------------------------------------------------


def view_of(picture: Image.Image) -> np.ndarray:
    """A picture as the image encoder sees it, uint8 `[64, 64, 3]`."""
    return np.asarray(seen_by_encoder(picture))


def empty_picture(shown: Composition) -> Image.Image:
    """A ground without anything on it (RGB)."""
    if shown.ground is not None:
        return plain_scene(shown.ground, PICTURE_SIZE)
    return draw_scene(shown.scene, PICTURE_SIZE)


def drawn_views(what: str, seed: int, rows: range, count: int) -> Rows:
    """What is drawn for some rows of a mode: the results, and for scenes the empty grounds; or `THINGS`.

    Returns:
        uint8 `[len(rows), 64, 64, 3]` by the names of `CreatureExamples.rows`.
    """
    if what == THINGS:
        return {"given": np.stack([thing_view(seed, number) for number in rows])}
    changes = [CHANGES[what](seed, index, count) for index in rows]
    found = {"after": np.stack([view_of(draw_composition(each.after, PICTURE_SIZE)) for each in changes])}
    if what == "scene":
        for name in ("given", "undone"):
            found[name] = np.stack([view_of(empty_picture(getattr(each, name))) for each in changes])
    return found


def before_views(mode: str, data: Rows, seed: int, rows: range, count: int) -> np.ndarray:
    """What is to be changed, twice: as it was drawn, and in the second place now and then placed anew.

    Returns:
        uint8 `[len(rows), 2, 64, 64, 3]`.
    """
    found = []
    for index in rows:
        alone = CHANGES[mode](seed, index, count).alone
        view = data["views" if alone else "picture_views"][index]
        rng = random.Random(f"{seed}/{index}/placed")
        anew = alone and rng.random() < PLACED_SHARE
        found.append([view, placed_view(data["clean"][index], rng) if anew else view])
    return np.array(found)


def placed_view(clean: np.ndarray, rng: random.Random) -> np.ndarray:
    """A creature on white, of another size and at another place, as people cut theirs out."""
    picture = Image.fromarray(clean)
    drawn = Image.fromarray((clean != 255).any(axis=2))
    return view_of(place_part(
        picture.crop(drawn.getbbox()), canvas=PICTURE_SIZE, scale=rng.uniform(0.7, 0.95), rng=rng
    ))


def thing_view(seed: int, number: int) -> np.ndarray:
    """A thing alone on white."""
    rng = random.Random(f"{seed}/{number}/thing alone")
    thing = training_thing(seed, number)
    if rng.random() < 0.5:
        return view_of(draw_thing(thing, PICTURE_SIZE, share=rng.uniform(0.6, 0.95)))
    return view_of(draw_composition(compose(None, [thing]), PICTURE_SIZE))


# Samples --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CreatureExamples:
    """Embeddings of N rows; the operators' trainer draws from them.

    Attributes:
        rows: by name. For changes `before [N, 2, 256]`, `after [N, 256]` and the second slot, `given` and
            `undone`: embeddings `[N, 256]`, or numbers of instructions `[N]`. For clothes `parts
            [N, 5, 256]`, how many there are, `counts [N]`, and the wholes, `after`.
        words: last hidden state of each of `PHRASES`, for the mode "instruct".
    """

    mode: str
    rows: Mapping[str, Tensor]
    names: tuple[str, ...]
    models: Models
    fingerprint: str
    words: tuple[Tensor, ...] = ()
    randoms: Sequence[object] = ()

    @property
    def width(self) -> int:
        """E of the embeddings."""
        return self.rows["after"].shape[-1]

    def draw(self, index: int, rng: random.Random) -> Drawn:
        """One of the samples that a row gives."""
        row = {name: values[index] for name, values in self.rows.items()}
        if self.mode == "clothes":
            return drawn_parts(row, rng)
        first, second, target = drawn_change(row, rng)
        if self.mode == "instruct":
            word = PHRASES.index(rng.choice(INSTRUCTIONS[int(second)].phrases))
            return Drawn(first[None], target, word, self.words[word])
        slots = [first, second]
        if self.mode == "union" and rng.random() < SWAP_SHARE:
            slots.reverse()
        return Drawn(torch.stack(slots), target)

    def draw_random(self, rng: random.Random) -> Drawn:
        """Never asked for, as there are no pictures without a condition."""
        raise LookupError("Expected pictures without a condition, got none.")


def drawn_change(row: Mapping[str, Tensor], rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """First slot, second slot and target."""
    before = row["before"][rng.randrange(2)]
    drawn = rng.random() if "undone" in row else 1.0
    if drawn < SAME_SHARE:
        return before, row["undone"], row["before"][0]
    if drawn < SAME_SHARE + UNDONE_SHARE:
        return row["after"], row["undone"], row["before"][0]
    return before, row["given"], row["after"]


def drawn_parts(row: Mapping[str, Tensor], rng: random.Random) -> Drawn:
    """Some of the parts, in any order, and the whole."""
    there = range(int(row["counts"]))
    chosen = rng.sample(there, rng.randint(1, len(there)))
    return Drawn(row["parts"][chosen], row["after"])


def part_counts(kinds: np.ndarray) -> Tensor:
    """How many parts each row of the data set has, `[N]`, of their kinds `[N, 5]`."""
    return torch.from_numpy(((kinds >= 0) & (kinds < len(PARTS))).sum(axis=1))
