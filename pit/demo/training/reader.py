"""Training the attribute reader of the measures, on drawn creatures and without the models that it judges."""
from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..drawing.composition import THING_LABEL, Composition, Place, compose, draw_composition, draw_map
from ..drawing.creature import UNSEEN, sample_creature
from ..drawing.flaws import flawed, halves
from ..drawing.pose import NEUTRAL, sample_pose
from ..drawing.things import sample_thing
from ..drawing.variety import random_ground
from ..models.reader import COUNTS, MAP_SIZE, CreatureReader, Logits
from ..models.sizes import PICTURE_SIZE
from .data import (
    ALONE,
    EMPTY,
    POSED,
    THINGS,
    WITH_THINGS,
    TrainingPicture,
    training_creature,
    training_picture,
)
from .encoder import attribute_loss
from .stage import Run, Stage, train_stage
from .truth import labels_of, picture_truth, scene_of, things_of, weights_by_kind

STAGE = Stage("reader", steps=5000, batch=26, learning_rate=2e-3)
SHARES = {ALONE: 0.20, WITH_THINGS: 0.40, POSED: 0.30, THINGS: 0.07, EMPTY: 0.03}  # the smaller, the harder
# Beside the pictures of the data set: creatures alone on white, flawed creatures, and pictures with three
# things or with half a thing.
CLEAN, FLAWED, ODD = 4, 8, 2
MAPPED = 14  # pictures of the data set whose maps are drawn, the first ones of a batch
SHIFT = 8  # pixels
CELL = PICTURE_SIZE // MAP_SIZE
# Three things, or two on the same side of a creature: x of the foot and size, as in `composition.BESIDE`.
THREE = ((17, 1.0), (50, 1.0), (83, 1.0))
ONE_SIDE = ((31, 0.6), (70, 0.6), (90, 0.6))


@dataclass(frozen=True)
class Example:
    """A picture, and what the reader is to find in it.

    Attributes:
        pixels: uint8 `[256, 256, 3]`.
        shown: its composition holds no creature that is not complete.
        known: whether all things are those of the composition.
    """

    pixels: np.ndarray
    shown: TrainingPicture
    known: bool = True


@dataclass(frozen=True)
class Batch:
    """Pictures and what is true of them.

    Attributes:
        pictures: `[N, 3, 256, 256]` in 0..1.
        labels: attributes `[N, A]`, -100 = not seen.
        scenes: `[N]`, -100 = a plain color.
        whole: 1 = exactly one complete creature, float `[N]`.
        things: which there are, `[N, K * C]`, of no meaning where their number is unknown.
        counts: the number of things `[N]`, -100 = unknown.
        maps: of the first pictures, int64 `[M, 64, 64]`.
    """

    pictures: Tensor
    labels: Tensor
    scenes: Tensor
    whole: Tensor
    things: Tensor
    counts: Tensor
    maps: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def train_reader(run: Run, data: dict[str, np.ndarray]) -> CreatureReader:
    """Train the reader on complete creatures and things, and to tell them from flawed ones."""
    torch.manual_seed(run.seed)
    model = CreatureReader().to(run.device, memory_format=torch.channels_last)
    often = weights_by_kind(picture_truth(run.seed, len(data["labels"])).kinds, SHARES)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        batch = draw_batch(data, often, run.seed, step, generator).to(run.device)
        pictures = batch.pictures.contiguous(memory_format=torch.channels_last)
        with run.autocast():
            # Apart: the gradient of a slice of the largest features would cost a third of the step.
            mapped, others = (model.trunk(part) for part in pictures.tensor_split([len(batch.maps)]))
            logits = model.heads([torch.cat(both) for both in zip(mapped[-2:], others[-2:], strict=True)])
            maps = model.maps(mapped)
        return head_loss(logits, batch) + functional.cross_entropy(maps.float(), batch.maps)

    return train_stage(run, STAGE, model, loss_at)


def head_loss(logits: Logits, batch: Batch) -> Tensor:
    """What the heads do not read right."""
    known = batch.counts != UNSEEN
    things = functional.binary_cross_entropy_with_logits(
        logits.things.float()[known], batch.things[known], reduction="sum"
    )
    return (
        attribute_loss(logits.attributes, batch.labels)
        + 0.2 * functional.cross_entropy(logits.scenes.float(), batch.scenes)
        + 0.5 * functional.binary_cross_entropy_with_logits(logits.whole.float(), batch.whole)
        + 0.5 * things / known.sum()
        + 0.3 * functional.cross_entropy(logits.counts.float(), batch.counts)
    )


def draw_batch(
    data: dict[str, np.ndarray], often: Tensor, seed: int, step: int, generator: torch.Generator
) -> Batch:
    """Pictures of the data set, and freshly drawn ones with flaws or with other things."""
    rng = random.Random(f"{seed}/{step}/flawed")
    rows = torch.multinomial(often, STAGE.batch + CLEAN, replacement=True, generator=generator).tolist()
    examples = [Example(data["pictures"][row], training_picture(seed, row)) for row in rows[:STAGE.batch]]
    examples += [Example(data["clean"][row], clean_picture(seed, row)) for row in rows[STAGE.batch:]]
    examples += [flawed_example(rng) for _ in range(FLAWED)] + [odd_example(rng) for _ in range(ODD)]
    pixels = torch.from_numpy(np.stack([each.pixels for each in examples]))
    pictures = pixels.permute(0, 3, 1, 2).float() / 255
    places = torch.randint(2 * SHIFT + 1, (len(pictures), 2), generator=generator)
    mapped = min(MAPPED, STAGE.batch)
    cells = places[:mapped] // CELL
    places[:mapped] = cells * CELL  # by whole cells, so that their maps can follow
    maps = np.stack([draw_map(each.shown.composition, MAP_SIZE) for each in examples[:mapped]])
    maps = torch.from_numpy(maps.clip(max=THING_LABEL))[:, None].float()
    return Batch(
        worn(moved(pictures, places.tolist(), SHIFT), generator), *targets_of(examples),
        moved(maps, cells.tolist(), SHIFT // CELL)[:, 0].long(),
    )


def targets_of(examples: list[Example]) -> tuple[Tensor, ...]:
    """The labels, scenes, wholeness, things and their numbers, as in `Batch`."""
    shown = [example.shown.composition for example in examples]
    counts = [
        min(len(example.shown.composition.things), COUNTS - 1) if example.known else UNSEEN
        for example in examples
    ]
    return (
        torch.tensor([labels_of(each.creature) for each in shown]),
        torch.tensor([scene_of(each) for each in shown]),
        torch.tensor([float(each.creature is not None) for each in shown]),
        torch.from_numpy(np.stack([things_of(example.shown) for example in examples])),
        torch.tensor(counts),
    )


def clean_picture(seed: int, index: int) -> TrainingPicture:
    """What the array `clean` shows."""
    creature = training_creature(seed, index)
    return TrainingPicture(ALONE, creature, Composition(creature=creature))


def random_composition(rng: random.Random, things: int) -> Composition:
    """A creature, posed or not, beside things, on any ground."""
    # The two coherences that the measures ask for.
    creature = sample_creature(rng, rng.choice((0.0, 0.8)))
    pose = sample_pose(rng) if rng.random() < 0.4 else NEUTRAL
    scene, ground = random_ground(rng)
    return compose(
        replace(creature, pose=pose), [sample_thing(rng) for _ in range(things)], scene=scene, ground=ground,
        rng=rng,
    )


def flawed_example(rng: random.Random) -> Example:
    """A creature that is not complete, now and then beside things."""
    composition = random_composition(rng, rng.choice((0, 0, 0, 1, 2)))
    pixels = np.asarray(flawed(composition, rng))
    shown = TrainingPicture(POSED, composition.creature, replace(composition, creature=None))
    return Example(pixels, shown, known=False)


def odd_example(rng: random.Random) -> Example:
    """Three things or half a thing, which does not count, and a creature or none."""
    composition = random_composition(rng, 2)
    creature = composition.creature
    if rng.random() < 0.5:
        alone = replace(composition, creature=None)
        composition = rng.choice((composition, alone))
        shown = replace(composition, things=composition.things[1:])
        x = composition.things[0][1].x
        picture = halves(composition, shown, x, rng.uniform(-8, 8), rng.random() < 0.5)
    else:
        shown = crowded(composition, rng)
        picture = draw_composition(shown, PICTURE_SIZE)
    return Example(np.asarray(picture), TrainingPicture(POSED, creature, shown))


def crowded(composition: Composition, rng: random.Random) -> Composition:
    """With three things in place of the creature, or with two on the same side of it."""
    if rng.random() < 0.5:
        things = tuple((sample_thing(rng), Place(x + rng.uniform(-2, 2), size)) for x, size in THREE)
        return replace(composition, creature=None, things=things)
    (x, size), *others = ((100 - x, size) for x, size in ONE_SIDE) if rng.random() < 0.5 else ONE_SIDE
    things = tuple(
        (thing, Place(*place)) for (thing, _), place in zip(composition.things, others, strict=True)
    )
    return replace(composition, place=Place(x, size), things=things)


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures, softened, stained, tinted and noisy.

    Rendered pictures differ from drawn ones in such ways, and the reader must see past them.
    """
    count, size = len(pictures), pictures.shape[-1]
    softness, strength, noisy = torch.rand(3, count, 1, 1, 1, generator=generator)
    soft = functional.interpolate(functional.avg_pool2d(pictures, 2), size, mode="bilinear")
    contrasts = 1 + 0.05 * torch.randn(count, 1, 1, 1, generator=generator)
    tints = 0.5 * (1 - contrasts) + 0.02 * torch.randn(count, 3, 1, 1, generator=generator)
    stains = 0.06 * strength * torch.randn(count, 3, 8, 8, generator=generator)
    # One for all pictures, each of which gets another piece of it: drawing noise takes long.
    noise = torch.randn(1, 3, size + 32, size + 32, generator=generator).expand(count, -1, -1, -1)
    noise = cropped(noise, torch.randint(33, (count, 2), generator=generator).tolist(), size)
    x = functional.interpolate(stains + tints, size, mode="bilinear")
    x.addcmul_(torch.lerp(pictures, soft, softness), contrasts).addcmul_(noise, 0.04 * noisy)
    return x.clamp_(0, 1)


def moved(pictures: Tensor, places: list[list[int]], most: int) -> Tensor:
    """Pictures shifted by up to `most` pixels, their edges repeated.

    Args:
        places: (up, left), from 0 to 2 * `most`; `most` leaves them where they are.
    """
    padded = functional.pad(pictures, [most] * 4, mode="replicate")
    return cropped(padded, places, pictures.shape[-1])


def cropped(pictures: Tensor, places: list[list[int]], size: int) -> Tensor:
    """A square of each picture `[N, C, H, W]`, of which the top and the left edge are given."""
    return torch.stack([
        picture[:, top:top + size, left:left + size]
        for picture, (top, left) in zip(pictures, places, strict=True)
    ])
