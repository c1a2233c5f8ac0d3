"""The loop of the published trainer, which encodes all of its pictures at each step; on random ones here.

Source: Piece it Together (github.com/eladrich/PiT), its trainer. What that reads from disk is already in
memory here, ready for the encoder, so the time for its JPEG files is not counted.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.demo.models.sizes import RESAMPLER
from pit.demo.models.vision import CreatureVision
from pit.flow.path import logit_normal_time, velocity_loss
from pit.ip_adapter.resampler import Resampler
from pit.piece_it_together.prior import IPPrior

Encoder = Callable[[Tensor], Tensor]
VIT_H = CLIPVisionConfig(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, hidden_act="gelu",
    patch_size=14, image_size=224, projection_dim=1024,
)


def vit_h_encoder(device: torch.device) -> Encoder:
    """CLIP ViT-H and the resampler of IP-Adapter-plus, random; in fp16 on a GPU, as published."""
    with device:
        vision, resampler = CLIPVisionModelWithProjection(VIT_H), Resampler()
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    vision, resampler = (module.eval().to(dtype) for module in (vision, resampler))

    def encode(pictures: Tensor) -> Tensor:
        return resampler(vision(pictures.to(dtype), output_hidden_states=True).hidden_states[-2])

    return encode


def creature_encoder(device: torch.device) -> Encoder:
    """The miniature encoder of the creatures, with random weights."""
    vision, resampler = CreatureVision(device=device).eval(), Resampler(**RESAMPLER, device=device).eval()
    return lambda pictures: resampler(vision.features(pictures))


class PublishedLoop:
    """Trains a prior with AdamW at 1e-5 and gradients clipped at 1; fp16 autocast on a GPU, fp32 on a CPU.

    Args:
        pictures: targets and slots, `[B, 1 + slots, 3, size, size]`.
    """

    def __init__(self, encode: Encoder, prior: IPPrior, pictures: Tensor) -> None:
        self.encode, self.prior, self.pictures = encode, prior, pictures
        self.device, on_gpu = pictures.device, pictures.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(prior.parameters(), 1e-5, weight_decay=0.0)
        self.autocast = torch.autocast(self.device.type, torch.float16, enabled=on_gpu)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=on_gpu)

    def step(self) -> None:
        """Encode, predict, and update the weights."""
        with torch.no_grad():
            clean, *slots = [self.encode(slot).float() for slot in self.pictures.unbind(dim=1)]
        parts, noise = torch.cat(slots, dim=1), torch.randn_like(clean)
        t = logit_normal_time(len(clean)).to(self.device)
        with self.autocast:
            loss = velocity_loss(self.prior, clean, parts, t, noise).mean()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.prior.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
