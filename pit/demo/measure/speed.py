"""How long the models and the renderer of drawings take."""
from __future__ import annotations

import time
from collections.abc import Callable

import torch

from ..drawing.composition import Composition, draw_composition
from ..models.chain import LATENT_SHAPE
from ..models.sizes import PICTURE_SIZE
from .estimates import Estimate, ratio
from .pictures import fresh_pictures
from .suite import Laboratory, Sampling
from .trials import FREE, draw_trials

REPEATS = 4


def seconds_per_stage(lab: Laboratory, sampling: Sampling, concepts: int = 8) -> dict[str, float]:
    """Seconds that each stage takes for eight concepts of one set of three parts, once warmed up."""
    trial = draw_trials(lab.seed, 1, 3, FREE, purpose="seconds")[0]
    pictures = trial.part_pictures()
    latents = torch.zeros(concepts, *LATENT_SHAPE)
    conditions = lab.conditions([trial]).expand(concepts, -1, -1)
    tokens = lab.chain.empty.expand(concepts, -1, -1)
    stages: dict[str, Callable[[], object]] = {
        "encode the parts": lambda: lab.chain.encode_parts(pictures),
        "sample the tokens": lambda: lab.sample(conditions, sampling),
        "denoise": lambda: lab.chain.denoise(tokens, [trial.caption] * concepts, torch.Generator()),
        "decode": lambda: lab.chain.decode(latents),
    }
    return {name: seconds(stage) for name, stage in stages.items()}


def seconds(stage: Callable[[], object]) -> float:
    """Seconds that a second call takes: the first one also pays for memory and kernels."""
    stage()
    start = time.perf_counter()
    stage()
    return time.perf_counter() - start


def drawings_a_second(kind: str, seed: int, count: int = 60) -> Estimate:
    """How many fresh pictures of one of `KINDS` are drawn at 256 px in a second of one core.

    Each is drawn several times, of which the fastest counts: the others only tell how busy the machine is.
    """
    shown = [picture.composition for picture in fresh_pictures(seed, kind, count, "speed")]
    times = torch.tensor([[drawing_time(each) for each in shown] for _ in range(REPEATS)])
    return ratio(torch.ones(count), times.amin(dim=0))


def drawing_time(composition: Composition) -> float:
    """Seconds that this thread computes to draw a picture of 256 px."""
    start = time.thread_time()
    draw_composition(composition, PICTURE_SIZE)
    return time.thread_time() - start
