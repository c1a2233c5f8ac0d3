"""From words to the tokens that the operator instruct reads, with the text encoder of the graph."""
from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...pit.pops.embeddings import ENCODERS

ENCODER, TOKENS = "clip_g", "g"  # what ComfyUI calls OpenCLIP's ViT-bigG, SDXL's second text encoder


def lines_in(words: str) -> list[str]:
    """The lines that hold words. Raises ValueError if none does."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    if not lines:
        raise ValueError("pOps Instruct expected at least one word, got none. Write one, such as shiny.")
    return lines


def word_states(clip, lines: list[str], width: int) -> list[Tensor]:
    """Last hidden state of each line `[L, C]`, from the first token to that of the end, float32.

    Args:
        width: that of the operator, E; C is less for miniature text encoders alone.
    Raises:
        ValueError: the CLIP has no text encoder of this kind or of this width, or a line is too long.
    """
    states, _ = encoded_words(clip, lines, "pOps Instruct")
    found = states[0].shape[-1]
    # Published encoders of words and pictures are equally wide. That of words may be narrower in a miniature.
    if found > width or (found < width and width in ENCODERS):
        raise ValueError(
            f"pOps Instruct expected a text encoder of width {width}, as the operator has it, got width "
            f"{found}. Connect the CLIP of an SDXL checkpoint."
        )
    return states


def encoded_words(clip, lines: Sequence[str], node: str, cut: bool = False) -> tuple[list[Tensor], Tensor]:
    """The states of each line, as `word_states` gives them, and the embeddings of all lines `[B, E]`.

    Args:
        node: what messages call the node.
        cut: read the beginning of a line that is too long, instead of refusing it.
    Raises:
        ValueError: the CLIP has no text encoder of this kind, or a line is too long.
    """
    encoder = getattr(clip.cond_stage_model, ENCODER, None)
    if encoder is None:
        raise ValueError(
            f"{node} expected a CLIP with the text encoder ViT-bigG, as SDXL has it, got one without. "
            "Connect the CLIP of an SDXL checkpoint."
        )
    tokens = [_tokens_of(clip, line, node, cut) for line in lines]
    ends = [[token for token, *_ in each].index(encoder.special_tokens["end"]) for each in tokens]
    clip.load_model()
    model = clip.cond_stage_model
    model.reset_clip_options()
    # Both at once, since ComfyUI goes back to SDXL's layer if the layer is not named. None is the last one,
    # after the final norm, as published; SDXL reads the one before it.
    model.set_clip_options({"layer": None, "execution_device": clip.patcher.load_device})
    try:
        states, embeddings = encoder([[token for token, *_ in each] for each in tokens])
    finally:
        model.reset_clip_options()
    # What follows the end changes nothing, since each token only sees those before it.
    return [state[:end + 1].float() for state, end in zip(states, ends, strict=True)], embeddings.float()


def _tokens_of(clip, line: str, node: str, cut: bool) -> list[tuple]:
    # Parentheses are words here, not weights, which the operator has not learned.
    chunks = clip.tokenize(line, disable_weights=True).get(TOKENS, [])
    if len(chunks) != 1 and not (chunks and cut):
        raise ValueError(
            f"{node} expected a line of at most 75 tokens, got {line[:60]!r}, which is longer. Write less; "
            "the published operator knows single words."
        )
    return chunks[0]
