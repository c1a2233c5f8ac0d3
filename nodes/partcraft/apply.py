"""Part words in a model and its CLIP."""
from __future__ import annotations

import logging

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy_api.latest import io

from ...pit.partcraft.files import PartWords
from ...pit.partcraft.mapper import BASES
from ...pit.partcraft.prompt import OWN_SYNTAX, SYNTAXES
from ..bridge.feedback import told
from ..bridge.lora_patches import add_patches, patches_for, weight_names
from .text import with_words
from .types import CATEGORY, PartWordsType


def check_model(model: ModelPatcher, words: PartWords) -> None:
    """Raise ValueError for a model of another base than the one that the words were made with."""
    config = getattr(getattr(model.model, "model_config", None), "unet_config", None) or {}
    width = config.get("context_dim")
    if width != words.dim:
        got = "another kind of model" if width is None else f"one that reads {width}"
        base = f", as {BASES[words.dim]} does" if words.dim in BASES else ""
        raise ValueError(
            f"Apply PartCraft expected a model that reads texts {words.dim} numbers wide{base}, for the "
            f"words in {words.source}, got {got}. Load the base that they were made with."
        )


def with_lora(model: ModelPatcher, words: PartWords, strength: float) -> tuple[ModelPatcher, str]:
    """A clone of the model with the LoRA of part words, and what was matched.

    Raises:
        ValueError: the LoRA matches no layer of the model, or layers of other shapes.
    """
    patched = model.clone()
    if not words.lora:
        return patched, (
            f"{words.source} has no LoRA, so that the model draws the words less exactly. Put the published "
            "LoRA beside the file of the words"
        )
    patches, matched = patches_for(model.model, words.lora, weight_names(model), words.source)
    if not matched.found:
        raise ValueError(
            f"Apply PartCraft expected a model for the LoRA in {words.source}, got one with other layers: "
            f"{matched}. Load the base that the words were made with."
        )
    add_patches(patched, patches, lambda key: strength)
    return patched, f"LoRA of {words.source}: {matched}"


class ApplyPartCraft(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_ApplyPartCraft",
            display_name="Apply PartCraft",
            category=CATEGORY,
            description=(
                "Makes a model and its CLIP understand part words: CLIP Text Encode then reads <head:17>, "
                "<head:cardinal>, (<wing:4>:1.2) and <head:17|18>."
            ),
            search_aliases=["partcraft", "dreamcreature", "part words", "part tokens"],
            inputs=[
                io.Model.Input("model", tooltip="The model of the base that the words were made with."),
                io.Clip.Input("clip", tooltip="The CLIP of that base."),
                PartWordsType.Input("part_words", tooltip="From Load PartCraft or Train PartCraft."),
                io.Float.Input(
                    "strength", default=1.0, min=-2.0, max=2.0, step=0.05,
                    tooltip="How much the LoRA changes the model; 1 as published, 0 leaves only the words.",
                ),
                io.Combo.Input(
                    "syntax", options=list(SYNTAXES), default=OWN_SYNTAX, optional=True, advanced=True,
                    tooltip="How prompts are read. words: all of the above, and nothing else is touched. re, "
                            "v1 and v2 are the published parsers; v1 takes every word with a colon for a "
                            "part, also that in ratio 3:4.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA."),
                io.Clip.Output(display_name="clip", tooltip="The CLIP, for CLIP Text Encode."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, clip: CLIP, part_words: PartWords, strength: float,
        syntax: str = OWN_SYNTAX,
    ) -> io.NodeOutput:
        check_model(model, part_words)
        reading = with_words(clip, part_words, syntax)
        patched, report = with_lora(model, part_words, strength)
        logging.info("Apply PartCraft: %s", report)
        return io.NodeOutput(patched, reading, ui=told(cls, report))
