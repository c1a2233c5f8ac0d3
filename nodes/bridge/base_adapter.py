"""Base IP-Adapters under ComfyUI's memory management."""
from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from comfy.model_patcher import ModelPatcher

from ...pit.files.records import adapter_stamp
from ...pit.ip_adapter.attention import ImageCrossAttention
from ...pit.ip_adapter.base_files import read_base_adapter
from ...pit.ip_adapter.projection import ImageProjection
from .memory import managed
from .sockets import ManagedAdapter


@dataclass(frozen=True, kw_only=True)
class ManagedBaseAdapter(ManagedAdapter):
    """A base IP-Adapter in two patchers, so that the sampler loads the attention weights alone.

    Attributes:
        projection: patcher of an `ImageProjection`, from one embedding to a few tokens.
    """

    projection: ModelPatcher

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings that become tokens."""
        return self.projection.model.proj.in_features

    @property
    def feature_dim(self) -> int:
        """What encodes pictures for an IP-Adapter-plus asks for first. Raises ValueError."""
        raise ValueError(
            f"Expected an IP-Adapter-plus, which makes tokens of image features, got {self.name}, which "
            "makes them of embeddings. Connect Load IP-Adapter+ here, or use Embedding to IP+ Tokens instead."
        )


def load_base_adapter(path: Path, name: str) -> ManagedBaseAdapter:
    """A base IP-Adapter file under ComfyUI's memory management; WeightFileError for any other file."""
    file = read_base_adapter(path)
    attention = partial(ImageCrossAttention, file.projection["token_dim"], file.inner_dims)
    state = file.projection_state
    return ManagedBaseAdapter(
        name=name,
        projection=managed(partial(ImageProjection, **file.projection), state),
        cross_attention=managed(attention, file.cross_attention_state),
        # Only of the projection, since that is what makes tokens, and they carry this stamp.
        stamp=adapter_stamp({"latents": state["proj.weight"], "norm_out.weight": state["norm.weight"]}),
    )
