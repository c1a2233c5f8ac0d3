"""From image embeddings to tokens that SDXL renders, by the projection of a base IP-Adapter."""
from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io

from ...pit.concepts.tokens import Tokens
from ...pit.pops.embeddings import Embedding, check_decodable, check_fits
from ..bridge.base_adapter import ManagedBaseAdapter, load_base_adapter
from ..bridge.folders import ModelFiles
from ..bridge.loaders import FileNode
from ..bridge.sockets import EmbeddingType, IPAdapterType, ManagedAdapter, TokensType
from .types import CATEGORY

ADAPTERS = ModelFiles("base_ip_adapter")


class LoadBaseIPAdapter(FileNode):
    files = ADAPTERS

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadBaseIPAdapter",
            display_name="Load Base IP-Adapter",
            category=CATEGORY,
            description="Loads a base IP-Adapter, which renders image embeddings by a few tokens each.",
            search_aliases=["ipadapter", "ip-adapter sdxl", "ip adapter"],
            inputs=[
                io.Combo.Input(
                    "file", options=ADAPTERS.options(),
                    tooltip="The file from models/ipadapter: ip-adapter_sdxl for embeddings of ViT-bigG.",
                ),
            ],
            outputs=[
                IPAdapterType.Output(
                    display_name="ip_adapter",
                    tooltip="The IP-Adapter, for Embedding to IP+ Tokens and Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_base_adapter(ADAPTERS.path(file), file))


class EmbeddingToTokens(io.ComfyNode):
    takes = {"embedding": Embedding}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_EmbeddingToTokens",
            display_name="Embedding to IP+ Tokens",
            category=CATEGORY,
            description="Makes tokens of image embeddings, for Apply IP+ Tokens and SDXL.",
            search_aliases=["embeds to ipadapter", "decode embedding"],
            inputs=[
                EmbeddingType.Input("embedding", tooltip="One embedding for all images, or one for each."),
                IPAdapterType.Input("ip_adapter", tooltip="A base IP-Adapter, as in Apply IP+ Tokens."),
            ],
            outputs=[
                TokensType.Output(
                    display_name="tokens", tooltip="A few tokens for each embedding, for Apply IP+ Tokens.",
                ),
            ],
        )

    @classmethod
    def execute(cls, embedding: Embedding, ip_adapter: ManagedAdapter) -> io.NodeOutput:
        if not isinstance(ip_adapter, ManagedBaseAdapter):
            raise ValueError(
                f"Embedding to IP+ Tokens expected a base IP-Adapter, such as ip-adapter_sdxl, got "
                f"{ip_adapter.name}, which reads image features. Connect Load Base IP-Adapter."
            )
        check_decodable(embedding, "Embedding to IP+ Tokens")
        check_fits(embedding, ip_adapter.embedding_dim, ip_adapter.name)
        comfy.model_management.load_models_gpu([ip_adapter.projection])
        device = ip_adapter.projection.load_device
        # The published negative branch sees an embedding of zeros, not that of a gray picture.
        rows = torch.cat([embedding.values, torch.zeros_like(embedding.values[:1])])
        tokens = ip_adapter.projection.model(rows.to(device, torch.float32))
        tokens = tokens.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(Tokens(
            tokens[:-1], tokens[-1:], source=f"Embedding to IP+ Tokens with {ip_adapter.name}",
            adapter=ip_adapter.stamp, notes={**embedding.notes, "adapter": ip_adapter.name},
        ))
