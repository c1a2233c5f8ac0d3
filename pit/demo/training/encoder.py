"""Training the image encoder and the resampler: linear layers must read attributes off what they make."""
from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...images import CLIP_MEAN, CLIP_STD
from ...ip_adapter.resampler import Resampler
from ..drawing.creature import ATTRIBUTES, PARTS, UNSEEN
from ..drawing.scenes import SCENE_NAMES
from ..models.preview import TokenPreview
from ..models.reader import CLASSES
from ..models.sizes import EMBEDDING_DIM, PREVIEW_SIZE, RESAMPLER, TOKEN_DIM, TOKENS_PER_PICTURE, VISION
from ..models.vision import CreatureVision
from .data import ALONE, EMPTY, POSED, THINGS, WITH_THINGS
from .stage import Run, Stage, train_stage
from .truth import THING_PAIRS, Truth, picture_truth, weights_by_kind

STAGE = Stage("encoder", steps=2600, batch=48, learning_rate=2e-3)
PART_BATCH = 36
EMPTY_BATCH = 4  # white pictures: the prior's empty slots must be unlike every part
# Whole pictures and patches of bodies, of which only the embedding is taught.
PICTURE_BATCH, PATCH_BATCH = 48, 8
SHARES = {ALONE: 0.20, WITH_THINGS: 0.40, POSED: 0.20, THINGS: 0.15, EMPTY: 0.05}  # the smaller, the harder
# On tokens and embeddings of unit spread. Priors get both only nearly right, and they must still be readable.
TOKEN_NOISE, EMBEDDING_NOISE = 0.5, 0.3
KIND_EMPTY, KIND_WHOLE, KIND_PICTURE, KIND_PATCH = range(len(PARTS), len(PARTS) + 4)
WHITE = SCENE_NAMES.index("white")


class ImageTokens(nn.Module):
    """The image encoder and the resampler together: pictures `[B, 3, 64, 64]` to tokens `[B, 16, D]`."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = CreatureVision()
        self.resampler = Resampler(**RESAMPLER)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.resampler(self.vision.features(pixel_values))


class Reading(nn.Module):
    """Training heads, which read attributes, kind and a preview off tokens, embeddings and features.

    Only the preview of tokens is shipped.
    """

    def __init__(self, operations=nn) -> None:
        super().__init__()
        width = TOKENS_PER_PICTURE * TOKEN_DIM
        self.attributes = operations.Linear(width, sum(CLASSES))
        self.kind = operations.Linear(width, len(PARTS) + 2)
        # Squeezed to 8 channels first: on all 64 x 192 features this head would have 1.4 million weights.
        self.trunk_attributes = operations.Linear(VISION["positions"] * 8, sum(CLASSES))
        self.trunk_squeeze = operations.Linear(VISION["channels"][-1], 8)
        self.preview = TokenPreview()
        self.embedding = EmbeddingReading(operations)

    def from_trunk(self, features: Tensor) -> Tensor:
        return self.trunk_attributes(self.trunk_squeeze(features).flatten(1))


class EmbeddingReading(nn.Module):
    """What a linear layer each reads off an embedding, and a small picture of it by two layers."""

    def __init__(self, operations=nn) -> None:
        super().__init__()
        self.attributes = operations.Linear(EMBEDDING_DIM, sum(CLASSES))
        self.scene = operations.Linear(EMBEDDING_DIM, len(SCENE_NAMES))
        self.things = operations.Linear(EMBEDDING_DIM, THING_PAIRS)
        self.kind = operations.Linear(EMBEDDING_DIM, len(PARTS) + 4)
        self.preview = nn.Sequential(
            operations.Linear(EMBEDDING_DIM, 512), nn.SiLU(),
            operations.Linear(512, 3 * PREVIEW_SIZE * PREVIEW_SIZE),
        )


class TaughtEncoder(nn.Module):
    """All that this stage trains."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ImageTokens()
        self.reading = Reading()


def pixel_values(pixels: np.ndarray) -> Tensor:
    """uint8 `[B, 64, 64, 3]` -> normalized as for CLIP, float `[B, 3, 64, 64]`."""
    scaled = torch.from_numpy(np.array(pixels)).float() / 255
    return ((scaled - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)).permute(0, 3, 1, 2)


def attribute_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over the attributes that can be seen (`targets [B, A]`, -100 = cannot)."""
    losses = [
        functional.cross_entropy(part, targets[:, index], reduction="sum")
        for index, part in enumerate(logits.float().split(CLASSES, dim=1))
    ]
    # Every visible attribute counts the same, whether a part shows it or a whole creature.
    return sum(losses) / (targets != UNSEEN).sum().clamp(min=1)


def spread_loss(tokens: Tensor) -> Tensor:
    """How far token channels are from zero mean and unit spread over the batch.

    A prior begins at noise of that mean and spread, so such tokens are the easiest for it to reach.
    """
    spread = (tokens.var(dim=0) + 1e-4).sqrt()
    return tokens.mean(dim=0).square().mean() + (1 - spread).square().mean()


@dataclass(frozen=True)
class Batch:
    """Pictures of all sorts: whole creatures, parts and a few white ones, then scenes and patches.

    Attributes:
        pixels: normalized, `[B, 3, 64, 64]`.
        labels: attributes `[B, A]`, -100 = not seen.
        kinds: what each shows, `[B]`.
        scenes: `[B]`, -100 = none that has a name.
        things: `[B, K * C]`.
    """

    pixels: Tensor
    labels: Tensor
    kinds: Tensor
    scenes: Tensor
    things: Tensor


def draw_batch(
    data: dict[str, np.ndarray], truth: Truth, often: Tensor, generator: torch.Generator
) -> Batch:
    """Pictures at random, those whose tokens are taught first."""
    def rows(count: int) -> Tensor:
        return torch.randint(len(truth.labels), (count,), generator=generator)

    whole, part, patch = (rows(n) for n in (STAGE.batch, PART_BATCH, PATCH_BATCH))
    picture = torch.multinomial(often, PICTURE_BATCH, replacement=True, generator=generator)
    slots = torch.randint(data["part_kinds"].shape[1], (PART_BATCH,), generator=generator).numpy()
    white = np.full((EMPTY_BATCH, *data["views"].shape[1:]), 255, np.uint8)
    pixels = np.concatenate([
        data["views"][whole.numpy()], data["part_views"][part.numpy(), slots], white,
        data["picture_views"][picture.numpy()], data["patches"][patch.numpy()],
    ])
    part_kinds = torch.from_numpy(data["part_kinds"][part.numpy(), slots].astype(np.int64))
    kinds = torch.cat([
        torch.full((STAGE.batch,), KIND_WHOLE), torch.where(part_kinds < 0, KIND_EMPTY, part_kinds),
        torch.full((EMPTY_BATCH,), KIND_EMPTY), torch.full((PICTURE_BATCH,), KIND_PICTURE),
        torch.full((PATCH_BATCH,), KIND_PATCH),
    ])
    alone = STAGE.batch + PART_BATCH + EMPTY_BATCH
    scenes = torch.cat([
        torch.full((alone,), WHITE), truth.scenes[picture], torch.full((PATCH_BATCH,), UNSEEN)
    ])
    things = torch.zeros(len(pixels), THING_PAIRS)
    things[alone:alone + PICTURE_BATCH] = truth.things[picture]
    return Batch(
        pixel_values(pixels), batch_labels(data, truth, (whole, part, picture, patch), slots), kinds, scenes,
        things,
    )


def batch_labels(
    data: dict[str, np.ndarray], truth: Truth, rows: tuple[Tensor, ...], slots: np.ndarray
) -> Tensor:
    """The attributes that each picture of a batch shows, `[B, A]`."""
    whole, part, picture, patch = rows
    drawn = torch.from_numpy(np.concatenate([
        data["labels"][whole.numpy()], data["part_labels"][part.numpy(), slots],
        np.full((EMPTY_BATCH, len(CLASSES)), UNSEEN), data["labels"][patch.numpy()],
    ]).astype(np.int64))
    alone = len(drawn) - PATCH_BATCH
    # A patch shows the color and the pattern of the body, but not its shape.
    shown = torch.tensor([name in ("pattern", "body_color") for name in ATTRIBUTES])
    return torch.cat([drawn[:alone], truth.labels[picture], drawn[alone:].masked_fill(~shown, UNSEEN)])


def train_encoder(run: Run, data: dict[str, np.ndarray]) -> TaughtEncoder:
    """Train image encoder, embedding, resampler and preview together."""
    torch.manual_seed(run.seed)
    model = TaughtEncoder().to(run.device)
    truth = picture_truth(run.seed, len(data["labels"]))
    often = weights_by_kind(truth.kinds, SHARES)
    with_tokens = STAGE.batch + PART_BATCH + EMPTY_BATCH

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        batch = draw_batch(data, truth, often, generator)
        batch = Batch(*(getattr(batch, field.name).to(run.device) for field in fields(Batch)))
        with run.autocast():
            features = model.encoder.vision.features(batch.pixels)
            tokens = model.encoder.resampler(features[:with_tokens]).float()
            embeddings = model.encoder.vision.pooling(features).float()
            noisy = disturbed(tokens, TOKEN_NOISE, generator).flatten(1)
            # Not at every step: the previews have more weights than the other heads together.
            preview = step % 3 == 0
            loss = token_loss(model.reading, noisy, features[:with_tokens], batch, preview)
            # Only for whole creatures, which are what the prior samples.
            loss = loss + 0.2 * spread_loss(tokens[:STAGE.batch])
            noisy = disturbed(embeddings, EMBEDDING_NOISE, generator)
            return loss + embedding_loss(model.reading.embedding, noisy, batch, preview)

    return train_stage(run, STAGE, model, loss_at)


def disturbed(values: Tensor, strength: Tensor | float, generator: torch.Generator) -> Tensor:
    return values + strength * torch.randn(values.shape, generator=generator).to(values)


# No measure is recorded behind the weights of these losses. Of the heads that they belong to, only the
# preview is shipped; the others help the training.
def token_loss(reading: Reading, noisy: Tensor, features: Tensor, batch: Batch, preview: bool) -> Tensor:
    """What the heads cannot read off tokens with noise `[B, 16 D]`, and off the features before them."""
    count = len(noisy)
    labels, kinds = batch.labels[:count], batch.kinds[:count]
    loss = attribute_loss(reading.attributes(noisy), labels)
    # A direct way to the trunk: it learns within 150 steps, and the resampler follows.
    loss = loss + 0.5 * attribute_loss(reading.from_trunk(features), labels)
    loss = loss + 0.3 * functional.cross_entropy(reading.kind(noisy).float(), kinds)
    return loss + 2 * preview_loss(reading.preview, noisy, batch.pixels[:count]) if preview else loss


def embedding_loss(reading: EmbeddingReading, noisy: Tensor, batch: Batch, preview: bool) -> Tensor:
    """What the heads cannot read off embeddings with noise `[B, 256]`."""
    loss = attribute_loss(reading.attributes(noisy), batch.labels)
    loss = loss + 0.3 * functional.cross_entropy(reading.scene(noisy).float(), batch.scenes)
    loss = loss + 0.3 * functional.cross_entropy(reading.kind(noisy).float(), batch.kinds)
    found = reading.things(noisy).float()
    things = functional.binary_cross_entropy_with_logits(found, batch.things, reduction="sum")
    loss = loss + 0.5 * things / PICTURE_BATCH
    if not preview:
        return loss
    small = reading.preview(noisy).float().unflatten(-1, (3, PREVIEW_SIZE, PREVIEW_SIZE))
    return loss + functional.mse_loss(small, functional.interpolate(batch.pixels, PREVIEW_SIZE, mode="area"))


def preview_loss(preview: TokenPreview, noisy: Tensor, pixels: Tensor) -> Tensor:
    """Squared error of the preview of noisy tokens against the pictures, made as small as it."""
    wanted = functional.interpolate(pixels, PREVIEW_SIZE, mode="area")
    return functional.mse_loss(preview(noisy).float(), wanted)


@torch.no_grad()
def encode_pixels(encoder: ImageTokens, pixels: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    """Tokens of normalized pixels: float `[N, 3, 64, 64]` -> float `[N, 16, 64]` on the CPU."""
    return torch.cat([encoder(chunk.to(device)).float().cpu() for chunk in pixels.split(batch)])


def encode_views(encoder: ImageTokens, views: np.ndarray, device: torch.device, batch: int = 4096) -> Tensor:
    """Tokens of encoder views: uint8 `[N, 64, 64, 3]` -> float `[N, 16, 64]` on the CPU."""
    chunks = (views[start:start + batch] for start in range(0, len(views), batch))
    return torch.cat([encode_pixels(encoder, pixel_values(chunk), device) for chunk in chunks])
