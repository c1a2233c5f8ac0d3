"""Sampling whole concepts from parts with the IP-Prior."""
from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..pit.flow import SOLVERS, concept_noise, sample_prior
from ..pit.tokens import Parts, Tokens
from .bridge import progress_bar
from .types import CATEGORY, ManagedPrior, PartsType, PriorType, TokensType


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
    """Bytes beside the weights: about 16 times the float32 hidden states of both branches of the guidance."""
    return 16 * 4 * prior.config.hidden_dim * 2 * concepts * 16 * (1 + slots)


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
                    "concepts", default=4, min=1, max=64,
                    tooltip="How many concepts to draw at once, each with tokens of its own.",
                ),
                io.Int.Input(
                    "steps", default=25, min=1, max=1000, tooltip="Steps of the solver; 25 as published.",
                ),
                io.Float.Input(
                    "guidance", default=2.0, min=0.0, max=20.0, step=0.1,
                    tooltip="How closely the concepts follow the parts; 1 or less switches guidance off.",
                ),
                io.Combo.Input(
                    "solver", options=list(SOLVERS), default="euler",
                    tooltip="euler as published; ab2 and midpoint need fewer steps, midpoint twice the work.",
                ),
                TokensType.Input(
                    "start", optional=True,
                    tooltip="Concepts to vary instead of drawing them from noise: one set, or one for each.",
                ),
                io.Float.Input(
                    "strength", default=0.6, min=0.0, max=1.0, step=0.05,
                    tooltip="How far to leave start: 0 keeps it, 1 ignores it; not read without start.",
                ),
            ],
            outputs=[TokensType.Output(display_name="tokens")],
        )

    @classmethod
    def execute(
        cls, prior: ManagedPrior, parts: Parts, seed: int, concepts: int, steps: int, guidance: float,
        solver: str, strength: float, start: Tokens | None = None,
    ) -> io.NodeOutput:
        device, init_tokens = prior.patcher.load_device, None
        check_width(prior, parts)
        if start is not None:
            check_width(prior, start)
            init_tokens = start_tokens(start, concepts).to(device)
        memory = working_memory(prior, concepts, len(parts.slots))
        comfy.model_management.load_models_gpu([prior.patcher], memory_required=memory)
        done = progress_bar()
        tokens = sample_prior(
            prior.patcher.model, parts.sequence(concepts).to(device), empty_tokens=parts.empty.to(device),
            noise=concept_noise(seed, concepts, parts.width).to(device), steps=steps, guidance_scale=guidance,
            solver=solver, init_tokens=init_tokens, strength=1.0 if init_tokens is None else strength,
            callback=lambda step, total, estimate: done(step, total),
        )
        values = tokens.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(Tokens(values, parts.uncond, f"IP-Prior Sample with {prior.name}"))
