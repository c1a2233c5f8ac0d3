"""Concepts as things that one can keep: tokens as files, counted with, and put together."""
from __future__ import annotations

from comfy_api.latest import io

from ...pit.piece_it_together.token_files import read_tokens, save_tokens
from ...pit.piece_it_together.tokens import (
    Tokens,
    average,
    check_same_adapter,
    derived,
    difference_added,
    joined,
)
from ..bridge.feedback import as_lines, told
from ..bridge.folders import ModelFiles, own_file
from .types import CATEGORY, TokensType

LIBRARY = f"{CATEGORY}/tokens"
FILES = ModelFiles("ip_tokens")
DIFFERENCE, AVERAGE = "add a difference", "average"


class SaveTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SaveTokens",
            display_name="Save IP+ Tokens",
            category=LIBRARY,
            description="Keeps concepts, with what they were made of, for Load IP+ Tokens in any graph.",
            search_aliases=["save concept", "save embeds", "token library"],
            is_output_node=True,
            inputs=[
                TokensType.Input("tokens", tooltip="The concepts to keep; a batch stays one."),
                io.String.Input(
                    "name", default="my_concept",
                    tooltip="It is written to models/ip_tokens/NAME.safetensors, over one of this name.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, tokens: Tokens, name: str) -> io.NodeOutput:
        path = own_file(FILES.folder_to_write(), name)
        save_tokens(path, tokens)
        return io.NodeOutput(ui=told(cls, f"written: {path.name}, {len(tokens.values)} concepts"))


class LoadTokens(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadTokens",
            display_name="Load IP+ Tokens",
            category=LIBRARY,
            description="Loads concepts that were saved, and shows what they were made of.",
            search_aliases=["load concept", "load embeds", "token library"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/ip_tokens, or one that comes with the creature models.",
                ),
            ],
            outputs=[TokensType.Output(display_name="tokens")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return FILES.why_missing(file) or True

    @classmethod
    def fingerprint_inputs(cls, file: str) -> object:
        return FILES.stamp(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        tokens = read_tokens(FILES.path(file), file)
        facts = {"concepts": len(tokens.values), "width": tokens.width, **tokens.notes}
        return io.NodeOutput(tokens, ui=told(cls, as_lines(facts)))


class TokenArithmetic(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TokenArithmetic",
            display_name="IP+ Token Arithmetic",
            category=LIBRARY,
            description="Gives a concept what makes one concept differ from another, or takes an average.",
            search_aliases=["token math", "add tokens", "subtract tokens", "analogy", "average embeds"],
            inputs=[
                TokensType.Input("tokens", tooltip="The concepts to count with."),
                io.DynamicCombo.Input(
                    "mode", tooltip="tokens + amount x (plus - minus), or the mean of all in the batch.",
                    options=[
                        io.DynamicCombo.Option(DIFFERENCE, [
                            TokensType.Input("plus", tooltip="What has what is to be added."),
                            TokensType.Input("minus", tooltip="What is alike, but lacks it."),
                            io.Float.Input(
                                "amount", default=1.0, min=-10.0, max=10.0, step=0.05,
                                tooltip="How much of the difference; below 0 takes it away.",
                            ),
                        ]),
                        io.DynamicCombo.Option(AVERAGE, [
                            io.Boolean.Input(
                                "keep_length", default=True,
                                tooltip="Keep the average as strong as what it is made of, or let it fade.",
                            ),
                        ]),
                    ],
                ),
            ],
            outputs=[TokensType.Output(display_name="tokens")],
        )

    @classmethod
    def execute(cls, tokens: Tokens, mode: dict) -> io.NodeOutput:
        if mode["mode"] == AVERAGE:
            return io.NodeOutput(
                derived([tokens], average(tokens.values, mode["keep_length"]), "IP+ Token Arithmetic")
            )
        plus, minus = mode["plus"], mode["minus"]
        check_same_adapter(tokens, plus, minus)
        values = difference_added(tokens.values, plus.values, minus.values, mode["amount"])
        return io.NodeOutput(derived([tokens, plus, minus], values, "IP+ Token Arithmetic"))


class BatchConcepts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        each = TokensType.Input("tokens", tooltip="One concept or several.")
        return io.Schema(
            node_id="PiT_BatchConcepts",
            display_name="Batch Concepts",
            category=LIBRARY,
            description="Puts concepts together into one batch, to draw them all at once.",
            search_aliases=["join tokens", "concat tokens", "combine concepts"],
            inputs=[
                io.Autogrow.Input(
                    "concepts", template=io.Autogrow.TemplatePrefix(each, prefix="tokens", min=1, max=32),
                    tooltip="The concepts, in the order that they take in the batch.",
                ),
            ],
            outputs=[TokensType.Output(display_name="tokens")],
        )

    @classmethod
    def execute(cls, concepts: dict[str, Tokens]) -> io.NodeOutput:
        return io.NodeOutput(joined(list(concepts.values()), "Batch Concepts"))
