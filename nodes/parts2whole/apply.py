"""Parts2Whole in a model: patches of its attention, and of its first layer for the pose."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import comfy.model_base
import comfy.supported_models
import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ...pit.ip_adapter.attention import attend_to_tokens
from ...pit.messages import ShortError, quoted
from ...pit.parts2whole.attention import attend_with_references
from ...pit.parts2whole.schedule import COMFYUI_NAME, sigmas
from ...pit.unet import AttentionLayer, attention_layers
from ..bridge.errors import InputProblem
from ..bridge.noise import with_published_start
from ..bridge.rows import ROWS, add_rows
from ..bridge.slots import SharedSlot, attention_patches, chosen_attention, held_in, separate_patches
from .reading import KEY, Call, Reading, layout
from .types import (
    CATEGORY,
    EncodedReferences,
    ManagedParts2Whole,
    Parts2WholeType,
    Pose,
    PoseType,
    ReferencesType,
)

FIRST_LAYER = ("input", 0)


class ReferenceAttention:
    """Self-attention of one layer that also attends to the references."""

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        call, attention = call_of(options), partial(attend, options)
        if not any(call.reads):
            return attention(q, k, v, options["n_heads"])
        if len(q) != len(call.reads):
            raise InputProblem(
                f"Apply Parts2Whole expected queries for the {len(call.reads)} rows of the batch, got "
                f"{len(q)}. Another node cuts them into tiles, as HyperTile does: take it out of the graph."
            )
        references = call.references(self.layer)
        return attend_with_references(q, k, v, options["n_heads"], references, call.reads, attention)


def attend(
    options: dict, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """ComfyUI's attention, as the engine calls it."""
    return chosen_attention(q, k, v, {**options, "n_heads": heads}, mask)


def call_of(options: dict) -> Call:
    """What the layers of the running model call read. Raises ValueError if the options do not hold it."""
    # Read for its guard alone: torch.compile takes all options for constants, as ComfyUI's node asks it to,
    # and would go on with the rows of the first call. This text is no option: another one compiles anew.
    if torch.compiler.is_compiling() and not layout.text or KEY not in options:
        raise InputProblem(
            "Apply Parts2Whole expected a model call with the wrappers that came with the model, got one "
            "without. Another pack's node takes them away: take it out of the graph."
        )
    return options[KEY]


class DecoupledAttention(SharedSlot):
    """Cross-attention of one layer to the words, and decoupled from it to the image tokens."""

    def __init__(self, decoupled: ModelPatcher, layer: int, weight: float, previous: Callable | None):
        super().__init__(decoupled, previous)
        self.layer, self.weight = decoupled.model[layer], weight

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
        images = for_queries(call_of(options).images, q, options.get(ROWS))
        out = self.attended(q, k, v, options)
        # Not the chosen attention, which has no time to save on a few keys, and may be less exact.
        heads = options["n_heads"]
        out = out + attend_to_tokens(self.layer, q, images, self.weight, heads, attention_pytorch)
        return self.with_added(out, q, k, v, options)


def for_queries(images: Tensor, q: Tensor, rows: Tensor | None) -> Tensor:
    """Image tokens of a model call for the queries of one layer, whose rows another pack may have moved."""
    if rows is None and len(q) == len(images):
        return images
    if rows is not None and (rows >= 0).all():
        return images[rows]
    raise InputProblem(
        f"Apply Parts2Whole expected queries for the {len(images)} rows of the batch, got {len(q)}, and "
        "nothing that tells which is which. Another pack's node changes them: take it out of the graph."
    )


class PosedLayer:
    """Adds the features of the pose to what the first layer gives."""

    def __init__(self, guider: ModelPatcher):
        self.guider = guider

    def __call__(self, hidden: Tensor, options: dict) -> Tensor:
        return hidden + call_of(options).pose.to(hidden) if options["block"] == FIRST_LAYER else hidden

    def models(self) -> list[ModelPatcher]:
        """See `SharedSlot.models`."""
        return [self.guider]


def check_slots(layers: Sequence[AttentionLayer], options: dict) -> None:
    """Raise ValueError if a node after Apply Parts2Whole has taken a slot of ours, or one that ours hides."""
    table = options["transformer_options"].get("patches_replace", {})
    own, cross = (table.get(name, {}) for name in ("attn1", "attn2"))
    for layer in layers:
        wide = layer.block, layer.number
        narrow = *wide, layer.index
        ours = held_in(cross.get(narrow), DecoupledAttention)
        if narrow in own or not isinstance(own.get(wide), ReferenceAttention) or ours is None:
            raise InputProblem(
                f"Apply Parts2Whole expected its patches of the attention {narrow}, got one that another "
                "node has put in their place, as Self-Attention Guidance does. Take that node out of the "
                "graph, or put it before Apply Parts2Whole."
            )


def check_model(model: ModelPatcher, parts: ManagedParts2Whole) -> list[AttentionLayer]:
    """The layers of a model that reads these parts. Raises ValueError for any other model."""
    unet = model.get_model_object("diffusion_model")
    layers = attention_layers(unet) if hasattr(unet, "input_blocks") else []
    wanted = parts.image_attention.inner_dims, parts.word_dim
    width = unet.get_submodule(layers[0].module).to_k.weight.shape[1] if layers else 0
    if wanted == ([layer.inner_dim for layer in layers], width):
        return layers
    raise ShortError(
        f"Apply Parts2Whole expected a model of Stable Diffusion 1.5's kind, as {parts.name} has it, got "
        f"{kind_of(model)}: {len(layers)} cross-attention layers that read words of width {width} instead of "
        f"{len(wanted[0])} of width {wanted[1]}. Connect the model of Load Parts2Whole."
    )


def kind_of(model: ModelPatcher) -> str:
    """What people call a model."""
    config = getattr(model.model, "model_config", None)
    if isinstance(model.model, comfy.model_base.SDXL):
        return "SDXL"
    return "Stable Diffusion 2" if isinstance(config, comfy.supported_models.SD20) else type(config).__name__


def check_free(model: ModelPatcher, layers: Sequence[AttentionLayer]) -> None:
    """Raise ValueError if the self-attention of a model is taken."""
    taken = attention_patches(model, "attn1")
    for layer in layers:
        key = next((key for key in taken if key[:2] == (layer.block, layer.number)), None)
        if key is None:
            continue
        if isinstance(taken[key], ReferenceAttention):
            raise ValueError(
                "Apply Parts2Whole expected a model without references, got one that has some. Encode all of "
                "them with one Encode References, which takes any number."
            )
        raise ShortError(
            f"Apply Parts2Whole expected a model whose self-attention is free, got one with a patch of "
            f"another node at {quoted(key)}. Take that node out of the graph."
        )


def with_schedule(model: ModelPatcher) -> ModelPatcher:
    """A clone of the model with the noise schedule and the start of Parts2Whole."""
    scheduled = model.clone()
    own = model.model.model_config.sampling_settings.get("beta_schedule") == COMFYUI_NAME
    # A node that has changed the sampling knows what it does.
    if not own and "model_sampling" not in model.object_patches:
        sampling = type(model.model.model_sampling)(model.model.model_config)
        sampling.set_sigmas(sigmas())
        scheduled.add_object_patch("model_sampling", sampling)
    return with_published_start(scheduled)


def patch_model(
    model: ModelPatcher, parts: ManagedParts2Whole, reading: Reading, weight: float
) -> ModelPatcher:
    """Put patches and wrappers into a clone of the caller's own."""
    present = attention_patches(model)
    for number, layer in enumerate(reading.layers):
        block = layer.block, layer.number
        # For the whole block, so that guidance by perturbed attention, which replaces it for a pass of its
        # own, finds the place that it looks for.
        model.set_model_attn1_replace(ReferenceAttention(number), *block)
        previous = present.get((*block, layer.index), present.get(block))
        patch = DecoupledAttention(parts.decoupled, number, weight, previous)
        model.set_model_attn2_replace(patch, *block, layer.index)
    if reading.pose is not None:
        model.set_model_input_block_patch(PosedLayer(reading.pose.guider))
    model.add_callback_with_key(CallbacksMP.ON_CLONE, KEY, separate_patches)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, reading.sampling)
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, reading)
    return model


def apply_parts2whole(
    model: ModelPatcher, parts: ManagedParts2Whole, references: EncodedReferences, pose: Pose | None = None,
    weight: float = 1.0, start: float = 0.0, end: float = 1.0,
) -> ModelPatcher:
    """A clone of the model that reads references and pose. Raises ValueError if they do not fit together."""
    layers = check_model(model, parts)
    check_free(model, layers)
    check_references(parts, references.tokens, references.images)
    if start >= end:
        raise ValueError(
            f"Apply Parts2Whole expected start to be less than end, got {start} and {end}. For no references "
            "at all, leave the node out."
        )
    patched = with_schedule(model)
    counts = [references.sets, *([] if pose is None else [len(pose.image)])]
    sigma = patched.get_model_object("model_sampling").percent_to_sigma
    always = start == 0 and end == 1
    reading = Reading(
        add_rows(patched, counts), tuple(layers), parts.blocks, references, pose,
        None if always else (sigma(start), sigma(end)), partial(check_slots, layers),
    )
    return patch_model(patched, parts, reading, weight)


def check_references(parts: ManagedParts2Whole, tokens: Mapping[str, object], images: Tensor) -> None:
    """Raise ValueError unless references were encoded with parts of this kind."""
    if tokens and set(tokens) != set(parts.blocks) or images.shape[-1] != parts.image_attention.token_dim:
        raise ShortError(
            f"Apply Parts2Whole expected references that were encoded with {parts.name}, got others. Connect "
            "the same Load Parts2Whole to both nodes."
        )


class ApplyParts2Whole(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_ApplyParts2Whole",
            display_name="Apply Parts2Whole",
            category=CATEGORY,
            description=(
                "Makes a model put every reference in its place, in the pose that is drawn. It also sets the "
                "noise schedule that Parts2Whole was trained with."
            ),
            search_aliases=[
                "parts2whole", "reference attention", "reference only", "person", "character", "try on",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model of Load Parts2Whole."),
                Parts2WholeType.Input("parts2whole", tooltip="From Load Parts2Whole."),
                ReferencesType.Input(
                    "references", tooltip="From Encode References: one set for all pictures, or one each.",
                ),
                PoseType.Input(
                    "pose", optional=True,
                    tooltip="From Pose Map: one for all pictures, or one for each. Without it, the model "
                            "chooses.",
                ),
                io.Float.Input(
                    "image_weight", default=1.0, min=0.0, max=3.0, step=0.05,
                    tooltip="How much the image tokens of the references count beside the words; 1 as "
                            "trained. The strength of a reference itself is set in Reference Part.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="Fraction of the sampling after which the references begin to act. The pose acts "
                            "always.",
                ),
                io.Float.Input(
                    "end", default=1.0, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="Fraction of the sampling after which the references stop acting.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For KSampler or any other sampler."),
            ],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, parts2whole: ManagedParts2Whole, references: EncodedReferences,
        image_weight: float, start: float, end: float, pose: Pose | None = None,
    ) -> io.NodeOutput:
        applied = apply_parts2whole(model, parts2whole, references, pose, image_weight, start, end)
        return io.NodeOutput(applied)
