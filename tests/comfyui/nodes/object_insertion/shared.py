"""Modules by name, and what the tests show to the models."""
from __future__ import annotations

from pathlib import Path

import torch


def nodes(inside, name):
    return inside.pack(f"nodes.object_insertion.{name}")


def engine(inside, name):
    return inside.pack(f"pit.object_insertion.{name}")


def pictures(height=20, width=20, count=1, seed=5):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def covering(height, width, *boxes):
    masks = torch.zeros(len(boxes), height, width)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def folder_of(inside) -> Path:
    folder = inside.base / "models" / "object_insertion"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
