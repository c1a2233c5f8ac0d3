"""What the rows of a model call read of references and pose, prepared once for each sampling."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ...pit.parts2whole.attention import KeysAndValues, keys_and_values, padded_image_tokens
from ...pit.parts2whole.pose import pose_features, pose_picture
from ...pit.parts2whole.references import ReferenceTokens
from ...pit.unet import AttentionLayer
from ..bridge.errors import InputProblem
from ..bridge.following import FollowedModel, followed, is_wrapped, places, with_last
from ..bridge.rows import ROWS, RowConditions, spread
from .types import EncodedReferences, Pose

# One name for all that we leave in a model, and for our entry in the options of each call.
KEY = "parts2whole"


class Layout:
    """Which rows of the running call read, and how many tokens, as a text: see `apply.call_of`."""

    text = ""


layout = Layout()


class Call(NamedTuple):
    """What the layers read in one model call of B rows.

    Attributes:
        reads: for each row whether it reads the references.
        sets: which of several sets each row reads that does `[n]`; None if there is one for all.
        images: image tokens `[B, n, D]`, zeros in rows that read none.
        pose: `[B, C, h, w]` or `[1, C, h, w]`, or None.
    """

    kept: list[KeysAndValues]
    reads: list[bool]
    sets: Tensor | None
    images: Tensor
    pose: Tensor | None

    def references(self, layer: int) -> KeysAndValues:
        """What one layer attends to."""
        kept = self.kept[layer]
        if self.sets is None:
            return kept
        return KeysAndValues(*(None if each is None else each[self.sets] for each in kept))

    def described(self) -> str:
        """All that a compiled graph takes for constant."""
        sizes = [list(each.keys.shape) + [each.bias is None] for each in self.kept]
        return f"{self.reads} {self.sets is None} {sizes} {list(self.images.shape)} {self.pose is None}"


@dataclass
class Reading:
    """One Apply Parts2Whole: wraps samplings, to prepare what they share, and their calls of the model.

    It runs outside of what torch.compile sees, and so may look at values.

    Attributes:
        blocks: of each layer, its name in `references.tokens`.
        sigmas: between which the references act; None for always.
        check: raises ValueError if the options of a guider do not hold our patches any more.
    """

    conditions: RowConditions
    layers: tuple[AttentionLayer, ...]
    blocks: tuple[str, ...]
    references: EncodedReferences
    pose: Pose | None
    sigmas: tuple[float, float] | None
    check: Callable[[dict], None]
    # Of the sampling that is running; None between samplings, so that nothing outlives them.
    prepared: dict[tuple, Any] | None = None

    def sampling(self, executor: WrapperExecutor, *given: Any, **named: Any) -> Tensor:
        """A wrapper of `CFGGuider.outer_sample`; one within another leaves all as it was to that one."""
        self.check(executor.class_obj.model_options)
        before, self.prepared = self.prepared, {}
        try:
            return executor(*given, **named)
        finally:
            self.prepared = before

    def __call__(
        self, executor: WrapperExecutor, x: Tensor, t: Tensor, c_concat: Tensor | None,
        c_crossattn: Tensor, control: dict | None, transformer_options: dict, **conditions: Any,
    ) -> Tensor:
        """A wrapper of `BaseModel.apply_model`."""
        rows = self.conditions.rows(conditions.get(ROWS), transformer_options, x, c_crossattn)
        # The rows go on with the call: wrappers of other packs that cut or repeat the batch do so with them.
        onwards = with_last(executor, partial(self.at_the_model, rows, (x, c_crossattn)))
        return onwards.execute(
            x, t, c_concat, c_crossattn, control, transformer_options, **conditions | {ROWS: rows})

    def at_the_model(
        self, known: Tensor, before: tuple[Tensor, Tensor], executor: WrapperExecutor, x: Tensor, t: Tensor,
        c_concat: Tensor | None, c_crossattn: Tensor, control: dict | None, transformer_options: dict,
        **conditions: Any,
    ) -> Tensor:
        """The same behind all wrappers of other packs, which may have changed the call."""
        given = conditions.get(ROWS)
        # Another system may have told the rows more than which prompts and images they are.
        if given is None or given is known or torch.equal(given[:, :2], known[:, :2]):
            given = moved(known, before, (x, c_crossattn))
        rows = spread(given.to(x.device), len(x), c_crossattn)
        model = executor.class_obj
        # Another system behind this one takes the rows from the call by itself, and so away from the model.
        if not executor.wrappers[executor.idx + 1:]:
            conditions.pop(ROWS, None)
        kept = self.once(model, (x.device,), lambda: self.kept(model, x.device))
        pose = None
        if self.pose is not None:
            pose = self.once(model, (x.device, *x.shape[-2:]), lambda: features(self.pose, x))
        call, text = self.call(kept, pose, rows, c_crossattn, transformer_options["sigmas"])
        options = self.options_with(call, rows, transformer_options, model)
        outer, layout.text = layout.text, call.described()
        try:
            return executor(x, t, c_concat, text, control, options, **conditions)
        finally:
            layout.text = outer

    def options_with(self, call: Call, rows: Tensor, options: dict, model: BaseModel) -> dict:
        """The options of a call of this model with what its layers read."""
        def late(others: dict, x: Tensor, where: Tensor | None) -> dict:
            return others if where is None else {**others, KEY: call_for(call, where)}

        options = {**options, KEY: call}
        if not is_wrapped(model, options):
            return followed(options)
        return FollowedModel([rows], late).around(options, KEY)

    def once(self, model: BaseModel, key: tuple, make: Callable[[], Any]) -> Any:
        """What is the same in all steps, made in the first one of a sampling."""
        if self.prepared is None or getattr(model.current_patcher, "current_hooks", None) is not None:
            # Hooks change the weights from step to step, and with them all that they make.
            return make()
        if key not in self.prepared:
            self.prepared[key] = make()
        return self.prepared[key]

    def kept(self, model: BaseModel, device: torch.device) -> list[KeysAndValues]:
        """References as the layers of this model attend to them, its LoRAs included; [] for none."""
        tokens, dtype = self.references.tokens, model.get_dtype_inference()

        def projected(layer: AttentionLayer, block: str) -> KeysAndValues:
            attn = model.diffusion_model.get_submodule(layer.module.removesuffix("attn2") + "attn1")
            given, bias = tokens[block]
            here = ReferenceTokens(given.to(device, dtype), None if bias is None else bias.to(device))
            return keys_and_values(here, attn.to_k, attn.to_v)

        return [projected(*pair) for pair in zip(self.layers, self.blocks, strict=True)] if tokens else []

    def call(
        self, kept: list[KeysAndValues], pose: Tensor | None, rows: Tensor, text: Tensor, sigmas: Tensor
    ) -> tuple[Call, Tensor]:
        """What the layers read in a call with these rows, and its text, which may be another one."""
        negative, image = rows[:, :2].long().unbind(1)
        # Read back, which waits for the work before: reading no references for what throws them away saves
        # more than that.
        acts = self.sigmas is None or self.sigmas[0] >= sigmas[0].item() >= self.sigmas[1]
        reads = [acts and bool(kept) and not each for each in negative.tolist()]
        count, sets = self.references.sets, None
        if count > 1:
            sets = (image % count)[torch.tensor(reads, device=image.device)]
        text, images = self.words_and_images(negative == 0, image % count, text, acts)
        if pose is not None and len(pose) > 1:
            pose = pose[image % len(pose)]
        return Call(kept, reads, sets, images, pose), text

    def words_and_images(
        self, positive: Tensor, sets: Tensor, text: Tensor, acts: bool
    ) -> tuple[Tensor, Tensor]:
        """What cross-attention takes for words and for image tokens, by the wiring."""
        given = self.references
        told = given.wiring.texts(repeated(given.label.to(text), text.shape[1]), text)[1]
        images = given.images.to(text)[sets] * (positive & acts)[:, None, None]
        text, images = given.wiring.tokens(torch.where(positive[:, None, None], told, text), images)
        return text, padded_image_tokens(images)


def repeated(label: Tensor, length: int) -> Tensor:
    """A label as often as it takes to be as long as a prompt, as ComfyUI itself makes texts equally long."""
    times, rest = divmod(length, label.shape[1])
    return label.repeat(1, times + bool(rest), 1)[:, :length]


def moved(rows: Tensor, before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    """The rows of a batch that other packs may have changed."""
    where = places(before, after, [rows])
    return rows[where] if where is not None and (where >= 0).all() else rows


def call_for(call: Call, where: Tensor) -> Call:
    """A call for a batch whose rows were in these places before."""
    if (where < 0).any():
        raise InputProblem(
            "Apply Parts2Whole expected the rows of the batch as ComfyUI makes them, got others, and nothing "
            "that tells which is which. Another pack's node changes them: take it out of the graph."
        )
    order = where.tolist()
    reads = [call.reads[row] for row in order]
    sets = call.sets
    if sets is not None:
        place = {row: number for number, row in enumerate(r for r, each in enumerate(call.reads) if each)}
        sets = sets[[place[row] for row in order if call.reads[row]]]
    pose = call.pose if call.pose is None or len(call.pose) == 1 else call.pose[where]
    return call._replace(reads=reads, sets=sets, images=call.images[where], pose=pose)


def features(pose: Pose, x: Tensor) -> Tensor:
    """Features of the poses for latents of this size `[P, C, h, w]`. Raises ValueError for another aspect."""
    guider = pose.guider.model
    height, width = (guider.latent_pixel * side for side in x.shape[-2:])
    try:
        pictures = torch.cat([pose_picture(each[None], width, height) for each in pose.image])
    except ValueError as error:
        raise InputProblem(f"Pose Map: {error}") from error
    return pose_features(guider, pictures.to(x.device), pose.strength)
