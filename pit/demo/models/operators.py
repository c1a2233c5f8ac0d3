"""The creatures' pOps operators, as the measures apply them; and the words that one of them hears."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...pops.embeddings import in_one_batch, picture_condition, word_condition
from ...pops.files import load_operator
from ...pops.modes import MODES
from ...pops.sample import operator_noise, sample_operator
from .operator_files import OPERATORS, operator_file
from .sizes import EMBEDDING_DIM
from .text import TextEncoders, caption_ids
from .weights import weight_file
from .words import END

STEPS = 25


class CreatureOperators:
    """All operators, on the CPU in fp32."""

    def __init__(self) -> None:
        """Load the shipped weights.

        Raises:
            WeightFileError: a file is missing, damaged or of another version.
        """
        self.operators = {mode: load_operator(weight_file(operator_file(mode))).float() for mode in OPERATORS}

    def combine(self, mode: str, first: Tensor, second: Tensor, seed: int) -> Tensor:
        """What an operator makes of two embeddings `[N, 256]` each; row i comes from seed + i."""
        operator = self.operators[mode]
        slots = [operator.normalized(first), operator.normalized(second)]
        return self.sample(mode, picture_condition(slots), seed)

    def instruct(self, embeddings: Tensor, words: Sequence[Tensor], seed: int) -> Tensor:
        """Embeddings `[N, 256]`, changed as the words of each row say, see `word_states`."""
        operator = self.operators["instruct"]
        condition, mask = word_condition(operator.normalized(embeddings), words)
        return self.sample("instruct", condition, seed, mask)

    def compose(self, parts: Sequence[Tensor], seed: int, guidance: float | None = None) -> Tensor:
        """One embedding for the parts `[P, 256]` of each row; guidance as published, unless one is given."""
        operator = self.operators["clothes"]
        condition, mask = in_one_batch([operator.normalized(each) for each in parts])
        return self.sample("clothes", condition, seed, mask, guidance)

    def sample(
        self, mode: str, condition: Tensor, seed: int, mask: Tensor | None = None,
        guidance: float | None = None,
    ) -> Tensor:
        """Raw embeddings `[N, 256]` under a condition `[N, n, 256]`, as the nodes draw them by default."""
        noise, step_noise = operator_noise(seed, len(condition), EMBEDDING_DIM, STEPS)
        scale = MODES[mode].guidance if guidance is None else guidance
        return sample_operator(
            self.operators[mode], condition, noise=noise, step_noise=step_noise, steps=STEPS,
            guidance_scale=scale, mask=mask,
        )


@torch.no_grad()
def word_states(text: TextEncoders, phrases: Sequence[str]) -> list[Tensor]:
    """What **pOps Instruct** reads of phrases: the last states of CLIP-G, up to the end, `[L, 256]` each.

    The encoder is narrower than the embeddings, so zeros follow.

    Raises:
        KeyError: a word that captions do not have.
    """
    encoder = text.clip_g
    ids = caption_ids(list(phrases), 0, encoder.text_projection.weight.device)
    ends = (ids == END).int().argmax(dim=1).tolist()
    states = encoder(ids).last_hidden_state.float().cpu()
    missing = EMBEDDING_DIM - states.shape[-1]
    return [functional.pad(state[:end + 1], (0, missing)) for state, end in zip(states, ends, strict=True)]
