"""Training the attribute reader of the measures, on drawn creatures and without the models that it judges."""
from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..drawing.creature import SCENES, sample_creature
from ..drawing.flaws import draw_flawed
from ..models.reader import CreatureReader, as_pictures
from ..models.sizes import PICTURE_SIZE
from .data import training_creature
from .encoder import attribute_loss
from .stage import Run, Stage, train_stage

STAGE = Stage("reader", steps=3000, batch=48, learning_rate=2e-3)
FLAWED = 16


def train_reader(run: Run, data: dict[str, np.ndarray]) -> CreatureReader:
    """Train the reader on complete creatures, and to tell them from flawed ones."""
    torch.manual_seed(run.seed)
    model = CreatureReader().to(run.device)
    # The labels of the data set leave out the scenes, but these follow from seed and number.
    creatures = range(len(data["labels"]))
    scenes = torch.tensor([SCENES.index(training_creature(run.seed, index).scene) for index in creatures])

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(scenes), (STAGE.batch,), generator=generator)
        whole = torch.from_numpy(data["pictures"][rows.numpy()]).permute(0, 3, 1, 2).float() / 255
        flawed = flawed_pictures(random.Random(f"{run.seed}/{step}/flawed"))
        pictures = worn(torch.cat([whole, flawed]), generator).to(run.device)
        targets = torch.from_numpy(data["labels"][rows.numpy()].astype(np.int64)).to(run.device)
        # Attributes and scenes are learned only from complete creatures, because flawed ones may lack them.
        is_whole = (torch.arange(len(pictures)) < STAGE.batch).float().to(run.device)
        with run.autocast():
            features = model.features(pictures)
            attributes = model.attributes(features[:STAGE.batch])
            seen_scenes, seen_whole = model.scene(features[:STAGE.batch]), model.whole(features).flatten()
        return (
            attribute_loss(attributes, targets)
            + 0.2 * functional.cross_entropy(seen_scenes.float(), scenes[rows].to(run.device))
            + 0.5 * functional.binary_cross_entropy_with_logits(seen_whole.float(), is_whole)
        )

    return train_stage(run, STAGE, model, loss_at)


def flawed_pictures(rng: random.Random) -> Tensor:
    """Freshly drawn creatures that are not complete, `[16, 3, 128, 128]` in 0..1."""
    # The two coherences that the measures ask for.
    drawn = (sample_creature(rng, rng.choice((0.0, 0.8)), scene=rng.choice(SCENES)) for _ in range(FLAWED))
    return as_pictures([draw_flawed(creature, rng) for creature in drawn])


def worn(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures, slightly moved, softened, stained and noisy.

    Rendered pictures differ from drawn ones in such ways, and the reader must see past them.
    """
    x = moved(pictures, torch.randint(9, (len(pictures), 2), generator=generator).tolist())
    soft = functional.avg_pool2d(functional.pad(x, [1] * 4, mode="replicate"), 3, stride=1)
    softness, strength = torch.rand(2, len(x), 1, 1, 1, generator=generator)
    stains = torch.randn(len(x), 3, 8, 8, generator=generator)
    stains = functional.interpolate(stains, PICTURE_SIZE, mode="bilinear")
    noise = 0.03 * torch.randn(x.shape, generator=generator)
    return (x + softness * (soft - x) + 0.06 * strength * stains + noise).clamp(0, 1)


def moved(pictures: Tensor, places: list[list[int]]) -> Tensor:
    """Pictures shifted by -4 to 4 pixels, their edges repeated; places are (down, right), from 0 to 8."""
    padded = functional.pad(pictures, [4] * 4, mode="replicate")
    size = pictures.shape[-1]
    return torch.stack([
        picture[:, top:top + size, left:left + size]
        for picture, (top, left) in zip(padded, places, strict=True)
    ])
