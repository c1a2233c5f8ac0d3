"""LoRAs for the renderer: the published IP-LoRAs, and any other for a UNet."""
from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import comfy.lora
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import nn

from ...pit.files.known import first_of
from ...pit.files.lora import BlockStrengths, Lora, State, modules, parse_block_strengths, read_lora
from ...pit.piece_it_together.ip_lora.prompts import CHARACTER_SHEET, scene_prompt
from ...pit.unet import AttentionLayer, attention_layers
from ..bridge.feedback import told
from ..bridge.folders import ModelFiles
from .apply_tokens import with_adapter_lora
from .types import CATEGORY

PROBLEMS_SHOWN = 3
FILES = ModelFiles("ip_lora")
SCENE, SHEET, FREE = "scene", "character sheet", "free"


@dataclass(frozen=True)
class Matched:
    """How many modules of a LoRA found their weights, and the names of those that did not."""

    found: int
    missing: list[str]

    def __str__(self) -> str:
        missing = f"; not {first_of(self.missing, PROBLEMS_SHOWN)}" if self.missing else ""
        return f"{self.found} of {self.found + len(self.missing)} modules matched{missing}"


def weight_names(model: ModelPatcher) -> dict[str, str]:
    """The key of the model's weight for every name that a LoRA may use for its module."""
    return comfy.lora.model_lora_keys_unet(model.model, {})


def adapter_weight_names(model: ModelPatcher) -> dict[str, str]:
    """The same for `to_k_ip` and `to_v_ip`: keys of `ImageCrossAttention`."""
    # The names of the text projections plus `_ip`, which ComfyUI does not know: its own loader drops them.
    keys = {
        f"diffusion_model.{layer.module}.to_{kind}.weight": f"{number}.to_{kind}.weight"
        for number, layer in enumerate(cross_attention(model)) for kind in "kv"
    }
    return {f"{name}_ip": keys[key] for name, key in weight_names(model).items() if key in keys}


def cross_attention(model: ModelPatcher) -> list[AttentionLayer]:
    """The cross-attention layers of a model, as an adapter numbers them; empty if it is not such a UNet."""
    unet = model.get_model_object("diffusion_model")
    return attention_layers(unet) if hasattr(unet, "input_blocks") else []


def patches_for(
    module: nn.Module, state: State, names: Mapping[str, str], title: str
) -> tuple[dict[str, object], Matched]:
    """ComfyUI's patches for the weights of a module, by its keys. Raises ValueError if shapes differ."""
    found = [name for name in modules(state) if name in names]
    # ComfyUI would only log such a patch, while it samples, and leave the weight as it is. Other kinds than
    # up and down, such as LoHa, have no such pair.
    for name in found:
        up, down = state.get(f"{name}.lora_up.weight"), state.get(f"{name}.lora_down.weight")
        if up is None or down is None:
            continue
        wanted = list(comfy.utils.get_attr(module, names[name]).shape[:2])
        if [up.shape[0], down.shape[1]] != wanted:
            raise ValueError(
                f"Expected a LoRA for this model, in which {name} is {wanted[0]} x {wanted[1]}, got {title}, "
                f"made for {up.shape[0]} x {down.shape[1]}. Connect the kind of model that it was trained "
                "on, or choose another file."
            )
    # Not logged by ComfyUI, key by key: what matched and what did not is in the report.
    patches = comfy.lora.load_lora(state, {name: names[name] for name in found}, log_missing=False)
    return patches, Matched(len(found), [name for name in modules(state) if name not in names])


def add_patches(model: ModelPatcher, patches: Mapping[str, object], strength: Callable[[str], float]) -> None:
    """Add patches to a model, each with the strength of its key."""
    # Grouped, because ComfyUI takes one strength per call, and every call reads all weights of the model.
    by_strength: dict[float, dict[str, object]] = defaultdict(dict)
    for key, patch in patches.items():
        by_strength[strength(key)][key] = patch
    for value, chosen in by_strength.items():
        model.add_patches(chosen, value)


def apply_ip_lora(
    model: ModelPatcher, lora: Lora, title: str, strength: float, blocks: BlockStrengths
) -> tuple[ModelPatcher, str]:
    """A clone of the model with a LoRA, its adapters included, and a report of what was matched.

    Raises:
        ValueError: the LoRA matches no module of the model, or is for weights of other shapes.
    """
    patches, matched = patches_for(model.model, lora.unet, weight_names(model), title)
    names = adapter_weight_names(model)
    on_adapter = [name for name in modules(lora.adapter) if name in names]
    if not matched.found and not on_adapter:
        raise ValueError(
            f"Expected a LoRA for this model, got {title}: {matched}. Connect the kind of model that it was "
            "trained on, or choose another file."
        )
    layers = cross_attention(model)

    # A function, because the adapters come to the model in other nodes, before this one or after it.
    def change(adapter: ModelPatcher) -> ModelPatcher:
        patched = adapter.clone()
        patches, _ = patches_for(adapter.model, lora.adapter, names, title)
        add_patches(patched, patches, lambda key: strength * blocks.of(layers[int(key.split(".")[0])].module))
        return patched

    patched = with_adapter_lora(model, change) if on_adapter else model.clone()
    add_patches(patched, patches, lambda key: strength * blocks.of(key))
    report = f"{title}: {matched}"
    if lora.adapter:
        missing = [name for name in modules(lora.adapter) if name not in names]
        report += f"\nof the IP-Adapter {Matched(len(on_adapter), missing)}"
    if lora.elsewhere:
        report += f"\nnot used here: {first_of(lora.elsewhere, PROBLEMS_SHOWN)}"
    return patched, report


class ApplyIPLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_ApplyIPLora",
            display_name="Apply IP-LoRA",
            category=CATEGORY,
            description=(
                "Makes the text count again at full weight of the image tokens. Reads kohya's layout, and "
                "those of diffusers and PEFT, of which ComfyUI's own loader loads nothing for SDXL."
            ),
            search_aliases=["ip lora", "lora loader", "character sheet", "prompt adherence"],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model, before or after Apply IP+ Tokens."),
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/loras, or one that comes with the creature models.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=-5.0, max=5.0, step=0.05,
                    tooltip="How much the LoRA changes the model; 1 as published, 0 leaves it unchanged.",
                ),
                io.String.Input(
                    "blocks", default="", optional=True, advanced=True,
                    tooltip="Factors of the strength for single blocks, such as in=0.5, mid=1, out0-2=0. "
                            "Blocks that are not named keep 1.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str, blocks: str = "") -> bool | str:
        # Before the graph runs, so that a slip in this text does not cost the sampling that comes first.
        try:
            parse_block_strengths(blocks)
        except ValueError as error:
            return f"Apply IP-LoRA: {error}"
        return FILES.why_missing(file) or True

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: object) -> object:
        return FILES.stamp(file)

    @classmethod
    def execute(cls, model: ModelPatcher, file: str, strength: float, blocks: str = "") -> io.NodeOutput:
        lora = read_lora(FILES.path(file))
        patched, report = apply_ip_lora(model, lora, file, strength, parse_block_strengths(blocks))
        logging.info("Apply IP-LoRA: %s", report)
        return io.NodeOutput(patched, ui=told(cls, report))


class IPLoraPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_IPLoraPrompt",
            display_name="IP-LoRA Prompt",
            category=CATEGORY,
            description="Writes prompts in the form that an IP-LoRA was trained on.",
            search_aliases=["character sheet", "creature in scene"],
            inputs=[
                io.DynamicCombo.Input(
                    "mode", tooltip="What the connected IP-LoRA was trained to render.",
                    options=[
                        io.DynamicCombo.Option(SCENE, [
                            io.String.Input("scene", default="a snowy forest", tooltip="Where it is."),
                            io.String.Input("style", default="studio photo", tooltip="The kind of picture."),
                        ]),
                        io.DynamicCombo.Option(SHEET, []),
                        io.DynamicCombo.Option(FREE, [
                            io.String.Input(
                                "positive", multiline=True, tooltip="The prompt, passed on as it is.",
                            ),
                            io.String.Input(
                                "negative", multiline=True, default="",
                                tooltip="The negative prompt, passed on as it is; none as published.",
                            ),
                        ]),
                    ],
                ),
            ],
            outputs=[io.String.Output(display_name="positive"), io.String.Output(display_name="negative")],
        )

    @classmethod
    def execute(cls, mode: dict[str, str]) -> io.NodeOutput:
        # Without a negative prompt in the trained forms: the published scripts use none.
        if mode["mode"] == SCENE:
            return io.NodeOutput(scene_prompt(mode["scene"], mode["style"]), "")
        if mode["mode"] == SHEET:
            return io.NodeOutput(CHARACTER_SHEET, "")
        return io.NodeOutput(mode["positive"], mode["negative"])
