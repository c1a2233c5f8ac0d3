"""Loaders for IP-Adapters and IP-Priors."""
from __future__ import annotations

from functools import partial
from pathlib import Path

from comfy_api.latest import io

from ...pit.files.records import adapter_stamp
from ...pit.files.weights import WeightFileError
from ...pit.ip_adapter.attention import ImageCrossAttention
from ...pit.ip_adapter.files import read_ip_adapter
from ...pit.ip_adapter.resampler import TOKENS_PER_PICTURE, Resampler
from ...pit.piece_it_together.prior import IPPrior
from ...pit.piece_it_together.prior_files import read_prior
from ..bridge.folders import ModelFiles, file_stamp
from ..bridge.loaders import FileNode
from ..bridge.memory import managed, prior_dtype
from ..bridge.sockets import IPAdapterType
from .types import CATEGORY, ManagedIPAdapter, ManagedPrior, PriorType

ADAPTERS, PRIORS = ModelFiles("ip_adapter"), ModelFiles("ip_prior")


def load_ip_adapter(path: Path, name: str) -> ManagedIPAdapter:
    """An IP-Adapter-plus file under ComfyUI's memory management; WeightFileError for any other file."""
    file = read_ip_adapter(path)
    queries = file.resampler["num_queries"]
    if queries != TOKENS_PER_PICTURE:
        raise WeightFileError(
            f"{path}: expected an IP-Adapter-plus that makes {TOKENS_PER_PICTURE} tokens of a picture, as "
            f"IP-Priors and files of tokens have them, got one that makes {queries}. Choose another file."
        )
    attention = partial(ImageCrossAttention, file.token_dim, file.inner_dims)
    return ManagedIPAdapter(
        name=name,
        resampler=managed(partial(Resampler, **file.resampler), file.resampler_state),
        cross_attention=managed(attention, file.cross_attention_state),
        # Only of the resampler, since that is what makes tokens, and they carry this stamp.
        stamp=adapter_stamp(file.resampler_state),
    )


def load_prior(path: Path, name: str, num_heads: int | None = None) -> ManagedPrior:
    """An IP-Prior file under ComfyUI's memory management; WeightFileError for any other file."""
    config, state = read_prior(path, num_heads)
    build = partial(
        IPPrior, config.embedding_dim, config.hidden_dim, config.num_layers, config.num_heads,
        feed_forward_dim=config.feed_forward_dim,
    )
    dtype = prior_dtype(config.hidden_dim)
    # Not loaded piece by piece: on a GPU the steps are replayed as a CUDA graph, whose weights stay in place.
    return ManagedPrior(name, managed(build, state, dtype, dynamic=False), config, dtype)


class LoadIPAdapter(FileNode):
    files = ADAPTERS

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadIPAdapter",
            display_name="Load IP-Adapter+",
            category=CATEGORY,
            description="Loads an IP-Adapter-plus file, which turns pictures into tokens and renders them.",
            search_aliases=["ipadapter", "ip adapter plus", "IP+"],
            inputs=[
                io.Combo.Input(
                    "file", options=ADAPTERS.options(),
                    tooltip="The file from models/ipadapter, .safetensors or .bin.",
                ),
            ],
            outputs=[
                IPAdapterType.Output(
                    display_name="ip_adapter",
                    tooltip="The IP-Adapter, for all nodes that encode or apply tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_ip_adapter(ADAPTERS.path(file), file))


class LoadIPPrior(FileNode):
    files = PRIORS

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadIPPrior",
            display_name="Load IP-Prior",
            category=CATEGORY,
            description="Loads an IP-Prior: the flow model that completes parts into concepts of its domain.",
            search_aliases=["piece it together", "pit prior"],
            inputs=[
                io.Combo.Input(
                    "file", options=PRIORS.options(),
                    tooltip="The weight file from models/ip_prior; a cfg.yaml beside it is read as well.",
                ),
                io.Int.Input(
                    "num_heads", default=0, min=0, max=256, advanced=True,
                    tooltip="Number of attention heads, which the weights do not reveal; 0 reads cfg.yaml.",
                ),
            ],
            outputs=[
                PriorType.Output(display_name="prior", tooltip="The prior, for IP-Prior Sample."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None, num_heads: int | None) -> object:
        if file is None:
            return None
        # The number of heads may come from cfg.yaml, so a change of that file loads the prior again.
        return PRIORS.stamp(file), file_stamp(PRIORS.path(file).with_name("cfg.yaml"))

    @classmethod
    def execute(cls, file: str, num_heads: int) -> io.NodeOutput:
        return io.NodeOutput(load_prior(PRIORS.path(file), file, num_heads or None))
