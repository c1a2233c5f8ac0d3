"""Training the image encoder and the resampler: a linear layer must read the attributes off the tokens."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...files.whole import write_whole
from ...images import CLIP_MEAN, CLIP_STD
from ...ip_adapter.resampler import Resampler
from ..drawing.creature import ATTRIBUTES, PARTS
from ..models.preview import TokenPreview
from ..models.reader import CLASSES
from ..models.sizes import PREVIEW_SIZE, RESAMPLER, TOKEN_DIM, TOKENS_PER_PICTURE, VISION
from ..models.vision import CreatureVision
from .stage import Run, Stage, train_stage

STAGE = Stage("encoder", steps=1600, batch=80, learning_rate=2e-3)
PART_BATCH = 48
EMPTY_BATCH = 4  # white pictures: the prior's empty slots must be unlike every part
# On tokens of unit spread. The prior gets tokens only nearly right, and they must still be readable.
TOKEN_NOISE = 0.5
KIND_EMPTY, KIND_WHOLE = len(PARTS), len(PARTS) + 1


class ImageTokens(nn.Module):
    """The image encoder and the resampler together: pictures `[B, 3, 64, 64]` to tokens `[B, 16, D]`."""

    def __init__(self) -> None:
        super().__init__()
        self.vision = CreatureVision()
        self.resampler = Resampler(**RESAMPLER)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.resampler(self.vision.features(pixel_values))


class Reading(nn.Module):
    """Training heads, which read attributes, kind and a preview off tokens, and attributes off features.

    Only the preview is shipped.
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

    def from_trunk(self, features: Tensor) -> Tensor:
        return self.trunk_attributes(self.trunk_squeeze(features).flatten(1))


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
    return sum(losses) / (targets != -100).sum().clamp(min=1)


def spread_loss(tokens: Tensor) -> Tensor:
    """How far token channels are from zero mean and unit spread over the batch.

    A prior begins at noise of that mean and spread, so such tokens are the easiest for it to reach.
    """
    spread = (tokens.var(dim=0) + 1e-4).sqrt()
    return tokens.mean(dim=0).square().mean() + (1 - spread).square().mean()


def draw_batch(data: dict[str, np.ndarray], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Whole creatures, parts and a few white pictures: pixel values, attribute targets, kinds."""
    count = len(data["labels"])
    rows = torch.randint(count, (STAGE.batch,), generator=generator).numpy()
    part_rows = torch.randint(count, (PART_BATCH,), generator=generator).numpy()
    slots = torch.randint(data["part_kinds"].shape[1], (PART_BATCH,), generator=generator).numpy()
    white = np.full((EMPTY_BATCH, *data["views"].shape[1:]), 255, np.uint8)
    pixels = np.concatenate([data["views"][rows], data["part_views"][part_rows, slots], white])
    unseen = np.full((EMPTY_BATCH, len(CLASSES)), -100)
    targets = np.concatenate([data["labels"][rows], data["part_labels"][part_rows, slots], unseen])
    part_kinds = data["part_kinds"][part_rows, slots].astype(np.int64)
    part_kinds = np.where(part_kinds < 0, KIND_EMPTY, part_kinds)
    whole, empty = np.full(STAGE.batch, KIND_WHOLE), np.full(EMPTY_BATCH, KIND_EMPTY)
    kinds = np.concatenate([whole, part_kinds, empty])
    return pixel_values(pixels), torch.from_numpy(targets.astype(np.int64)), torch.from_numpy(kinds)


def train_encoder(run: Run, data: dict[str, np.ndarray]) -> TaughtEncoder:
    """Train image encoder, resampler and preview together."""
    torch.manual_seed(run.seed)
    model = TaughtEncoder().to(run.device)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        pixels, targets, kinds = (x.to(run.device) for x in draw_batch(data, generator))
        with run.autocast():
            features = model.encoder.vision.features(pixels)
            tokens = model.encoder.resampler(features).float()
            noise = torch.randn(tokens.shape, generator=generator).to(tokens)
            noisy = (tokens + TOKEN_NOISE * noise).flatten(1)
            loss = attribute_loss(model.reading.attributes(noisy), targets)
            # No measure is recorded behind the weights 0.5 and 0.3. The heads that they belong to only help
            # the training and are not shipped.
            # A direct way to the trunk: it learns within 150 steps, and the resampler follows.
            loss = loss + 0.5 * attribute_loss(model.reading.from_trunk(features), targets)
            loss = loss + 0.3 * functional.cross_entropy(model.reading.kind(noisy).float(), kinds)
            # Only for whole creatures, which are what the prior samples.
            loss = loss + 0.2 * spread_loss(tokens[:STAGE.batch])
            if step % 3 == 0:  # not at every step: the preview has more weights than the other heads together
                loss = loss + 2 * preview_loss(model.reading.preview, noisy, pixels)
        return loss

    trained = train_stage(run, STAGE, model, loss_at)
    report_accuracy(run, trained, data)
    return trained


def preview_loss(preview: TokenPreview, noisy: Tensor, pixels: Tensor) -> Tensor:
    """Squared error of the preview of noisy tokens against the pictures, made as small as it."""
    wanted = functional.interpolate(pixels, PREVIEW_SIZE, mode="area")
    return functional.mse_loss(preview(noisy).float(), wanted)


@torch.no_grad()
def report_accuracy(run: Run, trained: TaughtEncoder, data: dict[str, np.ndarray]) -> None:
    """Write how well the training heads themselves read the attributes off the tokens: a hint, no measure."""
    rows = slice(len(data["labels"]) - 1000, None)
    tokens = encode_views(trained.encoder, data["views"][rows], run.device).to(run.device)
    logits = trained.reading.attributes(tokens.flatten(1)).split(CLASSES, dim=1)
    targets = torch.from_numpy(data["labels"][rows].astype(np.int64)).to(run.device)
    lines = []
    for index, (name, part) in enumerate(zip(ATTRIBUTES, logits, strict=True)):
        seen = targets[:, index] != -100
        right = (part.argmax(dim=1) == targets[:, index])[seen]
        lines.append(f"{name},{right.float().mean().item():.4f}")
    write_whole(run.folder / "encoder_accuracy.csv", ("\n".join(lines) + "\n").encode())


@torch.no_grad()
def encode_pixels(encoder: ImageTokens, pixels: Tensor, device: torch.device, batch: int = 256) -> Tensor:
    """Tokens of normalized pixels: float `[N, 3, 64, 64]` -> float `[N, 16, 64]` on the CPU."""
    return torch.cat([encoder(chunk.to(device)).float().cpu() for chunk in pixels.split(batch)])


def encode_views(encoder: ImageTokens, views: np.ndarray, device: torch.device, batch: int = 4096) -> Tensor:
    """Tokens of encoder views: uint8 `[N, 64, 64, 3]` -> float `[N, 16, 64]` on the CPU."""
    chunks = (views[start:start + batch] for start in range(0, len(views), batch))
    return torch.cat([encode_pixels(encoder, pixel_values(chunk), device) for chunk in chunks])
