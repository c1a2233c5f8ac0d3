"""Sampling whole concepts from parts with the IP-Prior."""
from __future__ import annotations

import math
import time
from collections.abc import Callable

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...pit.concepts.tokens import Tokens
from ...pit.files.records import same_adapter
from ...pit.flow.solvers import SCHEDULES, SOLVERS
from ...pit.images import contact_sheet, to_pil, to_tensor
from ...pit.ip_adapter.resampler import TOKENS_PER_PICTURE
from ...pit.piece_it_together.sample import concept_noise, sample_prior
from ...pit.piece_it_together.slots import Parts
from ..bridge.feedback import progress_bar
from ..bridge.memory import in_batches
from ..bridge.sockets import TokensType
from .types import CATEGORY, ManagedPrior, PartsType, PriorType

GIVEN, SHUFFLED = "as given", "shuffled"
# A small prior takes many steps a second, and previewing every one would slow it down.
SECONDS_BETWEEN_PREVIEWS = 0.1
PREVIEW_PIXELS = 128
BRANCHES, STATES_HELD = 2, 16


def check_tokens(prior: ManagedPrior, given: Parts | Tokens) -> None:
    """Raise ValueError if tokens do not have the prior's width, or are known to be another IP-Adapter's."""
    if given.width != prior.config.embedding_dim:
        raise ValueError(
            f"The IP-Prior {prior.name} expected tokens of width {prior.config.embedding_dim}, got width "
            f"{given.width} from {given.source}. Use the IP-Adapter that the prior was trained with."
        )
    # Tokens of another adapter may have the same width, and would be completed to something unrelated.
    wanted = prior.config.adapter
    if wanted and given.adapter and not same_adapter(wanted, given.adapter):
        raise ValueError(
            f"Expected tokens of the IP-Adapter that the IP-Prior {prior.name} was trained with ({wanted}), "
            f"got those of another one ({given.adapter}) from {given.source}. Connect the IP-Adapter of the "
            "prior."
        )


def start_tokens(start: Tokens, concepts: int) -> Tensor:
    """Tokens to start from, `[concepts, 16, D]`; ValueError unless `start` holds one set or one for each."""
    count = start.values.shape[0]
    if count not in (1, concepts):
        raise ValueError(
            f"IP-Prior Sample expected one set of tokens in start, or one for each of {concepts} concepts; "
            f"got {count} sets. Pass one set, or set concepts to {count}."
        )
    return start.values.expand(concepts, -1, -1)


def working_memory(prior: ManagedPrior, concepts: int, slots: int) -> int:
    """Bytes needed on top of the weights: the hidden states of both branches of guidance, inside a block."""
    # A block holds its input, its modulated input, queries, keys, values, and twice the gated feed-forward,
    # which is 8/3 as wide, along with their float32 copies: about 16 times the hidden states. ComfyUI makes
    # this much room before it loads the prior; too little is caught by `in_batches`.
    tokens = concepts * TOKENS_PER_PICTURE * (1 + slots)
    return BRANCHES * STATES_HELD * torch.float32.itemsize * prior.config.hidden_dim * tokens


def watcher(prior: ManagedPrior, concepts: int) -> Callable[[int, int, int, Tensor], None]:
    """A function of (finished concepts, step, steps, clean estimates) that reports progress.

    If the prior has a preview of its tokens, the estimates are shown in the node.
    """
    done, shown = progress_bar(), 0.0

    def on_step(first: int, step: int, total: int, estimates: Tensor) -> None:
        nonlocal shown
        picture, now = None, time.monotonic()
        # The last step is always shown: its picture stays in the node.
        if prior.preview is not None and (step == total or now - shown > SECONDS_BETWEEN_PREVIEWS):
            shown, picture = now, wall(prior.preview.model.pictures(estimates.float()))
        # In steps of the solver, as if all concepts were one batch: the bar keeps its scale if they are not.
        done((first * total + step * len(estimates)) // concepts, total, picture)

    return on_step


def wall(pictures: Tensor) -> Image.Image:
    """Small pictures `[B, H, W, 3]` as a contact sheet; NaN is black."""
    # A preview must not fail a sampling: the sampler itself reports values that are not finite.
    small = to_pil(pictures.nan_to_num())
    enlarged = [picture.resize((PREVIEW_PIXELS, PREVIEW_PIXELS)) for picture in small]
    return contact_sheet(enlarged, math.ceil(math.sqrt(len(enlarged))), PREVIEW_PIXELS)


def shown_concepts(prior: ManagedPrior, values: Tensor, cls: type[io.ComfyNode]) -> ui.PreviewImage | None:
    """What the concepts come to, as the output of a node; None if the prior has no preview of its tokens."""
    if prior.preview is None:
        return None
    picture = wall(prior.preview.model.pictures(values.to(prior.preview.load_device).float()))
    return ui.PreviewImage(to_tensor([picture]), cls=cls)


def later_inputs() -> list[io.Input]:
    """What few want to set."""
    # These inputs came later than the others. They are optional so that older API graphs, which do not
    # name them, still run, and their defaults sample as before.
    return [
        io.Combo.Input(
            "schedule", options=list(SCHEDULES), default="uniform", optional=True, advanced=True,
            tooltip="Where the steps are dense: shifted near noise, cosine at both ends.",
        ),
        io.Float.Input(
            "guidance_start", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
            tooltip="Fraction of the way from noise at which guidance begins.",
        ),
        io.Float.Input(
            "guidance_end", default=1.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
            tooltip="Fraction of the way at which guidance ends; steps without it are twice as fast.",
        ),
        io.Float.Input(
            "rescale", default=0.0, min=0.0, max=1.0, step=0.05, optional=True, advanced=True,
            tooltip="How much of the contrast that high guidance adds is removed; 0 as published.",
        ),
        io.Combo.Input(
            "order", options=[GIVEN, SHUFFLED], default=GIVEN, optional=True, advanced=True,
            tooltip="Order of the parts in their slots; shuffled uses the seed of each concept.",
        ),
    ]


class SamplePrior(io.ComfyNode):
    takes = {"parts": Parts, "start": Tokens}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SamplePrior",
            display_name="IP-Prior Sample",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description="Completes parts into whole concepts: keeps the parts and invents the rest.",
            search_aliases=[
                "piece it together", "generate concepts", "vary", "variations", "random ideas",
                "complete parts", "inspiration",
            ],
            # Its picture stays when the page is left, and comes back when nothing is sampled anew.
            has_intermediate_output=True,
            inputs=[
                PriorType.Input("prior", tooltip="The IP-Prior of the domain, such as characters."),
                PartsType.Input("parts", tooltip="The parts that every concept should keep."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
                    tooltip="Concept i, counted from 0, is the one that seed + i gives on its own.",
                ),
                io.Int.Input(
                    "concepts", default=4, min=1, max=256,
                    tooltip="How many concepts to sample at once, each with its own tokens.",
                ),
                io.Int.Input(
                    "steps", default=25, min=1, max=1000, tooltip="Steps of the solver; 25 as published.",
                ),
                io.Float.Input(
                    "guidance", default=2.0, min=0.0, max=20.0, step=0.1,
                    tooltip="How closely the concepts follow the parts; 1 or less turns guidance off.",
                ),
                io.Combo.Input(
                    "solver", options=list(SOLVERS), default="euler",
                    tooltip="euler as published; all others need fewer steps, see the help page.",
                ),
                TokensType.Input(
                    "start", optional=True,
                    tooltip="Concepts to vary instead of starting from noise: one, or one for each concept.",
                ),
                io.Float.Input(
                    "strength", default=0.6, min=0.0, max=1.0, step=0.05,
                    tooltip="How far to move from start: 0 keeps it, 1 ignores it; unused without start.",
                ),
                *later_inputs(),
            ],
            outputs=[
                TokensType.Output(display_name="tokens", tooltip="The whole concepts, for Apply IP+ Tokens."),
            ],
        )

    @classmethod
    def execute(
        cls, prior: ManagedPrior, parts: Parts, seed: int, concepts: int, steps: int, guidance: float,
        solver: str, strength: float, start: Tokens | None = None, schedule: str = "uniform",
        guidance_start: float = 0.0, guidance_end: float = 1.0, rescale: float = 0.0, order: str = GIVEN,
    ) -> io.NodeOutput:
        check_tokens(prior, parts)
        init = None
        if start is not None:
            check_tokens(prior, start)
            init = start_tokens(start, concepts)
        if guidance_start >= guidance_end:
            raise ValueError(
                f"IP-Prior Sample expected guidance_start to be less than guidance_end, got {guidance_start} "
                f"and {guidance_end}. To sample without guidance, set guidance to 1."
            )
        memory = working_memory(prior, concepts, len(parts.slots))
        patchers = [each for each in (prior.patcher, prior.preview) if each is not None]
        comfy.model_management.load_models_gpu(patchers, memory_required=memory)
        device, on_step = prior.patcher.load_device, watcher(prior, concepts)

        # Noise and order follow from seed + number, not from the batch: apart from rounding, concepts come
        # out the same however they are split, and one of them can be sampled again alone.
        def draw(numbers: range) -> Tensor:
            first, count = numbers[0], len(numbers)
            seeds = [seed + number for number in numbers] if order == SHUFFLED else None
            given, negative = parts.sequence(count, seeds), parts.negative_sequence(count, seeds)
            return sample_prior(
                prior.patcher.model, given.to(device, prior.dtype), empty_tokens=parts.empty.to(device),
                negative_parts=negative.to(device, prior.dtype),
                noise=concept_noise(seed + first, count, parts.width).to(device), steps=steps,
                guidance_scale=guidance, solver=solver, schedule=schedule, guidance_rescale=rescale,
                # The inputs count from noise to concept, time runs the other way: 1 is noise.
                guidance_interval=(1 - guidance_end, 1 - guidance_start),
                init_tokens=None if init is None else init[numbers[0]:numbers[-1] + 1].to(device),
                strength=1.0 if init is None else strength,
                callback=lambda step, total, estimates: on_step(first, step, total, estimates),
            )

        values = in_batches(draw, concepts).to(comfy.model_management.intermediate_device())
        notes = {**parts.notes, "prior": prior.name, "seed": str(seed), "steps": str(steps),
                 "guidance": f"{guidance:g}", "solver": solver}
        source = f"IP-Prior Sample with {prior.name}"
        tokens = Tokens(values, parts.uncond, source=source, adapter=parts.adapter, notes=notes)
        return io.NodeOutput(tokens, ui=shown_concepts(prior, values, cls))
