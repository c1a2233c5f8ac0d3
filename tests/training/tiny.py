"""A tiny token cache to train on."""
from __future__ import annotations

from dataclasses import replace

import torch

from pit.files.records import Fingerprint
from pit.piece_it_together.training.cache import Sources, TokenCache, open_cache
from pit.piece_it_together.training.cache_writer import CacheWriter

WIDTH = 32


def write_cache(folder, concepts: int = 60, references: int = 0) -> TokenCache:
    """Concepts with one to four parts, whose tokens follow from those of the target."""
    generator = torch.Generator().manual_seed(0)
    model = Fingerprint("tiny", tuple(float(i) for i in range(1, 33)))
    empty = torch.randn(1, 16, WIDTH, generator=generator)
    with CacheWriter(
        folder, width=WIDTH, variants=2, augmentation={}, encoder=model,
        adapter=replace(model, stamp="89ab"),
        empty=empty, uncond=torch.zeros(1, 16, WIDTH), shard_rows=64,
    ) as writer:
        for i in range(concepts):
            target = torch.randn(16, WIDTH, generator=generator)
            names = [str(part) for part in range(1 + i % 4)]
            parts = [0.5 * target + 0.1 * torch.randn(2, 16, WIDTH, generator=generator) for _ in names]
            grids = [f"grid {k}" for k in range(references)]
            writer.add(
                Sources(f"concept {i:03d}", parts=tuple((name, name) for name in names), grids=tuple(grids)),
                target, parts, torch.randn(references, 16, WIDTH, generator=generator),
            )
    return open_cache(folder)
