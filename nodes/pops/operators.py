"""Operators applied: two embeddings to one, one and words to one, several to one."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ...pit.pops.embeddings import (
    Embedding,
    best_known,
    check_fits,
    check_same_encoder,
    normalized,
    picture_condition,
    word_condition,
)
from ...pit.pops.modes import MOST_PARTS, PICTURES, WORDS
from ...pit.pops.sample import operator_noise, sample_operator
from ..bridge.feedback import progress_bar
from ..bridge.memory import in_batches
from ..bridge.sockets import EmbeddingType
from .types import CATEGORY, ManagedOperator, OperatorType
from .words import lines_in, word_states

BRANCHES, STATES_HELD, STEP_TOKENS = 2, 16, 2
# Of working memory: beyond some dozens of rows, more at once is not faster.
MOST_BYTES = 2_000_000_000


class Settings(NamedTuple):
    """How to sample. A guidance of 0 stands for the one that suits the operator."""

    seed: int
    count: int
    steps: int
    guidance: float


def settings_inputs() -> list[io.Input]:
    """The inputs that all operators have."""
    return [
        io.Int.Input(
            "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=True,
            tooltip="Result i, counted from 0, is the one that seed + i gives on its own.",
        ),
        io.Int.Input(
            "count", default=1, min=1, max=256, tooltip="How many results of each input, all at once.",
        ),
        io.Int.Input(
            "steps", default=25, min=1, max=1000, tooltip="Steps of the sampler; 25 as published.",
        ),
        io.Float.Input(
            "guidance", default=0.0, min=0.0, max=30.0, step=0.1,
            tooltip="How closely results follow the inputs, 1 turns it off; 0 is what suits the operator: "
                    "for published ones 8 (texture, union) or 1.",
        ),
    ]


def check_takes(node: str, operator: ManagedOperator, takes: str, more: bool = False) -> None:
    """Raise ValueError unless an operator takes what a node gives it.

    Args:
        more: whether the node gives more than two pictures.
    """
    mode = operator.mode
    if mode.takes == takes and (mode.most > 2) == more:
        return
    fitting = "pOps Instruct" if mode.takes == WORDS else "pOps Compose" if mode.most > 2 else "pOps Combine"
    wanted = "words" if takes == WORDS else "several parts" if more else "two pictures"
    raise ValueError(
        f"{node} expected an operator that takes {wanted}, got {operator.name}, which is for "
        f"{operator.mode_name}. Use {fitting} with it, or load another operator."
    )


def check_inputs(operator: ManagedOperator, embeddings: list[Embedding]) -> None:
    """Raise ValueError unless embeddings fit each other and the operator."""
    for embedding in embeddings:
        check_fits(embedding, operator.config.embedding_dim, operator.name)
    check_same_encoder(*embeddings)


def working_memory(operator: ManagedOperator, slots: int, steps: int) -> int:
    """Bytes that a row needs beside the weights: keys and values of all steps, states in a block, noise."""
    config, item = operator.config, torch.float32.itemsize
    tokens = slots + 1 + steps
    kept = 2 * config.num_layers * tokens
    inside = STATES_HELD * (tokens + STEP_TOKENS)
    return item * (BRANCHES * config.hidden_dim * (kept + inside) + steps * config.embedding_dim)


def apply(
    operator: ManagedOperator, condition: Callable[[], tuple[Tensor, Tensor | None]], slots: int, rows: int,
    settings: Settings, made_from: list[Embedding], node: str, notes: dict[str, str],
) -> Embedding:
    """What an operator makes of conditions: `count` embeddings of each, those of the first one first.

    Args:
        condition: makes the condition of all rows once the operator is loaded, with its mask.
        slots, rows: how large it will be, to make room for it.
        made_from: the embeddings behind it.
    """
    total, width = rows * settings.count, operator.config.embedding_dim
    memory = working_memory(operator, slots, settings.steps)
    at_once = min(total, max(1, MOST_BYTES // memory))
    comfy.model_management.load_models_gpu([operator.patcher], memory_required=at_once * memory)
    device, done = operator.patcher.load_device, progress_bar()
    tokens, mask = condition()
    guidance = settings.guidance or operator.guidance

    # Noise follows from seed + number, not from the batch, so that results do not depend on how it is split.
    def draw(numbers: range) -> Tensor:
        first, places = numbers[0], [number // settings.count for number in numbers]
        noise, step_noise = operator_noise(settings.seed + first, len(numbers), width, settings.steps)

        def on_step(step: int, steps: int, estimate: Tensor) -> None:
            done((first * steps + step * len(numbers)) // total, steps)

        return sample_operator(
            operator.patcher.model, tokens[places].to(device, operator.dtype), noise=noise.to(device),
            step_noise=step_noise, steps=settings.steps, guidance_scale=guidance,
            mask=None if mask is None else mask[places].to(device), callback=on_step,
        )

    values = in_batches(draw, total, at_once).to(comfy.model_management.intermediate_device())
    known = best_known(made_from)
    facts = {
        "operator": operator.name, "kind": operator.mode_name, **notes, "seed": str(settings.seed),
        "steps": str(settings.steps), "guidance": f"{guidance:g}",
        **{f"from {number}": each.source for number, each in enumerate(made_from, 1)},
    }
    return Embedding(
        values, known.negative, known.encoder, source=f"{node} with {operator.name}", notes=facts)


class Combine(io.ComfyNode):
    takes = {"first": Embedding, "second": Embedding}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_Combine",
            display_name="pOps Combine",
            category=CATEGORY,
            description="Two pictures to one: an object with a texture, in a scene, or with another thing.",
            search_aliases=[
                "pops binary", "pops texturing", "pops scene", "pops union", "texture", "material",
                "background", "scene", "mix two pictures", "union",
            ],
            inputs=[
                OperatorType.Input("operator", tooltip="An operator for texture, scene or union."),
                *settings_inputs(),
                io.Float.Input(
                    "first_strength", default=1.0, min=0.0, max=2.0, step=0.05,
                    tooltip="How much of the first picture counts; 0 leaves it out.",
                ),
                io.Float.Input(
                    "second_strength", default=1.0, min=0.0, max=2.0, step=0.05,
                    tooltip="How much of the second picture counts; 0 leaves it out.",
                ),
                EmbeddingType.Input(
                    "first", optional=True,
                    tooltip="The object; unconnected, one is invented. A batch is paired one by one.",
                ),
                EmbeddingType.Input(
                    "second", optional=True,
                    tooltip="The texture, the scene or the second thing; unconnected, it is invented.",
                ),
            ],
            outputs=[
                EmbeddingType.Output(
                    display_name="embedding",
                    tooltip="For Kandinsky Conditioning, Embedding to IP+ Tokens or another operator.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, operator: ManagedOperator, seed: int, count: int, steps: int, guidance: float,
        first_strength: float, second_strength: float, first: Embedding | None = None,
        second: Embedding | None = None,
    ) -> io.NodeOutput:
        check_takes("pOps Combine", operator, PICTURES)
        given = [each for each in (first, second) if each is not None]
        if not given:
            raise ValueError("pOps Combine expected an embedding in first or second, got none. Connect one.")
        check_inputs(operator, given)

        def condition() -> tuple[Tensor, None]:
            model = operator.patcher.model
            slots = [None if each is None else normalized(each, model) for each in (first, second)]
            return picture_condition(slots, [first_strength, second_strength]), None

        return io.NodeOutput(apply(
            operator, condition, 2, max(len(each.values) for each in given),
            Settings(seed, count, steps, guidance), given, "pOps Combine",
            {"strengths": f"{first_strength:g} and {second_strength:g}"},
        ))


class Instruct(io.ComfyNode):
    takes = {"embedding": Embedding}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_Instruct",
            display_name="pOps Instruct",
            category=CATEGORY,
            description="The same picture, but as a word says: shiny, enormous, aged.",
            search_aliases=[
                "pops instruct", "adjective", "edit with a word", "make it older", "shiny", "edit by text",
            ],
            inputs=[
                OperatorType.Input("operator", tooltip="The operator instruct."),
                EmbeddingType.Input("embedding", tooltip="What to change; a batch is paired with the lines."),
                io.Clip.Input("clip", tooltip="The CLIP of SDXL, of which only ViT-bigG is used."),
                io.String.Input(
                    "words", multiline=True, default="shiny",
                    tooltip="One word or a few; each line gives its own result.",
                ),
                *settings_inputs(),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.05,
                    tooltip="How much of the picture counts; 0 follows the words alone.",
                ),
            ],
            outputs=[
                EmbeddingType.Output(
                    display_name="embedding",
                    tooltip="For Kandinsky Conditioning, Embedding to IP+ Tokens or another operator.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, operator: ManagedOperator, embedding: Embedding, clip, words: str, seed: int, count: int,
        steps: int, guidance: float, strength: float,
    ) -> io.NodeOutput:
        check_takes("pOps Instruct", operator, WORDS)
        check_inputs(operator, [embedding])
        lines = lines_in(words)
        states = word_states(clip, lines, operator.config.embedding_dim)

        def condition() -> tuple[Tensor, Tensor]:
            picture = normalized(embedding, operator.patcher.model).to(states[0].device)
            return word_condition(picture, states, strength)

        return io.NodeOutput(apply(
            operator, condition, 1 + max(map(len, states)), max(len(embedding.values), len(lines)),
            Settings(seed, count, steps, guidance), [embedding], "pOps Instruct",
            {"words": ", ".join(lines)},
        ))


class Compose(io.ComfyNode):
    takes = {"parts": Embedding}

    @classmethod
    def define_schema(cls) -> io.Schema:
        part = EmbeddingType.Input("part", tooltip="A part; a batch is several parts.")
        return io.Schema(
            node_id="PiT_Compose",
            display_name="pOps Compose",
            category=CATEGORY,
            description="Up to 12 parts to one picture, such as garments to an outfit.",
            search_aliases=[
                "pops clothes", "pops outfit", "compose parts", "outfit", "clothes", "garments", "collage",
                "dress",
            ],
            inputs=[
                OperatorType.Input("operator", tooltip="An operator for clothes."),
                io.Autogrow.Input(
                    "parts",
                    template=io.Autogrow.TemplatePrefix(part, prefix="part", min=1, max=MOST_PARTS),
                    tooltip="The parts, in their order.",
                ),
                *settings_inputs(),
            ],
            outputs=[
                EmbeddingType.Output(
                    display_name="embedding",
                    tooltip="For Kandinsky Conditioning, Embedding to IP+ Tokens or another operator.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, operator: ManagedOperator, parts: dict[str, Embedding], seed: int, count: int, steps: int,
        guidance: float,
    ) -> io.NodeOutput:
        check_takes("pOps Compose", operator, PICTURES, more=True)
        given = list(parts.values())
        check_inputs(operator, given)
        number = sum(len(each.values) for each in given)
        if number > MOST_PARTS:
            raise ValueError(
                f"pOps Compose expected at most {MOST_PARTS} parts, got {number}. Leave some out."
            )

        def condition() -> tuple[Tensor, None]:
            rows = torch.cat([normalized(each, operator.patcher.model) for each in given])
            return picture_condition(list(rows.split(1))), None

        return io.NodeOutput(apply(
            operator, condition, number, 1, Settings(seed, count, steps, guidance), given, "pOps Compose",
            {"parts": str(number)},
        ))
