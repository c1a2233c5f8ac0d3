"""The miniature DINO, in DINOv2's own class: what it sees at each of 16 x 16 places of a picture."""
from __future__ import annotations

from typing import TYPE_CHECKING

from ...encoders.dino import published_name

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Dinov2Model

# Patches as large as the published ones: it is shown pictures of the same size, and has as many places.
PATCH, SEEN = 14, 224
WIDTH, LAYERS, HEADS = 128, 4, 4


def build_dino() -> Dinov2Model:
    """DINOv2's class at miniature width, with random weights."""
    from transformers import Dinov2Config, Dinov2Model  # takes seconds

    return Dinov2Model(Dinov2Config(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, mlp_ratio=4, patch_size=PATCH,
        image_size=SEEN, layer_norm_eps=1e-6, use_swiglu_ffn=False, use_mask_token=False,
    ))


def dino_state(model: Dinov2Model) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in fp16 under the published names, and the metadata that their file needs."""
    state = {published_name(key): value.half().contiguous() for key, value in model.state_dict().items()}
    return state, {"num_heads": str(HEADS)}
