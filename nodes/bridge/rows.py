"""Which prompt and which image each row of a batch belongs to, whoever calls the model and however it is cut.

ComfyUI tells a model call the places of its prompts in the guider's list, and no more. Which of them is a
negative, how many images there are, and which of them a window or tile holds, only the condition itself can
say; so it carries that with it, as a tensor that ComfyUI cuts and joins like the text.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import torch
from comfy.conds import CONDRegular
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from torch import Tensor

# The name of our condition, and of the model function that adds it.
ROWS = "piece_it_together_rows"
ENCODE = "extra_conds"
RESIZE = "resize_cond_for_context_window"
NEGATIVE_WORDS = {"negative", "neg", "uncond", "unconditional", "empty", "null"}
POSITIVE_WORDS = {"positive", "pos", "cond", "conditional", "conditioning", "middle", "prompt"}


def is_negative(prompt_type: str) -> bool:
    """Whether a prompt that a guider calls by this name is a negative one. Raises ValueError if unknown.

    ComfyUI's own guiders say "positive", "negative", "middle" and "empty_negative_prompt".
    """
    words = set(re.findall("[a-z]+", prompt_type.lower()))
    if words & NEGATIVE_WORDS:
        return True
    if words and words <= POSITIVE_WORDS:
        return False
    raise ValueError(
        f"Expected a guider that calls its prompts positive or negative, got one that calls a prompt "
        f"{prompt_type!r}, so that nothing tells which tokens belong to it. Use one of ComfyUI's guiders."
    )


class ConditionRows(CONDRegular):
    """For each image `[images, 2]`: 1 if the prompt is a negative one, and the number of the image."""

    def process_cond(self, batch_size: int, **area: Any) -> ConditionRows:
        # ComfyUI would cut off what is too many, and so give a smaller batch the first concepts, and repeat
        # what is too few, whichever way a larger batch was made.
        if batch_size != len(self.cond) and len(self.cond) > 1:
            raise ValueError(
                f"Expected a batch of all {len(self.cond)} images, got {batch_size} of them, and nothing "
                "that tells which. Sample the whole batch at once, or use one concept."
            )
        return self._copy_with(self.cond.repeat(batch_size // len(self.cond), 1))


class RowConditions:
    """In place of a model's `extra_conds`: adds rows to every condition that is made ready for it.

    This is the one function through which all conditions go, those too that a guider or a patch makes ready
    by itself in the middle of sampling; and it is told what kind of prompt each of them is.
    """

    def __init__(
        self, encode: Callable[..., dict[str, CONDRegular]], resize: Callable[..., object],
        concepts: Sequence[int],
    ):
        """`concepts`: how many there are of each thing that is dealt out to the images, one after another."""
        self.encode, self.resize = encode, resize
        self.concepts = tuple(concepts)
        self.known: dict[UUID, Tensor] = {}  # rows of the conditions, until sampling ends

    def __call__(self, **condition: Any) -> dict[str, CONDRegular]:
        """Conditions of the model by name. Raises ValueError if images and concepts do not match."""
        noise = condition["noise"]
        images = noise.shape[0]
        for count in self.concepts:
            check_images(count, images)
        rows = torch.arange(images, device=condition.get("device", noise.device)).unsqueeze(1).repeat(1, 2)
        rows[:, 0] = is_negative(condition["prompt_type"])
        self.known[condition.get("uuid")] = rows
        # One concept goes to any image, so any part of the batch may be asked for.
        carried = rows if max(self.concepts) > 1 else rows[:1]
        return {**self.encode(**condition), ROWS: ConditionRows(carried)}

    def resized(
        self, key: str, value: object, window: Any, x: Tensor, device: Any, **more: Any
    ) -> object:
        """In place of a model's function that cuts a condition to a context window."""
        # Cut here, since ComfyUI would also keep the rows of images that a user asks it to retain: those are
        # other images than the ones of the window.
        if key != ROWS:
            return self.resize(key, value, window, x, device, **more)
        cut = window.dim == 0 and len(value.cond) == x.shape[0]
        return ConditionRows(window.get_tensor(value.cond, device)) if cut else value

    def rows(self, given: Tensor | None, options: dict, x: Tensor, text: Tensor | None) -> Tensor:
        """The rows of a model call `[B, 2]`.

        Args:
            given: those that came with the call.
            options: the call's `transformer_options`.
            x: its latents `[B, ...]`.
            text: its `c_crossattn` `[B, T, C]`.
        Raises:
            ValueError: nothing tells them.
        """
        if given is None:
            given = self._of_conditions(options)
        return spread(given.to(x.device), x.shape[0], text)

    def _of_conditions(self, options: dict) -> Tensor:
        """The rows of a call from which another pack's wrapper has left out what it does not know."""
        conditions = options.get("uuids", ())
        if not conditions or any(each not in self.known for each in conditions):
            raise ValueError(
                "Expected a model call by a guider, with its conditions, got one without, so that nothing "
                "tells which prompts and images it is for. Another pack's node leaves them out: take it out "
                "of the graph."
            )
        return torch.cat([self.known[each] for each in conditions])

    def forget(self, *_: Any) -> None:
        """ComfyUI calls this after sampling."""
        self.known.clear()


def check_images(concepts: int, images: int) -> None:
    """Raise ValueError unless the images of a latent batch are a multiple of the concepts."""
    if images % concepts:
        raise ValueError(
            f"Expected a multiple of {concepts} images in the latent batch for {concepts} concepts, got "
            f"{images} images. Set batch_size of the empty latent to {concepts} (or a multiple), or pass one "
            "concept."
        )


def spread(rows: Tensor, count: int, text: Tensor | None) -> Tensor:
    """Rows `[B, 2]` for `count` latents, which may be several tiles of the batch. Raises ValueError.

    Tiling packs repeat either the whole batch or each of its rows; the text of each row tells which.
    """
    times, rest = divmod(count, len(rows))
    if times == 1 and not rest:
        return rows
    layouts = [] if rest else [lambda x: x.repeat(times, *[1] * (x.ndim - 1)),
                               lambda x: x.repeat_interleave(times, dim=0)]
    if text is not None and len(text) == count:
        layouts = [each for each, cut in zip(layouts, (text[:len(rows)], text[::times]), strict=False)
                   if torch.equal(each(cut), text) and one_text_for_each_prompt(rows, cut)]
    found = [each(rows) for each in layouts]
    if not found or any(not torch.equal(found[0], other) for other in found):
        raise ValueError(
            f"Expected a batch of {len(rows)} latents, got {count} of them, and nothing that tells which "
            "prompts and images they belong to. Another pack's node changes the batch: set its batch of "
            "tiles to 1."
        )
    return found[0]


def one_text_for_each_prompt(rows: Tensor, text: Tensor) -> bool:
    """Whether the images of each prompt, which follow one another, have the same text."""
    following = rows[1:, 1] > rows[:-1, 1]
    return torch.equal(text[1:][following], text[:-1][following])


def add_rows(model: ModelPatcher, concepts: Sequence[int]) -> RowConditions:
    """Have all conditions of a model, a clone of the caller's own, carry their rows."""
    encode, resize = model.get_model_object(ENCODE), model.get_model_object(RESIZE)
    if isinstance(encode, RowConditions):
        encode, resize = encode.encode, encode.resize
    conditions = RowConditions(encode, resize, concepts)
    model.add_object_patch(ENCODE, conditions)
    model.add_object_patch(RESIZE, conditions.resized)
    model.remove_callbacks_with_key(CallbacksMP.ON_CLEANUP, ROWS)
    model.add_callback_with_key(CallbacksMP.ON_CLEANUP, ROWS, conditions.forget)
    return conditions


UNSURE = 0.25  # how far from its mark a row may be shown
Inputs = tuple[Tensor, Tensor, Tensor]


class FollowedPatches:
    """Another pack's patches before a cross-attention, with a note of the row that each row of theirs was.

    Nodes for regional prompts give an image several rows there, one for each region's text, and add the
    results up after the attention.
    """

    def __init__(self, patches: Sequence[Callable]):
        self.patches = list(patches)

    def __call__(self, n: Tensor, context: Tensor, value: Tensor, options: dict) -> Inputs:
        """Queries before their projection `[B, N, C]`, and what keys and values are made of."""
        before = n, context, value, options
        after = self._run(*before)
        options[ROWS] = self._rows(before, after[0])
        return after

    def _run(self, n: Tensor, context: Tensor, value: Tensor, options: dict) -> Inputs:
        for patch in self.patches:
            n, context, value = patch(n, context, value, options)
        return n, context, value

    def _rows(self, before: tuple, after: Tensor) -> Tensor | None:
        """The number that each row had before `[R]`; None if all stayed, -1 for what cannot be told."""
        n = before[0]
        if after is n or (after.shape == n.shape and torch.equal(after, n)):
            return None
        if after.shape[1:] == n.shape[1:]:
            alike = (after[:, None, 0] == n[None, :, 0]).all(-1)
            rows = alike.long().argmax(1)
            if (alike.sum(1) == 1).all() and torch.equal(n[rows], after):
                return rows
        # Rows may be equal before the first text has been read, and queries may be changed besides: so the
        # patches show once more what they do, on rows of which each has a channel of its own.
        count, channels = len(n), n.shape[-1]
        if count > channels:
            return torch.full((len(after),), -1, device=n.device)
        marks = torch.eye(count, channels).to(n)
        marked = marks[:, None].expand_as(n).clone()
        shown = self._run(marked, *before[1:3], dict(before[3]))[0]
        rows = shown.mean(1).argmax(1).clamp(max=count - 1)
        told = (shown - marks[rows][:, None]).abs().flatten(1).amax(1) < UNSURE
        return torch.where(told, rows, -1)
