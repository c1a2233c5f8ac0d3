"""IP+ tokens in the cross-attention of a model, as a patch that gets along with those of other packs."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from comfy.ldm.modules.attention import attention_pytorch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP
from comfy_api.latest import io
from torch import Tensor

from ...pit.concepts.tokens import Tokens
from ...pit.files.records import same_adapter
from ...pit.ip_adapter.attention import attend_to_tokens
from ...pit.ip_adapter.layer_weights import LayerWeights
from ...pit.ip_adapter.regions import checked_mask
from ...pit.unet import AttentionLayer, attention_layers
from ..bridge.errors import InputProblem
from ..bridge.rows import ROWS, add_rows
from ..bridge.slots import SharedSlot, attention_patches, held_in, separate_patches
from ..bridge.sockets import IPAdapterType, ManagedAdapter, TokensType
from .token_layout import PATCH_KEY, AppliedTokens, LaidOut, TokenLayout, running, structure
from .types import CATEGORY, LayerWeightsType

GREY_PICTURE = "grey picture"
SAME_TOKENS = "same tokens"


class AdapterLoras:
    """LoRAs on an IP-Adapter's own projections, one after another; a model carries them as an attachment.

    They reach the adapters of every Apply IP+ Tokens, before or after the LoRA; each adapter has one clone.
    """

    def __init__(self, changes: Sequence[Callable[[ModelPatcher], ModelPatcher]] = ()):
        """A change makes a patched clone of a patcher of `ImageCrossAttention`."""
        self.changes = tuple(changes)
        # One clone for all layers of an adapter: clones share a module, whose weights can hold the patches
        # of only one of them at a time.
        self.clones: dict[ModelPatcher, ModelPatcher] = {}

    def applied(self, weights: ModelPatcher) -> ModelPatcher:
        """The weights as all changes leave them."""
        if weights not in self.clones:
            changed = weights
            for change in self.changes:
                changed = change(changed)
            self.clones[weights] = changed
        return self.clones[weights]


def adapter_loras(model: ModelPatcher) -> AdapterLoras:
    """Those that were applied to a model."""
    return model.get_attachment(PATCH_KEY) or AdapterLoras()


class TokenAttention(SharedSlot):
    """Decoupled cross-attention of one layer."""

    def __init__(
        self, weights: ModelPatcher, loras: AdapterLoras, layer: int, applied: AppliedTokens, place: int,
        previous: Callable | None,
    ):
        """`place` is the number of Apply IP+ Tokens before this one, `previous` the patch in the slot."""
        super().__init__(loras.applied(weights), previous)
        self.weights = weights
        # A clone shares its module with the original. Whether a LoRA is in the weights depends on which
        # patcher ComfyUI has loaded, so `models` names the clone, and the layer is the same for both.
        self.layer, self.number = weights.model[layer], layer
        self.applied = applied
        self.place = place

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        laid_out = self._laid_out(extra_options).for_queries(q, extra_options.get(ROWS))
        scale = laid_out.scale_at(self.number, extra_options)
        out = self.attended(q, k, v, extra_options)
        # Not the chosen one: there is no time to save on 16 keys, and an attention simulated in int8 and
        # float8 moved pictures of creatures by 0.7 of 255 on average, single ones by 4.
        heads = extra_options["n_heads"]
        out = out + attend_to_tokens(self.layer, q, laid_out.tokens, scale, heads, attention_pytorch)
        return self.with_added(out, q, k, v, extra_options)

    def _laid_out(self, options: dict) -> LaidOut:
        """What the running model call reads of these tokens."""
        laid_out = options[PATCH_KEY] if PATCH_KEY in options else running.get(None)
        # The text is read for its guard alone: torch.compile takes all options for constants, as ComfyUI's
        # node asks it to, and would go on without the mask that another call has. This text is no option.
        if laid_out is None or (torch.compiler.is_compiling() and structure.text is None):
            raise InputProblem(
                "Apply IP+ Tokens expected a model call with the wrappers that came with the model, got one "
                "without. Another pack's node takes them away: take it out of the graph."
            )
        return laid_out[self.place]

    def with_loras(self, loras: AdapterLoras) -> TokenAttention:
        """The same patch with other LoRAs on its adapter and on the adapters of our patches below it."""
        twin = self.copy()
        twin.patcher = loras.applied(self.weights)
        if isinstance(twin.previous, TokenAttention):
            twin.previous = twin.previous.with_loras(loras)
        return twin

    def to(self, device_or_dtype: torch.device | torch.dtype) -> TokenAttention:
        """See `AppliedTokens.to`."""
        self.applied.to(device_or_dtype)
        return super().to(device_or_dtype)


def check_slots(keys: Sequence[tuple], options: dict) -> None:
    """Raise ValueError if a node after Apply IP+ Tokens has taken a slot of ours, or one that ours hides."""
    # Either would draw a picture without the tokens of these layers, or without the other pack's patch.
    table = options.get("patches_replace", {}).get("attn2", {})
    for key in keys:
        ours = held_in(table.get(key), TokenAttention)
        if ours is None or (ours.previous is None and key[:2] in table):
            raise InputProblem(
                f"Apply IP+ Tokens expected its patch of the cross-attention {key}, got one that another "
                "node has put in its place. Put that node before Apply IP+ Tokens, which calls the patches "
                "that it finds."
            )


def with_adapter_lora(model: ModelPatcher, change: Callable[[ModelPatcher], ModelPatcher]) -> ModelPatcher:
    """A clone of the model with one more LoRA on the adapters of all its Apply IP+ Tokens."""
    changed = model.clone()
    loras = AdapterLoras([*adapter_loras(model).changes, change])
    changed.set_attachments(PATCH_KEY, loras)
    # Patches that are here already get the LoRA now; later ones take it from the attachment.
    patches = attention_patches(changed)
    for key, patch in patches.items():
        if isinstance(patch, TokenAttention):
            patches[key] = patch.with_loras(loras)
    return changed


def matching_layers(model: ModelPatcher, ip_adapter: ManagedAdapter) -> list[AttentionLayer]:
    """The model's cross-attention layers in the adapter's order. Raises ValueError if the two do not fit."""
    unet = model.get_model_object("diffusion_model")
    # Only UNets of this family have these blocks; a transformer such as Flux has none, and no layers for us.
    layers = attention_layers(unet) if hasattr(unet, "input_blocks") else []
    wanted, found = ip_adapter.cross_attention.model.inner_dims, [layer.inner_dim for layer in layers]
    if found != wanted:
        raise ValueError(
            f"{ip_adapter.name} expected a model with {_describe(wanted)}, got one with {_describe(found)}. "
            "Use a model of the kind that the IP-Adapter was made for: SDXL for ip-adapter-plus_sdxl_vit-h."
        )
    return layers


def _describe(widths: list[int]) -> str:
    return f"{len(widths)} cross-attention layers of widths {sorted(set(widths))}"


def patch_model(
    model: ModelPatcher, ip_adapter: ManagedAdapter, layers: Sequence[AttentionLayer], applied: AppliedTokens
) -> ModelPatcher:
    """A clone of the model whose cross-attention also attends to the tokens."""
    patched = model.clone()
    present = patched.get_wrappers(WrappersMP.APPLY_MODEL, PATCH_KEY)
    earlier = [each for layout in present for each in layout.applied]
    lay_out(patched, [*earlier, applied], [(each.block, each.number, each.index) for each in layers])
    present, loras = attention_patches(patched), adapter_loras(patched)
    for number, layer in enumerate(layers):
        block = (layer.block, layer.number)
        # A patch may be set for one transformer or for its whole block. ComfyUI looks for the narrower key
        # first, so ours would hide a patch of the block if it did not call it.
        previous = present.get((*block, layer.index), present.get(block))
        patch = TokenAttention(ip_adapter.cross_attention, loras, number, applied, len(earlier), previous)
        patched.set_model_attn2_replace(patch, *block, layer.index)
    # Once, however many Apply IP+ Tokens there are: one callback copies the patches of all.
    patched.remove_callbacks_with_key(CallbacksMP.ON_CLONE, PATCH_KEY)
    patched.add_callback_with_key(CallbacksMP.ON_CLONE, PATCH_KEY, separate_patches)
    return patched


def lay_out(patched: ModelPatcher, applied: Sequence[AppliedTokens], keys: Sequence[tuple]) -> None:
    """Have a clone lay out these tokens, and no others, in each of its calls, for patches in these slots."""
    check = partial(check_slots, keys)
    masks = [len(each.mask) for each in applied if each.mask is not None]
    conditions = add_rows(patched, [len(each.tokens) for each in applied], masks)
    patched.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, PATCH_KEY)
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, PATCH_KEY, TokenLayout(conditions, applied, check))


def check_adapter(tokens: Tokens, ip_adapter: ManagedAdapter) -> None:
    """Raise ValueError if tokens are known to have been made with another IP-Adapter."""
    # Another adapter of the same width would pass all other checks and render something unrelated. Tokens
    # from older files do not record theirs, and are given the benefit of the doubt.
    if tokens.adapter and ip_adapter.stamp and not same_adapter(tokens.adapter, ip_adapter.stamp):
        maker = tokens.notes.get("adapter", "of unknown name")
        raise ValueError(
            f"Expected the IP-Adapter that made the tokens from {tokens.source}, {maker} ({tokens.adapter}), "
            f"got {ip_adapter.name} ({ip_adapter.stamp}). Connect the one that the tokens were made with."
        )


def apply_tokens(
    model: ModelPatcher, ip_adapter: ManagedAdapter, tokens: Tokens, weight: float = 1.0,
    start: float = 0.0, end: float = 1.0, negative: str = GREY_PICTURE, mask: Tensor | None = None,
    layer_weights: LayerWeights | None = None,
) -> ModelPatcher:
    """A clone of the model that renders the tokens. Raises ValueError if the three do not fit together."""
    if tokens.width != ip_adapter.token_dim:
        raise ValueError(
            f"{ip_adapter.name} expected tokens of width {ip_adapter.token_dim}, got width {tokens.width} "
            f"from {tokens.source}. Use the IP-Adapter that the tokens were made with."
        )
    check_adapter(tokens, ip_adapter)
    if start >= end:
        raise ValueError(
            f"Apply IP+ Tokens expected start to be less than end, got {start} and {end}. For no tokens at "
            "all, set weight to 0."
        )
    # Guidance extrapolates along the difference between the positive and the negative branch. With the same
    # tokens in both, that is a difference of texts alone.
    uncond = tokens.values if negative == SAME_TOKENS else tokens.uncond
    # Sigmas fall as sampling goes on: `start` is the larger of the two.
    sigma = model.get_model_object("model_sampling").percent_to_sigma
    layers = matching_layers(model, ip_adapter)
    weights = weight * torch.tensor((layer_weights or LayerWeights()).of_layers(layers))
    mask = None if mask is None else checked_mask(mask)
    applied = AppliedTokens(tokens.values, uncond, weights, sigma(start), sigma(end), mask)
    return patch_model(model, ip_adapter, layers, applied)


class ApplyTokens(io.ComfyNode):
    takes = {"tokens": Tokens}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_ApplyTokens",
            display_name="Apply IP+ Tokens",
            category=CATEGORY,
            essentials_category=CATEGORY,
            description="Makes a model render IP+ tokens, each concept in its own image of the latent batch.",
            search_aliases=[
                "ipadapter apply", "ip adapter plus", "image prompt", "regional", "region mask",
                "attention couple", "two concepts", "style reference",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model that renders the concepts."),
                IPAdapterType.Input("ip_adapter", tooltip="The IP-Adapter that the tokens were made with."),
                TokensType.Input("tokens", tooltip="One concept for all images, or one for each."),
                io.Float.Input(
                    "weight", default=1.0, min=-1.0, max=3.0, step=0.05,
                    tooltip="How much the tokens count relative to the text; 1 as published.",
                ),
                io.Float.Input(
                    "start", default=0.0, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="Fraction of the sampling after which the tokens begin to act.",
                ),
                io.Float.Input(
                    "end", default=1.0, min=0.0, max=1.0, step=0.01, advanced=True,
                    tooltip="Fraction of the sampling after which the tokens stop acting.",
                ),
                io.Combo.Input(
                    "negative", options=[GREY_PICTURE, SAME_TOKENS], default=GREY_PICTURE,
                    tooltip="What the negative branch sees: an encoded gray picture, as published, or the "
                            "same tokens, so that guidance acts on the text alone, as for IP-LoRA.",
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="Where the tokens act, white; all of the picture without one. One mask for all "
                            "images, or one for each; it is stretched to the picture.",
                ),
                LayerWeightsType.Input(
                    "layer_weights", optional=True,
                    tooltip="How much the tokens count in each block of the model, from Layer Weights: for "
                            "their style alone, say. All blocks alike without it.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the tokens, for KSampler or another Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, ip_adapter: ManagedAdapter, tokens: Tokens, weight: float, start: float,
        end: float, negative: str, mask: Tensor | None = None, layer_weights: LayerWeights | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(apply_tokens(
            model, ip_adapter, tokens, weight, start, end, negative, mask, layer_weights))
