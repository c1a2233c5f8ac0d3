"""Concepts to keep and to compute with: tokens as files, token arithmetic, and batches."""
from __future__ import annotations

from comfy_api.latest import io

from ...pit.concepts.concepts import (
    Concepts,
    average,
    check_same_space,
    derived,
    difference_added,
    joined,
)
from ...pit.concepts.token_files import read_tokens, save_tokens
from ...pit.concepts.tokens import Tokens
from ..bridge.feedback import as_lines, told
from ..bridge.folders import ModelFiles
from ..bridge.keeping import kept
from ..bridge.kinds import check_kinds
from ..bridge.loaders import FileNode
from ..bridge.sockets import CONCEPTS, TokensType, concepts_template
from .types import CATEGORY

LIBRARY = f"{CATEGORY}/tokens"
FILES = ModelFiles("ip_tokens")
# Saved graphs hold these options by name.
DIFFERENCE, AVERAGE = "add a difference", "average"


class SaveTokens(io.ComfyNode):
    takes = {"tokens": Tokens}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SaveTokens",
            display_name="Save IP+ Tokens",
            category=LIBRARY,
            description="Saves concepts and how they were made, for Load IP+ Tokens in any graph.",
            search_aliases=["save concept", "save embeds", "token library"],
            is_output_node=True,
            inputs=[
                TokensType.Input("tokens", tooltip="The concepts to save; a batch goes into one file."),
                io.String.Input(
                    "name", default="my_concept",
                    tooltip="The file is models/ip_tokens/NAME.safetensors; one of that name is overwritten.",
                ),
            ],
            outputs=[],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, tokens: Tokens, name: str) -> io.NodeOutput:
        return kept(
            cls, FILES, name, lambda path: save_tokens(path, tokens), f"{len(tokens.values)} concepts")


class LoadTokens(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadTokens",
            display_name="Load IP+ Tokens",
            category=LIBRARY,
            description="Loads saved concepts and shows how they were made.",
            search_aliases=["load concept", "load embeds", "token library"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/ip_tokens, or one that comes with the creature models.",
                ),
            ],
            outputs=[
                TokensType.Output(display_name="tokens", tooltip="The saved concepts, for Apply IP+ Tokens."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        tokens = read_tokens(FILES.path(file), file)
        facts = {"concepts": len(tokens.values), "width": tokens.width, **tokens.notes}
        return io.NodeOutput(tokens, ui=told(cls, as_lines(facts)))


class TokenArithmetic(io.ComfyNode):
    takes = {"tokens": Concepts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        concepts = concepts_template()
        return io.Schema(
            node_id="PiT_TokenArithmetic",
            display_name="IP+ Token Arithmetic",
            category=LIBRARY,
            description="Adds the difference between two concepts to others, or averages concepts.",
            search_aliases=[
                "token math", "add tokens", "subtract tokens", "analogy", "average embeds",
                "embedding math", "add", "subtract", "difference",
            ],
            inputs=[
                io.MatchType.Input(
                    "tokens", template=concepts,
                    tooltip="The concepts to change, or to average: IP+ tokens or image embeddings.",
                ),
                io.DynamicCombo.Input(
                    # Each option brings its own inputs, so that the node only shows those that it reads.
                    "mode", tooltip="tokens + amount x (plus - minus), or the mean of all in the batch.",
                    options=[
                        io.DynamicCombo.Option(DIFFERENCE, [
                            io.MultiType.Input(
                                "plus", CONCEPTS, tooltip="A concept with the quality to add.",
                            ),
                            io.MultiType.Input(
                                "minus", CONCEPTS, tooltip="A similar concept without it.",
                            ),
                            io.Float.Input(
                                "amount", default=1.0, min=-10.0, max=10.0, step=0.05,
                                tooltip="How much of the difference to add; below 0 subtracts it.",
                            ),
                        ]),
                        io.DynamicCombo.Option(AVERAGE, [
                            io.Boolean.Input(
                                "keep_length", default=True,
                                tooltip="Scale the average to the mean length of its sources; unscaled, it "
                                        "is shorter and its concept weaker.",
                            ),
                        ]),
                    ],
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    template=concepts, display_name="tokens", tooltip="The result, for Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, tokens: Concepts, mode: dict) -> io.NodeOutput:
        if mode["mode"] == AVERAGE:
            return io.NodeOutput(
                derived([tokens], average(tokens.values, mode["keep_length"]), "IP+ Token Arithmetic")
            )
        plus, minus = mode["plus"], mode["minus"]
        check_kinds(cls, {"plus": Concepts, "minus": Concepts}, mode)
        check_same_space(tokens, plus, minus)
        values = difference_added(tokens.values, plus.values, minus.values, mode["amount"])
        return io.NodeOutput(derived([tokens, plus, minus], values, "IP+ Token Arithmetic"))


class BatchConcepts(io.ComfyNode):
    takes = {"concepts": Concepts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        concepts = concepts_template()
        each = io.MatchType.Input(
            "tokens", template=concepts, tooltip="One or more concepts: IP+ tokens or image embeddings.",
        )
        return io.Schema(
            node_id="PiT_BatchConcepts",
            display_name="Batch Concepts",
            category=LIBRARY,
            description="Puts concepts together into one batch, to render them all at once.",
            search_aliases=["join tokens", "concat tokens", "batch embeddings", "combine concepts"],
            inputs=[
                io.Autogrow.Input(
                    "concepts", template=io.Autogrow.TemplatePrefix(each, prefix="tokens", min=1, max=32),
                    tooltip="The concepts, in the order that they will have in the batch.",
                ),
            ],
            outputs=[
                io.MatchType.Output(
                    template=concepts,
                    display_name="tokens",
                    tooltip="All concepts in one batch, for Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, concepts: dict[str, Concepts]) -> io.NodeOutput:
        return io.NodeOutput(joined(list(concepts.values()), "Batch Concepts"))
