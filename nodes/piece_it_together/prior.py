"""Sampling whole concepts from parts with the IP-Prior."""
from __future__ import annotations

import math
import time
from collections.abc import Callable

import comfy.model_management
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...pit.flow.solvers import SCHEDULES, SOLVERS
from ...pit.images import contact_sheet, to_pil
from ...pit.ip_adapter.resampler import TOKENS_PER_PICTURE
from ...pit.piece_it_together.sample import concept_noise, sample_prior
from ...pit.piece_it_together.tokens import Parts, Tokens
from ..bridge.feedback import progress_bar
from .types import CATEGORY, ManagedPrior, PartsType, PriorType, TokensType

GIVEN, SHUFFLED = "as given", "shuffled"
SECONDS_BETWEEN_PREVIEWS = 0.1
PREVIEW_PIXELS = 128
BRANCHES, STATES_HELD = 2, 16


def check_width(prior: ManagedPrior, given: Parts | Tokens) -> None:
    """Raise ValueError if tokens are not of the prior's width."""
    if given.width != prior.config.embedding_dim:
        raise ValueError(
            f"The IP-Prior {prior.name} works on tokens of width {prior.config.embedding_dim}, but those "
            f"from {given.source} have width {given.width}. Use the IP-Adapter that it was trained with."
        )


def start_tokens(start: Tokens, concepts: int) -> Tensor:
    """Tokens to start from, `[concepts, 16, D]`; ValueError unless start holds one set or one for each."""
    count = start.values.shape[0]
    if count not in (1, concepts):
        raise ValueError(
            f"IP-Prior Sample is set to {concepts} concepts, but start holds {count} sets of tokens. "
            f"Pass one set, or set concepts to {count}."
        )
    return start.values.expand(concepts, -1, -1)


def working_memory(prior: ManagedPrior, concepts: int, slots: int) -> int:
    """Bytes beside the weights: the hidden states of both branches of the guidance, and what a block makes.

    A block holds its input, the modulated one, queries, keys, values and the gated feed-forward, which is 8/3
    as wide, twice, with their fp32 copies: about 16 times the hidden states.
    """
    tokens = concepts * TOKENS_PER_PICTURE * (1 + slots)
    return BRANCHES * STATES_HELD * torch.float32.itemsize * prior.config.hidden_dim * tokens


def in_batches(draw: Callable[[range], Tensor], count: int) -> Tensor:
    """What `draw` makes of the numbers 0..count - 1: of all at once, or of halves where memory is short."""
    size = count
    while True:
        try:
            return torch.cat([draw(range(count)[first:first + size]) for first in range(0, count, size)])
        except RuntimeError as error:
            if size == 1 or not comfy.model_management.is_oom(error):
                raise
        size = math.ceil(size / 2)
        comfy.model_management.soft_empty_cache()


def watcher(prior: ManagedPrior, concepts: int) -> Callable[[int, int, int, Tensor], None]:
    """A function of (concepts that are done, step, steps, clean estimates) that shows how far it is.

    Where the prior has a preview of its tokens, the estimates are shown in the node.
    """
    done, shown = progress_bar(), 0.0

    def on_step(first: int, step: int, total: int, estimates: Tensor) -> None:
        nonlocal shown
        picture, now = None, time.monotonic()
        if prior.preview is not None and (step == total or now - shown > SECONDS_BETWEEN_PREVIEWS):
            shown, picture = now, wall(prior.preview.model.pictures(estimates.float()))
        done((first * total + step * len(estimates)) // concepts, total, picture)

    return on_step


def wall(pictures: Tensor) -> Image.Image:
    """Small pictures `[B, H, W, 3]` as a contact sheet; what is not finite is black."""
    small = to_pil(pictures.nan_to_num())
    enlarged = [picture.resize((PREVIEW_PIXELS, PREVIEW_PIXELS)) for picture in small]
    return contact_sheet(enlarged, math.ceil(math.sqrt(len(enlarged))), PREVIEW_PIXELS)


class SamplePrior(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SamplePrior",
            display_name="IP-Prior Sample",
            category=CATEGORY,
            description="Completes parts to whole concepts: keeps the parts and invents the rest.",
            search_aliases=["piece it together", "generate concepts"],
            inputs=[
                PriorType.Input("prior", tooltip="The IP-Prior of the domain, such as characters."),
                PartsType.Input("parts", tooltip="The parts that every concept is to keep."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Concept number i, counted from 0, is the one that seed + i draws alone.",
                ),
                io.Int.Input(
                    "concepts", default=4, min=1, max=256,
                    tooltip="How many concepts to draw at once, each with tokens of its own.",
                ),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Of the solver; 25 as published."),
                io.Float.Input(
                    "guidance", default=2.0, min=0.0, max=20.0, step=0.1,
                    tooltip="How closely the concepts follow the parts; 1 or less switches guidance off.",
                ),
                io.Combo.Input(
                    "solver", options=list(SOLVERS), default="euler",
                    tooltip="euler as published; all others need fewer steps. See the help page.",
                ),
                TokensType.Input(
                    "start", optional=True,
                    tooltip="Concepts to vary instead of drawing them from noise: one set, or one for each.",
                ),
                io.Float.Input(
                    "strength", default=0.6, min=0.0, max=1.0, step=0.05,
                    tooltip="How far to leave start: 0 keeps it, 1 ignores it; not read without start.",
                ),
                io.Combo.Input(
                    "schedule", options=list(SCHEDULES), default="uniform", optional=True, advanced=True,
                    tooltip="Where the steps lie: shifted has more in noise, cosine at both ends.",
                ),
                io.Float.Input(
                    "guidance_start", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
                    tooltip="Share of the way from noise at which guidance begins.",
                ),
                io.Float.Input(
                    "guidance_end", default=1.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
                    tooltip="Share of the way at which guidance ends; steps without it take half the time.",
                ),
                io.Float.Input(
                    "rescale", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
                    tooltip="Takes back what high guidance adds in contrast, from 0 (as published) to 1.",
                ),
                io.Combo.Input(
                    "order", options=[GIVEN, SHUFFLED], default=GIVEN, optional=True, advanced=True,
                    tooltip="Order of the parts in their slots; shuffled: by the seed of each concept.",
                ),
            ],
            outputs=[TokensType.Output(display_name="tokens")],
        )

    @classmethod
    def execute(
        cls, prior: ManagedPrior, parts: Parts, seed: int, concepts: int, steps: int, guidance: float,
        solver: str, strength: float, start: Tokens | None = None, schedule: str = "uniform",
        guidance_start: float = 0.0, guidance_end: float = 1.0, rescale: float = 0.0, order: str = GIVEN,
    ) -> io.NodeOutput:
        check_width(prior, parts)
        init = None
        if start is not None:
            check_width(prior, start)
            init = start_tokens(start, concepts)
        if guidance_start >= guidance_end:
            raise ValueError(
                f"Guidance is set to begin at {guidance_start} and to end at {guidance_end}; the end must "
                "come later. To sample without guidance, set guidance to 1."
            )
        memory = working_memory(prior, concepts, len(parts.slots))
        patchers = [each for each in (prior.patcher, prior.preview) if each is not None]
        comfy.model_management.load_models_gpu(patchers, memory_required=memory)
        device, on_step = prior.patcher.load_device, watcher(prior, concepts)

        def draw(numbers: range) -> Tensor:
            first, count = numbers[0], len(numbers)
            seeds = [seed + number for number in numbers] if order == SHUFFLED else None
            given, negative = parts.sequence(count, seeds), parts.negative_sequence(count, seeds)
            return sample_prior(
                prior.patcher.model, given.to(device, prior.dtype), empty_tokens=parts.empty.to(device),
                negative_parts=negative.to(device, prior.dtype),
                noise=concept_noise(seed + first, count, parts.width).to(device), steps=steps,
                guidance_scale=guidance, solver=solver, schedule=schedule, guidance_rescale=rescale,
                guidance_interval=(1 - guidance_end, 1 - guidance_start),
                init_tokens=None if init is None else init[numbers[0]:numbers[-1] + 1].to(device),
                strength=1.0 if init is None else strength,
                callback=lambda step, total, estimates: on_step(first, step, total, estimates),
            )

        values = in_batches(draw, concepts).to(comfy.model_management.intermediate_device())
        notes = {**parts.notes, "prior": prior.name, "seed": str(seed), "steps": str(steps),
                 "guidance": f"{guidance:g}", "solver": solver}
        source = f"IP-Prior Sample with {prior.name}"
        return io.NodeOutput(
            Tokens(values, parts.uncond, source=source, adapter=parts.adapter, notes=notes)
        )
