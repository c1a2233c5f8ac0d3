"""Training the autoencoder: pictures of 256 px to latents of 12 x 16 x 16 and back."""
from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from ..drawing.scenes import SCENE, draw_scene
from ..models.autoencoder import CreatureAutoencoder
from ..models.sizes import PICTURE_SIZE
from .data import ALONE, EMPTY, POSED, THINGS, WITH_THINGS
from .stage import Run, Stage, train_stage
from .truth import picture_truth, weights_by_kind

STAGE = Stage("autoencoder", steps=2300, batch=16, learning_rate=1.2e-3)
# The decoder alone goes on: what is trained on the latents meanwhile sees no difference.
DECODER = Stage("decoder", steps=2500, batch=STAGE.batch, learning_rate=6e-4)
# Of the squared error in the loss, which is largest along the outlines of small things.
SQUARED_WEIGHT = {STAGE.name: 2.0, DECODER.name: 8.0}
CROP = 128  # a quarter of the cost of whole pictures
# Whole pictures, a quarter as many, now and then: what the layers normalize by is not the same in crops.
WHOLE_EVERY = 4
# Of a batch: pictures of random shapes, so that it knows drawings and not these creatures.
STRANGE_SHARE = 0.125
# A third has its color channels swapped, so that it knows colors and not scenes.
SWAPPED_SHARE = 1 / 3
# The most noise on latents of unit spread: it teaches the decoder to clean up what a UNet leaves.
LATENT_NOISE = {STAGE.name: 0.25, DECODER.name: 0.12}
# With more outlines of small things, pictures are harder.
SHARES = {ALONE: 0.30, WITH_THINGS: 0.40, POSED: 0.18, THINGS: 0.08, EMPTY: 0.04}


def train_autoencoder(run: Run, data: dict[str, np.ndarray]) -> CreatureAutoencoder:
    """Train the autoencoder on pictures, clean creatures and random shapes."""
    torch.manual_seed(run.seed)
    model = CreatureAutoencoder().to(run.device, memory_format=torch.channels_last)
    model = train_stage(run, STAGE, model, loss_of(run, STAGE, model, data))
    measure_latents(run, model, data)
    return model


def train_decoder(run: Run, model: CreatureAutoencoder, data: dict[str, np.ndarray]) -> CreatureAutoencoder:
    """Train the decoder of a trained autoencoder with frozen weights on; its latents stay as they are."""
    model.decoder.to(memory_format=torch.channels_last).requires_grad_(True)
    model.decoder = train_stage(run, DECODER, model.decoder, loss_of(run, DECODER, model, data))
    return model.eval()


def loss_of(
    run: Run, stage: Stage, model: CreatureAutoencoder, data: dict[str, np.ndarray]
) -> Callable[[int, torch.Generator], Tensor]:
    """The loss of a stage, as `train_stage` asks for it."""
    often = weights_by_kind(picture_truth(run.seed, len(data["labels"])).kinds, SHARES)
    return lambda step, generator: drawing_loss(run, stage, model, data, often, step, generator)


def drawing_loss(
    run: Run,
    stage: Stage,
    model: CreatureAutoencoder,
    data: dict[str, np.ndarray],
    often: Tensor,
    step: int,
    generator: torch.Generator,
) -> Tensor:
    """How far pictures are from what becomes of them by their noised latents."""
    whole = step % WHOLE_EVERY == 0
    count, size = (max(1, stage.batch // 4), PICTURE_SIZE) if whole else (stage.batch, CROP)
    wanted = draw_batch(data, often, f"{run.seed}/{stage.name}/{step}", count, size, generator)
    wanted = wanted.to(run.device, memory_format=torch.channels_last)
    with run.autocast():
        latents = model.encode(wanted).float()
        strength = LATENT_NOISE[stage.name] * torch.rand(len(latents), 1, 1, 1, generator=generator)
        noise = strength * torch.randn(latents.shape, generator=generator)
        drawn = model.decode(latents + noise.to(run.device)).float()
    loss = pixel_loss(drawn, wanted, SQUARED_WEIGHT[stage.name])
    return loss + 0.1 * spread_loss(latents) if latents.requires_grad else loss


def draw_batch(
    data: dict[str, np.ndarray], often: Tensor, seed: str, count: int, size: int, generator: torch.Generator
) -> Tensor:
    """`count` squares of `size` px out of pictures, `[B, 3, S, S]` in -1..1.

    `often` says how often each row of the data is to be drawn.
    """
    rng = random.Random(f"{seed}/shapes")
    crops = []
    for row in torch.multinomial(often, count, replacement=True, generator=generator).tolist():
        top, left = torch.randint(PICTURE_SIZE - size + 1, (2,), generator=generator).tolist()
        drawn, swapped, clean = torch.rand(3, generator=generator).tolist()
        if drawn < STRANGE_SHARE:
            picture = np.asarray(strange_picture(rng))
        else:
            picture = data["clean" if clean < 0.25 else "pictures"][row]
        crop = picture[top:top + size, left:left + size]
        if swapped < SWAPPED_SHARE:
            crop = crop[..., torch.randperm(3, generator=generator).numpy()]
        crops.append(crop)
    return pixels_to_tensor(np.stack(crops))


def strange_picture(rng: random.Random) -> Image.Image:
    """Random shapes of random colors on a plain color or in two mixed scenes (RGB)."""
    if rng.random() < 0.4:
        picture = draw_scene("_".join(rng.sample(list(SCENE), 2)), PICTURE_SIZE)
    else:
        picture = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), random_color(rng))
    picture = picture.resize((2 * PICTURE_SIZE,) * 2)
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.randint(1, 14)):
        x, y = (rng.uniform(0, 2 * PICTURE_SIZE) for _ in range(2))
        width, height = (rng.uniform(10, 160) for _ in range(2))
        outline, line = random_color(rng), rng.choice((0, 3, 5, 8))
        if rng.random() < 0.5:
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            pen.ellipse(box, random_color(rng), outline, line)
        else:
            points = [
                (x + rng.uniform(-width, width), y + rng.uniform(-height, height))
                for _ in range(rng.randint(3, 6))
            ]
            pen.polygon(points, random_color(rng), outline, line)
    return picture.resize((PICTURE_SIZE,) * 2, Image.Resampling.BOX)


def random_color(rng: random.Random) -> tuple[int, int, int]:
    return tuple(rng.randrange(256) for _ in range(3))


def pixels_to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 `[B, H, W, 3]` -> float `[B, 3, H, W]` in -1..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def pixel_loss(drawn: Tensor, wanted: Tensor, squared: float) -> Tensor:
    """Absolute error at four scales, of the differences of neighbors, and the squared error by a weight.

    The differences keep outlines crisp, the large scales keep colors true.
    """
    loss = sum(
        functional.l1_loss(functional.avg_pool2d(drawn, size), functional.avg_pool2d(wanted, size))
        for size in (1, 2, 4, 8)
    )
    edges = sum(functional.l1_loss(drawn.diff(dim=axis), wanted.diff(dim=axis)) for axis in (2, 3))
    return loss + edges + squared * functional.mse_loss(drawn, wanted)


def spread_loss(latents: Tensor) -> Tensor:
    """How far latent channels are from zero mean and unit spread over the batch."""
    spread = (latents.var(dim=(0, 2, 3)) + 1e-4).sqrt()
    return latents.mean(dim=(0, 2, 3)).square().mean() + (1 - spread).square().mean()


@torch.no_grad()
def encode_pictures(
    model: CreatureAutoencoder, pictures: np.ndarray, device: torch.device, batch: int = 32
) -> Tensor:
    """Latents of pictures: uint8 `[N, 256, 256, 3]` -> `[N, 12, 16, 16]` on the CPU."""
    chunks = (pictures[start:start + batch] for start in range(0, len(pictures), batch))
    return torch.cat([
        model.encode(pixels_to_tensor(chunk).to(device, memory_format=torch.channels_last)).float().cpu()
        for chunk in chunks
    ])


@torch.no_grad()
def measure_latents(run: Run, model: CreatureAutoencoder, data: dict[str, np.ndarray]) -> None:
    """Keep mean and spread of the latents with the model, which from then on takes and gives normal ones."""
    latents = torch.cat([
        encode_pictures(model, data[name][:1024], run.device) for name in ("pictures", "clean")
    ])
    model.mean.copy_(latents.mean(dim=(0, 2, 3))[:, None, None])
    model.spread.copy_(latents.std(dim=(0, 2, 3))[:, None, None])
