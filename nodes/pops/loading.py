"""The loader of operators."""
from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

from comfy_api.latest import io
from torch import nn

from ...pit.pops.files import STATISTICS, read_operator
from ...pit.pops.modes import MODES, mode_in
from ...pit.pops.prior import PriorTransformer
from ..bridge.folders import ModelFiles, file_stamp
from ..bridge.memory import managed, prior_dtype
from .types import CATEGORY, ManagedOperator, OperatorType

OPERATORS, BASES = ModelFiles("pops_operator"), ModelFiles("kandinsky_prior")
# Saved graphs hold these options by name.
NO_BASE, BY_NAME = "none", "as its name says"


def load_operator(
    path: Path, name: str, base: Path | None = None, mode: str = "", num_heads: int | None = None
) -> ManagedOperator:
    """An operator under ComfyUI's memory management.

    Args:
        mode: one of `MODES`; "" for what the file or else its name says.
    Raises:
        WeightFileError: the operator or its base cannot be used.
        ValueError: nothing tells what the operator is for.
    """
    file = read_operator(path, base, num_heads)
    mode = mode or file.mode or mode_in(name)
    if not mode:
        raise ValueError(
            f"Load pOps Operator expected {name} to tell by its name what it is for, as files in folders "
            f"called {', '.join(each.folder for each in MODES.values())} do. Choose it in kind."
        )
    dtype = prior_dtype(file.config.hidden_dim)
    patcher = managed(partial(PriorTransformer, **asdict(file.config)), file.state, dtype)
    # Embeddings go through the statistics before and after all else, so that rounding them would show most.
    for key in STATISTICS:
        setattr(patcher.model, key, nn.Parameter(file.state[key].clone(), requires_grad=False))
    return ManagedOperator(name, patcher, file.config, mode, dtype, file.guidance)


class LoadOperator(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadOperator",
            display_name="Load pOps Operator",
            category=CATEGORY,
            description="Loads an operator on image embeddings: texture, union, scene, instruct or clothes.",
            search_aliases=["pops", "pops operator", "kandinsky prior"],
            inputs=[
                io.Combo.Input(
                    "file", options=OPERATORS.options(),
                    tooltip="The file from models/pops: a published learned_prior.pth, or a merged one.",
                ),
                io.Combo.Input(
                    "base", options=[*BASES.listed(), NO_BASE],
                    tooltip="The prior of Kandinsky 2.2 from models/kandinsky_prior, whose statistics a "
                            "published operator needs; a merged file needs none.",
                ),
                io.Combo.Input(
                    "kind", options=[BY_NAME, *MODES], default=BY_NAME,
                    tooltip="What the operator was trained for; decides its inputs and its usual guidance.",
                ),
                io.Int.Input(
                    "num_heads", default=0, min=0, max=256, advanced=True,
                    tooltip="Number of attention heads, which weights do not reveal; 0 reads config.json.",
                ),
            ],
            outputs=[
                OperatorType.Output(
                    display_name="operator",
                    tooltip="The operator, for pOps Combine, pOps Instruct or pOps Compose.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None, base: str | None) -> bool | str:
        missing_base = None if base == NO_BASE else BASES.why_missing(base)
        return OPERATORS.why_missing(file) or missing_base or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, base: str | None, **_: object) -> object:
        # The number of heads may come from a config.json, so a change of one loads the operator again.
        chosen = [(OPERATORS, file), (BASES, None if base == NO_BASE else base)]
        paths = [files.path(name) for files, name in chosen if name is not None]
        return [(file_stamp(path), file_stamp(path.with_name("config.json"))) for path in paths]

    @classmethod
    def execute(cls, file: str, base: str, kind: str, num_heads: int) -> io.NodeOutput:
        return io.NodeOutput(load_operator(
            OPERATORS.path(file), file, None if base == NO_BASE else BASES.path(base),
            "" if kind == BY_NAME else kind, num_heads or None,
        ))
