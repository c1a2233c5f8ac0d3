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
from weakref import WeakKeyDictionary

import torch
from comfy.conds import CONDRegular
from comfy.model_management import load_models_gpu
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from .errors import InputProblem
from .extents import EXTENTS, ConditionExtents, note_latents

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
    raise InputProblem(
        f"Expected a guider that calls its prompts positive or negative, got one that calls a prompt "
        f"{prompt_type!r}, so that nothing tells which tokens belong to it. Use one of ComfyUI's guiders."
    )


class ConditionRows(CONDRegular):
    """For each image `[images, 2]`: 1 if the prompt is a negative one, and the number of the image."""

    def process_cond(self, batch_size: int, **area: Any) -> ConditionRows:
        # ComfyUI would cut off what is too many, and so give a smaller batch the first concepts, and repeat
        # what is too few, whichever way a larger batch was made.
        if batch_size != len(self.cond) and len(self.cond) > 1:
            raise InputProblem(
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
        concepts: Sequence[int], masks: Sequence[int] = (),
    ):
        """
        Args:
            concepts: how many there are of each thing that is dealt out to the images, one after another.
            masks: the same of masks. With any, conditions also carry which part of the picture they are for.
        """
        self.encode, self.resize = encode, resize
        self.concepts, self.masks = tuple(concepts), tuple(masks)
        # Of the conditions that are in use: those of a sampling that has ended go with them.
        self.known: WeakKeyDictionary[UUID, Tensor] = WeakKeyDictionary()

    def __call__(self, **condition: Any) -> dict[str, CONDRegular]:
        """Conditions of the model by name. Raises ValueError if images and concepts do not match."""
        noise = condition["noise"]
        images = noise.shape[0]
        for count in self.concepts:
            check_images(count, images)
        for count in self.masks:
            check_images(count, images, "mask")
        rows = torch.arange(images, device=condition.get("device", noise.device)).unsqueeze(1).repeat(1, 2)
        rows[:, 0] = is_negative(condition["prompt_type"])
        if condition.get("uuid") is not None:
            self.known[condition["uuid"]] = rows
        # One concept goes to any image, so any part of the batch may be asked for.
        carried = rows if max([*self.concepts, *self.masks, 1]) > 1 else rows[:1]
        ours: dict[str, CONDRegular] = {ROWS: ConditionRows(carried)}
        if self.masks:
            ours[EXTENTS] = ConditionExtents.of(noise.shape[-2:], rows.device)
        return {**self.encode(**condition), **ours}

    def resized(
        self, key: str, value: object, window: Any, x: Tensor, device: Any, **more: Any
    ) -> object:
        """In place of a model's function that cuts a condition to a context window."""
        # Cut here, since ComfyUI would also keep the rows of images that a user asks it to retain: those are
        # other images than the ones of the window.
        if key == EXTENTS:
            return value.in_context_window(window)
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
            raise InputProblem(
                "Expected a model call by a guider, with its conditions, got one without, so that nothing "
                "tells which prompts and images it is for. Another pack's node leaves them out: take it out "
                "of the graph."
            )
        return torch.cat([self.known[each] for each in conditions])

    def sampling(self, executor: WrapperExecutor, *given: Any, **named: Any) -> Tensor:
        """A wrapper of `CFGGuider.outer_sample`: one within another leaves all as it was to that one.

        Another pack's callback or guider may sample with the same model in the middle of a step.
        """
        known, inner = self.known, executor.class_obj.model_patcher
        # ComfyUI takes away the patcher of the model as well, without which the outer one cannot go on.
        outer = inner.model.current_patcher
        self.known = WeakKeyDictionary(known)
        try:
            return executor(*given, **named)
        finally:
            self.known, inner.model.current_patcher = known, outer
            if outer is not None and outer is not inner:
                # The weights are still those of the inner one, with its LoRAs.
                load_models_gpu([outer])


def check_images(count: int, images: int, what: str = "concept") -> None:
    """Raise ValueError unless the images of a latent batch are a multiple of the concepts."""
    if images % count:
        raise InputProblem(
            f"Expected a multiple of {count} images in the latent batch for {count} {what}s, got {images} "
            f"images. Set batch_size of the empty latent to {count} (or a multiple), or pass one {what}."
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
        raise InputProblem(
            f"Expected a batch of {len(rows)} latents, got {count} of them, and nothing that tells which "
            "prompts and images they belong to. Another pack's node changes the batch: set its batch of "
            "tiles to 1."
        )
    return found[0]


def one_text_for_each_prompt(rows: Tensor, text: Tensor) -> bool:
    """Whether the images of each prompt, which follow one another, have the same text."""
    following = rows[1:, 1] > rows[:-1, 1]
    return torch.equal(text[1:][following], text[:-1][following])


def add_rows(model: ModelPatcher, concepts: Sequence[int], masks: Sequence[int] = ()) -> RowConditions:
    """Have all conditions of a model, a clone of the caller's own, carry their rows, for nodes before too."""
    encode, resize = model.get_model_object(ENCODE), model.get_model_object(RESIZE)
    if isinstance(encode, RowConditions):
        concepts, masks = [*encode.concepts, *concepts], [*encode.masks, *masks]
        encode, resize = encode.encode, encode.resize
    conditions = RowConditions(encode, resize, sorted(set(concepts)), sorted(set(masks)))
    model.add_object_patch(ENCODE, conditions)
    model.add_object_patch(RESIZE, conditions.resized)
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, ROWS)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, ROWS, conditions.sampling)
    if masks:
        model.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, EXTENTS)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, EXTENTS, note_latents)
    return conditions
