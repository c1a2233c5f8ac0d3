"""Socket types that several systems know, and what travels through them."""
from __future__ import annotations

from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

TokensType = io.Custom("PIT_TOKENS")
"""Carries a `pit.concepts.tokens.Tokens`."""
EmbeddingType = io.Custom("PIT_EMBEDDING")
"""Carries a `pit.pops.embeddings.Embedding`."""
CONCEPTS = [TokensType, EmbeddingType]
"""What carries a `pit.concepts.concepts.Concepts`."""
DirectionType = io.Custom("PIT_DIRECTION")
"""Carries a `pit.concepts.directions.Direction`."""
IPAdapterType = io.Custom("PIT_IP_ADAPTER")
"""Carries a `ManagedAdapter`."""


def concepts_template() -> io.MatchType.Template:
    """For the sockets of a node that takes concepts of either kind and gives those of the same kind."""
    return io.MatchType.Template("concepts", CONCEPTS)


@dataclass(frozen=True)
class ManagedAdapter:
    """What the IP-Adapters of all kinds have: the attention by which a UNet renders their tokens.

    Attributes:
        name: what error messages call it.
        cross_attention: patcher of an `ImageCrossAttention`.
        stamp: tells it from other IP-Adapters, see `pit.files.records.adapter_stamp`.
    """

    # Frozen, as all that travels through sockets: ComfyUI hands one cached output to every node that asks for
    # it, so a node that changed it would change the inputs of others.
    name: str
    cross_attention: ModelPatcher
    stamp: str = ""

    @property
    def token_dim(self) -> int:
        return self.cross_attention.model.token_dim
