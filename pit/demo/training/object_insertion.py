"""Training the creatures' InstructPix2Pix and its Embedding Optimizer together, on the shipped models."""
from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...files.weights import write_state
from ...files.whole import sha256_of
from ...object_insertion.embedding_optimizer import CONTEXT_TOKENS
from ...object_insertion.training.inserter import Inserter
from ...object_insertion.training.recipes import RECOMMENDED
from ...object_insertion.training.task import InsertionBatch
from ...training.denoising import NoiseSchedule, noise_schedule
from ...training.sample_cache import digest
from ..drawing.composition import draw_composition
from ..models.inserter import QUERIES, new_inserter, object_features
from ..models.instruct import INSTRUCT, is_kept
from ..models.library import OPTIMIZER
from ..models.sizes import PICTURE_SIZE, TEXT_SD15
from ..models.weights import (
    AUTOENCODER,
    BASE_STAMP,
    SD15,
    VISION,
    base_stamp,
    weight_file,
)
from ..triplets import object_picture, sample_insertion
from .autoencoder import encode_pictures
from .encoded import Encoders, in_files, load_encoders
from .export import METADATA, half
from .stage import Run, Stage, train_stage
from .text_unet import noise_weights

STAGE = Stage("object_insertion", steps=10000, batch=32, learning_rate=1e-3, warmup=200, decay=0.5)
TRIPLETS = 16_000
# The thing covers one in fifteen places, which decide whether it is the right one; elsewhere, the scene is
# copied. There the error counts as much more, and a place belongs to it from this mean difference of latents.
THING_WEIGHT, CHANGED = 4.0, 0.2
# Over how many queries the mean is taken: rows of the context are the more alike, the more there are.
QUERY_COUNTS = (1, 4, QUERIES)
DRAWING = "1"  # to be raised with any change of what is drawn for the same seed


@dataclass(frozen=True)
class TripletData:
    """Encoded triplets, N of each.

    Attributes:
        scenes, targets: latents, fp16 `[N, 12, 16, 16]`.
        features: of the objects, fp16 `[N, 64, 192]`.
    """

    scenes: Tensor
    targets: Tensor
    features: Tensor


def train_object_insertion(run: Run, weights: Path) -> None:
    """Train, or resume a training, and write the UNet and the optimizer to the folder `weights`."""
    # In a folder by what it builds on: once that is trained anew, latents and checkpoints are of no use.
    weight_files = [sha256_of(weight_file(name)) for name in (SD15, AUTOENCODER, VISION)]
    stamp = digest([*weight_files, DRAWING, str(run.seed)])
    run = replace(run, folder=run.folder / STAGE.name / stamp[:12])
    run.folder.mkdir(parents=True, exist_ok=True)
    write_inserter(weights, train_inserter(run, triplet_data(run, TRIPLETS)))


def train_inserter(run: Run, data: TripletData) -> Inserter:
    """Train the optimizer, and of the UNet what is not the base's own, to predict the noise in targets."""
    torch.manual_seed(run.seed)
    model = new_inserter()
    model.unet.to(memory_format=torch.channels_last)
    model.to(run.device)
    schedule, predict = noise_schedule(), torch.compile(model, dynamic=False) if run.compiled else model
    weights = noise_weights(schedule)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(data.scenes), (STAGE.batch,), generator=generator)
        batch = draw_batch(data, rows, schedule, generator)
        importance = weights[batch.timesteps, None, None] * thing_weights(data, rows)
        batch = batch.to(run.device)
        given = {name: value for name, value in vars(batch).items() if name != "wanted"}
        with run.autocast():
            found = predict(**given, dropping=RECOMMENDED.dropping).float()
        errors = (found - batch.wanted).square().mean(dim=1)
        return (importance.to(errors) * errors).mean()

    return train_stage(run, STAGE, model, loss_at)


def draw_batch(
    data: TripletData, rows: Tensor, schedule: NoiseSchedule, generator: torch.Generator
) -> InsertionBatch:
    """These triplets with random noise, queries and chances of dropping."""
    targets = data.targets[rows].float()
    noise = torch.randn(targets.shape, generator=generator)
    count = QUERY_COUNTS[int(torch.randint(len(QUERY_COUNTS), (), generator=generator))]
    timesteps = torch.randint(len(schedule.alphas_cumprod), rows.shape, generator=generator)
    noisy = schedule.add_noise(targets, noise, timesteps).contiguous(memory_format=torch.channels_last)
    return InsertionBatch(
        noisy, noise, timesteps,
        scene=data.scenes[rows].float().contiguous(memory_format=torch.channels_last),
        tokens=data.features[rows].float(),
        query=torch.randn(len(rows), count * CONTEXT_TOKENS, TEXT_SD15["hidden_size"], generator=generator),
        chances=torch.rand(len(rows), generator=generator),
    )


def thing_weights(data: TripletData, rows: Tensor) -> Tensor:
    """How much the error counts at each place of these triplets, `[B, 16, 16]`."""
    change = (data.targets[rows].float() - data.scenes[rows].float()).abs().mean(dim=1)
    return 1 + THING_WEIGHT * (change > CHANGED)


def triplet_data(run: Run, count: int) -> TripletData:
    """Drawn triplets, encoded once; what an earlier run has encoded is read again."""
    encoders = load_encoders(run.device)

    def make(rows: range) -> dict[str, Tensor]:
        with run.autocast():
            return vars(encode_triplets(encoders, run.seed, rows))

    return TripletData(**in_files(run, "triplets", count, make))


@torch.no_grad()
def encode_triplets(encoders: Encoders, seed: int, rows: range) -> TripletData:
    """Triplets of these numbers of a seed."""
    scenes, targets, objects = [], [], []
    for index in rows:
        rng = random.Random(f"{seed}/{index}/triplet")
        insertion = sample_insertion(rng)
        scenes.append(np.asarray(draw_composition(insertion.scene, PICTURE_SIZE)))
        target = draw_composition(insertion.target, PICTURE_SIZE)
        targets.append(np.asarray(target))
        objects.append(object_picture(insertion, target, rng))
    device = encoders.vision.position.weight.device
    encoded = (
        *(encode_pictures(encoders.autoencoder, np.stack(each), device) for each in (scenes, targets)),
        object_features(encoders.vision, objects),
    )
    return TripletData(*(each.half().cpu() for each in encoded))


def write_inserter(folder: Path, model: Inserter) -> None:
    """Write the weights of the UNet that are not the base's, and those of the optimizer, in fp16."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = {key: value for key, value in model.unet.state_dict().items() if not is_kept(key)}
    write_state(folder / INSTRUCT, half(changes), METADATA | {BASE_STAMP: base_stamp()})
    write_state(folder / OPTIMIZER, half(model.optimizer.state_dict()), METADATA)
