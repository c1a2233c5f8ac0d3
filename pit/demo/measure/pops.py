"""The measures of the creatures' pOps operators: what they keep and what they take, drawn and read.

Each stands beside what the true result gives, drawn from its embedding, and beside simpler ways.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ...images import labelled_sheet
from ...pops.modes import MODES
from ..drawing.instructions import Instruction
from ..models.operators import CreatureOperators, word_states
from ..models.reader import Reading
from ..models.sizes import PICTURE_SIZE
from .estimates import Estimate, mean_share, percent
from .markdown import markdown, reached
from .plan import Plan
from .pops_trials import (
    OperatorTrials,
    chain_trials,
    instruct_trials,
    part_trials,
    scene_trials,
    texture_trials,
    union_trials,
)
from .report import as_images
from .scores import kept
from .suite import RECOMMENDED, Laboratory
from .trials import Trial, all_targets

COMPOSED = (2, 5)  # parts
SHEET_SEEDS = 8
TRUE, MEAN, SIDE_BY_SIDE = "the true result's embedding", "mean of the embeddings", "both as tokens"
OPERATOR, PUBLISHED = "operator", "operator, guidance as published"
# The least of each score, in their order, in 0..1.
BARS = {
    "texturing": (0.92, 0.88), "scene": (0.92, 0.95), "union": (0.85, 0.85), "instruct": (0.90, 0.90),
}
NOTE = (
    "The published figures of the operator instruct (arXiv 2406.01300, table 1) are of photographs and of "
    "adjectives: nothing here can be compared with them."
)


@dataclass(frozen=True)
class OperatorTable:
    """The scores of an operator and of other ways.

    Attributes:
        rows: by the name of each way, an estimate for each column.
        bars: what the operator is to reach in each column; nothing where all is as measured.
    """

    title: str
    columns: tuple[str, ...]
    rows: dict[str, list[Estimate]]
    bars: tuple[float, ...] = ()

    def markdown(self) -> str:
        """As a table in Markdown."""
        rows = [[name, *map(percent, scores)] for name, scores in self.rows.items()]
        bars = [["target", *(self.verdict(number) for number in range(len(self.bars)))]] if self.bars else []
        return markdown([self.title, *self.columns], rows + bars)

    def verdict(self, column: int) -> str:
        """The bar of a column, and whether the operator reaches it."""
        bar = self.bars[column]
        return f"{bar:.0%}, {reached(self.rows[OPERATOR][column].value >= bar)}"


def pops_tables(lab: Laboratory, plan: Plan) -> str:
    """All tables, in Markdown; errors as in `CreatureOperators`."""
    return "\n\n".join([*(each.markdown() for each in pops_measures(lab, plan)), NOTE])


def pops_pictures(plan: Plan) -> int:
    """How many pictures are rendered in all."""
    return plan.trials * ((3 + 1 + len(COMPOSED)) * 5 + 3)


def pops_measures(lab: Laboratory, plan: Plan) -> list[OperatorTable]:
    """Measure every operator, and three of them in a row."""
    operators, count = CreatureOperators(), plan.trials
    return [
        two_pictures(lab, operators, "texture", "texturing", texture_trials(lab.seed, count)),
        two_pictures(lab, operators, "scene", "scene", scene_trials(lab.seed, count)),
        two_pictures(lab, operators, "union", "union", union_trials(lab.seed, count)),
        by_words(lab, operators, instruct_trials(lab.seed, count)),
        *(by_parts(lab, operators, part_trials(lab.seed, count, parts)) for parts in COMPOSED),
        in_a_chain(lab, operators, chain_trials(lab.seed, count)),
    ]


# Tables ---------------------------------------------------------------------------------------------------


def two_pictures(
    lab: Laboratory, operators: CreatureOperators, mode: str, title: str, trials: OperatorTrials
) -> OperatorTable:
    """An operator on two pictures."""
    first, second = map(lab.chain.embed, trials.given)
    return scored(title, trials, {
        OPERATOR: drawn(lab, operators.combine(mode, first, second, lab.seed)),
        PUBLISHED: drawn(lab, operators.combine(mode, first, second, lab.seed, MODES[mode].guidance)),
        TRUE: drawn(lab, lab.chain.embed(trials.results)),
        MEAN: drawn(lab, (first + second) / 2),
        SIDE_BY_SIDE: drawn(lab, torch.stack([first, second], dim=1)),
    })


def by_words(lab: Laboratory, operators: CreatureOperators, trials: OperatorTrials) -> OperatorTable:
    """The operator on a picture and words, beside words that the renderer itself reads."""
    (first,) = map(lab.chain.embed, trials.given)
    prompts, words = [prompt_of(each) for each in trials.said], states(lab, trials.phrases)
    published = MODES["instruct"].guidance
    return scored("instruct", trials, {
        OPERATOR: drawn(lab, operators.instruct(first, words, lab.seed)),
        PUBLISHED: drawn(lab, operators.instruct(first, words, lab.seed, published)),
        TRUE: drawn(lab, lab.chain.embed(trials.results)),
        "the picture's embedding, the words in the prompt": drawn(lab, first, prompts),
        "the words alone, in the prompt": drawn(lab, torch.zeros_like(first), prompts),
    })


def by_parts(lab: Laboratory, operators: CreatureOperators, trials: list[Trial]) -> OperatorTable:
    """The operator on parts, beside the IP-Prior, which makes 16 tokens of the same parts."""
    parts = [lab.chain.embed(trial.part_pictures()) for trial in trials]
    targets, together = all_targets(trials), torch.stack(parts)
    tokens, captions = lab.sample(lab.conditions(trials), RECOMMENDED), [trial.caption for trial in trials]
    published = operators.compose(parts, lab.seed, MODES["clothes"].guidance)
    readings = {
        OPERATOR: drawn(lab, operators.compose(parts, lab.seed), captions),
        PUBLISHED: drawn(lab, published, captions), "IP-Prior": lab.render(tokens, captions),
        MEAN: drawn(lab, together.mean(dim=1), captions), "all as tokens": drawn(lab, together, captions),
    }
    rows = {name: [mean_share(kept(reading, targets))] for name, reading in readings.items()}
    return OperatorTable(f"compose, {len(trials[0].parts)} parts", ("their attributes kept",), rows)


def in_a_chain(lab: Laboratory, operators: CreatureOperators, trials: OperatorTrials) -> OperatorTable:
    """A word, a scene and a texture, one operator after another."""
    first, scenes, patches = map(lab.chain.embed, trials.given)
    prompts = [prompt_of(each) for each in trials.said]
    return scored("instruct, scene and texturing in a chain", trials, {
        OPERATOR: drawn(lab, chained(lab, operators, trials.phrases, first, scenes, patches)),
        TRUE: drawn(lab, lab.chain.embed(trials.results)),
        f"{MEAN}, the words in the prompt": drawn(lab, (first + scenes + patches) / 3, prompts),
    })


def chained(
    lab: Laboratory, operators: CreatureOperators, phrases: Sequence[str], first: Tensor, scenes: Tensor,
    patches: Tensor,
) -> Tensor:
    """Embeddings `[N, 256]` behind the three operators."""
    said = operators.instruct(first, states(lab, phrases), lab.seed)
    placed = operators.combine("scene", said, scenes, lab.seed)
    return operators.combine("texture", placed, patches, lab.seed)


def scored(title: str, trials: OperatorTrials, readings: dict[str, Reading]) -> OperatorTable:
    """The table of what was read."""
    rows = {
        name: [mean_share(score(reading)) for score in trials.scores.values()]
        for name, reading in readings.items()
    }
    return OperatorTable(title, tuple(trials.scores), rows, BARS.get(title, ()))


# Pictures -------------------------------------------------------------------------------------------------


def drawn(lab: Laboratory, embeddings: Tensor, captions: list[str] | None = None) -> Reading:
    """Draw embeddings `[N, 256]`, or several side by side `[N, K, 256]`, and read the pictures.

    Args:
        captions: by default none: embeddings hold all that there is to show.
    """
    captions = captions or [""] * len(embeddings)
    pictures = lab.chain.render_embeddings(embeddings, captions, lab.seed, on_batch=lab.on_pictures)
    return lab.reader.read(pictures)


def states(lab: Laboratory, phrases: Sequence[str]) -> list[Tensor]:
    """What the operator reads of phrases."""
    return word_states(lab.chain.renderer.text, phrases)


def prompt_of(said: Instruction) -> str:
    """An instruction as a prompt: "a red creature", "a creature with bat wings"."""
    phrase = said.phrases[0]
    return f"a {said.value} creature" if said.slot == "body" else f"a creature with {phrase}"


def pops_sheet(lab: Laboratory) -> Image.Image:
    """Five rows: what each operator is given, and what the seeds from 0 on make of it, none picked."""
    operators, cells, seeds = CreatureOperators(), [], range(SHEET_SEEDS)
    for mode, trials in (
        ("texture", texture_trials(lab.seed, 1)), ("scene", scene_trials(lab.seed, 1)),
        ("union", union_trials(lab.seed, 1)),
    ):
        first, second = (lab.chain.embed(each).expand(SHEET_SEEDS, -1) for each in trials.given)
        results = operators.combine(mode, first, second, 0)
        cells += sheet_row(lab, [each[0] for each in trials.given], ["", mode], results)
    trials = instruct_trials(lab.seed, 1)
    first = lab.chain.embed(trials.given[0]).expand(SHEET_SEEDS, -1)
    said = operators.instruct(first, states(lab, trials.phrases), 0)
    cells += sheet_row(lab, trials.given[0], ["", trials.phrases[0]], said)
    (parts,) = part_trials(lab.seed, 1, 2)
    pictures = parts.part_pictures()
    composed = operators.compose([lab.chain.embed(pictures) for _ in seeds], 0)
    cells += sheet_row(lab, pictures, ["", "compose"], composed)
    pictures, labels = zip(*cells, strict=True)
    return labelled_sheet(pictures, labels, 2 + SHEET_SEEDS)


def sheet_row(
    lab: Laboratory, given: list[Image.Image], labels: list[str], results: Tensor
) -> list[tuple[Image.Image, str]]:
    """What is given, at most two pictures, and what comes out, with labels."""
    white = Image.new("RGB", (PICTURE_SIZE, PICTURE_SIZE), "white")
    shown = [each.resize(white.size) for each in [*given, white][:2]]
    made = as_images(lab.chain.render_embeddings(results, [""] * len(results), 0))
    numbers = [f"seed {number}" for number in range(len(made))]
    return list(zip(shown + made, labels + numbers, strict=True))
