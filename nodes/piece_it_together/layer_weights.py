"""How much tokens count in each block of the model, as a table that Apply IP+ Tokens takes."""
from __future__ import annotations

from comfy_api.latest import io

from ...pit.ip_adapter.layer_weights import PRESETS, LayerWeights, table_in
from .types import CATEGORY, LayerWeightsType


class MakeLayerWeights(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LayerWeights",
            display_name="Layer Weights",
            category=CATEGORY,
            description="Says how much tokens count in each block of the model: for their style alone, say.",
            search_aliases=[
                "style transfer", "composition", "block weights", "layer weights", "style only", "style",
                "weight type",
            ],
            inputs=[
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="style",
                    tooltip="What the tokens are for. Style and composition know the blocks of SDXL and "
                            "Stable Diffusion 1.5; all others fit any model.",
                ),
                io.String.Input(
                    "table", default="", multiline=True, placeholder="output_1: 1.0", optional=True,
                    tooltip="What counts otherwise than in the preset, one block a line, such as "
                            "output_1: 0.5, or one of its transformers, output_1.3: 0. Empty for the preset.",
                ),
            ],
            outputs=[
                LayerWeightsType.Output(
                    display_name="layer_weights", tooltip="The weight of each block, for Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, preset: str, table: str = "") -> io.NodeOutput:
        return io.NodeOutput(LayerWeights(preset, table_in(table)))
