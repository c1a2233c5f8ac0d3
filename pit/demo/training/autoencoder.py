"""Training the autoencoder: pictures of 128 px to latents of 4 x 16 x 16 and back."""
from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from ...images import CLIP_MEAN, CLIP_STD
from ..models.autoencoder import build_autoencoder
from ..models.sizes import LATENT_SCALE, PICTURE_SIZE
from ..models.vision import CreatureVision
from .stage import Run, Stage, train_stage

STAGE = Stage("autoencoder", steps=8000, batch=12, learning_rate=1.5e-3)
CROP = 64  # a quarter of the cost of whole pictures
KL_WEIGHT = 1e-4  # just keeps the latents from drifting; `standardize_latents` sets their spread at the end
# Small parts hardly count in the error of pixels, but they do in the features of an encoder that reads them.
FEATURE_WEIGHT = 1.0


def train_autoencoder(run: Run, data: dict[str, np.ndarray], vision: CreatureVision) -> AutoencoderKL:
    """Train the autoencoder; `vision`, the trained image encoder, judges what a picture shows."""
    torch.manual_seed(run.seed)
    model = build_autoencoder().to(run.device)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        crops = random_crops(data["pictures"], STAGE.batch, generator).to(run.device)
        with run.autocast():
            posterior = model.encode(crops).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(run.device)
            drawn = model.decode(posterior.mean.float() + posterior.std.float() * noise).sample.float()
            seen = feature_loss(vision, drawn, crops)
        # The divergence is a sum over the latents of a picture; the other losses are means.
        divergence = posterior.kl().float().mean()
        loss = pixel_loss(drawn, crops) + FEATURE_WEIGHT * seen
        return loss + KL_WEIGHT * divergence / posterior.mean[0].numel()

    return standardize_latents(run, train_stage(run, STAGE, model, loss_at), data)


def pixels_to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 `[B, H, W, 3]` -> float `[B, 3, H, W]` in -1..1."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def random_crops(pictures: np.ndarray, count: int, generator: torch.Generator) -> Tensor:
    """Square crops at random places of random pictures, `[count, 3, CROP, CROP]` in -1..1."""
    rows = torch.randint(len(pictures), (count,), generator=generator).tolist()
    places = torch.randint(PICTURE_SIZE - CROP + 1, (count, 2), generator=generator).tolist()
    crops = (
        pictures[row, top:top + CROP, left:left + CROP]
        for row, (top, left) in zip(rows, places, strict=True)
    )
    return pixels_to_tensor(np.stack(list(crops)))


def pixel_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Absolute error at three scales, and of the differences of neighbors, which keeps outlines crisp."""
    loss = sum(
        functional.l1_loss(functional.avg_pool2d(drawn, size), functional.avg_pool2d(wanted, size))
        for size in (1, 2, 4)
    )
    edges = sum(functional.l1_loss(drawn.diff(dim=axis), wanted.diff(dim=axis)) for axis in (2, 3))
    return loss + edges


def feature_loss(vision: CreatureVision, drawn: Tensor, wanted: Tensor) -> Tensor:
    """Absolute error of the image encoder's feature maps, at the size that it sees (arXiv 1603.08155)."""
    both = functional.avg_pool2d(torch.cat([drawn, wanted]), 2) / 2 + 0.5
    mean, std = (torch.tensor(values).view(1, 3, 1, 1).to(both) for values in (CLIP_MEAN, CLIP_STD))
    levels = (level.float().chunk(2) for level in vision.levels((both - mean) / std))
    return sum(functional.l1_loss(ours, theirs) for ours, theirs in levels)


@torch.no_grad()
def encode_pictures(
    model: AutoencoderKL, pictures: np.ndarray, device: torch.device, batch: int = 64
) -> Tensor:
    """Unscaled mean latents of pictures: uint8 `[N, 128, 128, 3]` -> `[N, 4, 16, 16]` on the CPU."""
    chunks = (pictures[start:start + batch] for start in range(0, len(pictures), batch))
    posteriors = (model.encode(pixels_to_tensor(chunk).to(device)).latent_dist for chunk in chunks)
    return torch.cat([posterior.mean.float().cpu() for posterior in posteriors])


@torch.no_grad()
def standardize_latents(run: Run, model: AutoencoderKL, data: dict[str, np.ndarray]) -> AutoencoderKL:
    """Shift and scale the latents so that they have zero mean, and unit spread once SDXL's factor is applied.

    Both are folded into the 1x1 convolutions before and after the latents, so pictures stay what they were.
    """
    latents = encode_pictures(model, data["pictures"][:1024], run.device)
    mean = latents.mean(dim=(0, 2, 3)).to(run.device)
    scale = latents.std(dim=(0, 2, 3)).to(run.device) * LATENT_SCALE
    before, after = model.quant_conv, model.post_quant_conv
    # The bias after them first: it still needs the weights as they were.
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(dim=1)
    after.weight *= scale[None, :, None, None]
    before.weight[:4] /= scale[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - mean) / scale
    # Channels 4 to 7 hold the logarithm of the variance, which falls with the square of the scale.
    before.bias[4:] -= 2 * scale.log()
    return model
