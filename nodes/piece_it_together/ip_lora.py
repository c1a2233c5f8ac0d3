"""LoRAs for the renderer: the published IP-LoRAs, and any other for a UNet."""
from __future__ import annotations

import logging

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ...pit.files.known import first_of
from ...pit.files.lora import Lora, by_module, modules, read_lora
from ...pit.files.lora_blocks import BlockStrengths, parse_block_strengths
from ...pit.piece_it_together.ip_lora.prompts import CHARACTER_SHEET, scene_prompt
from ..bridge.feedback import told
from ..bridge.folders import ModelFiles
from ..bridge.loaders import FileNode
from ..bridge.lora_patches import (
    PROBLEMS_SHOWN,
    Matched,
    adapter_weight_names,
    add_patches,
    cross_attention,
    found_once,
    patches_for,
    weight_names,
)
from .apply_tokens import with_adapter_lora
from .types import CATEGORY

FILES = ModelFiles("ip_lora")
SCENE, SHEET, FREE = "scene", "character sheet", "free"


def apply_ip_lora(
    model: ModelPatcher, lora: Lora, title: str, strength: float, blocks: BlockStrengths
) -> tuple[ModelPatcher, str]:
    """A clone of the model with a LoRA, its adapters included, and a report of what was matched.

    Raises:
        ValueError: the LoRA matches no module of the model, or is for weights of other shapes.
    """
    patches, matched = patches_for(model.model, lora.unet, weight_names(model), title)
    names = adapter_weight_names(model)
    on_adapter = found_once(by_module(lora.adapter), names, title)
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
        missing = [name for name in modules(lora.adapter) if name not in on_adapter]
        report += f"\nof the IP-Adapter {Matched(len(on_adapter), missing)}"
    if lora.elsewhere:
        report += f"\nnot used here: {first_of(lora.elsewhere, PROBLEMS_SHOWN)}"
    return patched, report


class ApplyIPLora(FileNode):
    files = FILES

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
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model with the LoRA, for Apply IP+ Tokens or KSampler.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, file: str, strength: float, blocks: str = "") -> io.NodeOutput:
        strengths = parse_block_strengths(blocks)  # first: a slip in it is told at once
        lora = read_lora(FILES.path(file))
        patched, report = apply_ip_lora(model, lora, file, strength, strengths)
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
            outputs=[
                io.String.Output(display_name="positive", tooltip="The prompt, for CLIP Text Encode."),
                io.String.Output(
                    display_name="negative", tooltip="The negative prompt, for another CLIP Text Encode.",
                ),
            ],
        )

    @classmethod
    def execute(cls, mode: dict[str, str]) -> io.NodeOutput:
        # Without a negative prompt in the trained forms: the published scripts use none.
        if mode["mode"] == SCENE:
            return io.NodeOutput(scene_prompt(mode["scene"], mode["style"]), "")
        if mode["mode"] == SHEET:
            return io.NodeOutput(CHARACTER_SHEET, "")
        return io.NodeOutput(mode["positive"], mode["negative"])
