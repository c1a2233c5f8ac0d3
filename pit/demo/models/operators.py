"""The creatures' pOps operators, as the measures apply them; and the words that one of them hears."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ...pops.embeddings import in_one_batch, picture_condition, word_condition
from ...pops.files import load_operator
from ...pops.sample import operator_noise, sample_operator
from .loading import load_creature_vision
from .operator_files import OPERATORS, operator_file
from .sizes import EMBEDDING_DIM
from .text import TextEncoders, caption_ids
from .vision import CreatureVision
from .weights import RENDERER, float_weights, weight_file
from .words import END

STEPS = 25
# With scales of 1, 2, 4 and 8, a trial of texturing kept 93, 95, 96 and 78% of the other attributes.
GUIDANCE = 3.0


class CreatureOperators:
    """All operators, on the CPU in fp32."""

    def __init__(self) -> None:
        """Load the shipped weights.

        Raises:
            WeightFileError: a file is missing, damaged or of another version.
        """
        self.operators = {mode: load_operator(weight_file(operator_file(mode))).float() for mode in OPERATORS}

    def combine(
        self, mode: str, first: Tensor, second: Tensor, seed: int, guidance: float = GUIDANCE
    ) -> Tensor:
        """What an operator makes of two embeddings `[N, 256]` each; row i comes from seed + i."""
        operator = self.operators[mode]
        condition = picture_condition([operator.normalized(first), operator.normalized(second)])
        return self.sample(mode, condition, None, seed, guidance)

    def instruct(
        self, embeddings: Tensor, words: Sequence[Tensor], seed: int, guidance: float = GUIDANCE
    ) -> Tensor:
        """Embeddings `[N, 256]`, changed as the words of each row say, see `word_states`."""
        condition, mask = word_condition(self.operators["instruct"].normalized(embeddings), words)
        return self.sample("instruct", condition, mask, seed, guidance)

    def compose(self, parts: Sequence[Tensor], seed: int, guidance: float = GUIDANCE) -> Tensor:
        """One embedding for the parts `[P, 256]` of each row."""
        operator = self.operators["clothes"]
        condition, mask = in_one_batch([operator.normalized(each) for each in parts])
        return self.sample("clothes", condition, mask, seed, guidance)

    def sample(
        self, mode: str, condition: Tensor, mask: Tensor | None, seed: int, guidance: float
    ) -> Tensor:
        """Raw embeddings `[N, 256]` under a condition `[N, n, 256]`, as the nodes draw them."""
        noise, step_noise = operator_noise(seed, len(condition), EMBEDDING_DIM, STEPS)
        return sample_operator(
            self.operators[mode], condition, noise=noise, step_noise=step_noise, steps=STEPS,
            guidance_scale=guidance, mask=mask,
        )


def shipped_encoders() -> tuple[CreatureVision, TextEncoders]:
    """The encoders of pictures and of words that the operators are made for, in fp32 on the CPU.

    Raises:
        WeightFileError: a file is missing, damaged or of another version.
    """
    text = TextEncoders()
    text.load_comfyui_state(float_weights(RENDERER))
    return load_creature_vision(), text.eval().requires_grad_(False)


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
