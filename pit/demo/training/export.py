"""Writing the shipped weight files: fp16 safetensors, in the layouts that ComfyUI and the loaders read."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...files.records import adapter_stamp
from ...files.weights import write_state
from ...ip_adapter.attention import IPAdapterPlus
from ...ip_adapter.base_files import save_base_adapter
from ...ip_adapter.files import save_ip_adapter
from ...piece_it_together.prior import IPPrior, feed_forward_width
from ...piece_it_together.prior_files import PriorConfig, save_prior
from ..models.autoencoder import CreatureAutoencoder
from ..models.reader import CreatureReader
from ..models.sizes import PRIOR
from ..models.unet import TextRenderer
from ..models.weights import (
    AUTOENCODER,
    BASE_ADAPTER,
    IP_ADAPTER,
    IP_PRIOR,
    PREVIEW,
    READER,
    RENDERER,
    SD15,
    VERSION,
    VISION,
    without_unused_words,
)
from .encoder import TaughtEncoder
from .unet import TaughtRenderer

METADATA = {"version": VERSION, "made_by": "python -m pit demo-train"}


@dataclass(frozen=True)
class Trained:
    """The results of all stages."""

    reader: CreatureReader
    encoder: TaughtEncoder
    autoencoder: CreatureAutoencoder
    unet: TaughtRenderer
    text_unet: TextRenderer
    prior: IPPrior


def half(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The weights in fp16, their keys behind a prefix."""
    # Buffers of integers, such as position ids, are the same in every model: the classes make them.
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    return {prefix + key: value.half().contiguous() for key, value in floats.items()}


def export(folder: Path, trained: Trained) -> None:
    """Write all weight files of the creature models."""
    folder.mkdir(parents=True, exist_ok=True)
    renderer = trained.unet.renderer
    states = {
        RENDERER: half(renderer.unet.state_dict(), "unet.") | words(renderer.text.comfyui_state()),
        SD15: half(trained.text_unet.unet.state_dict(), "unet.")
        | words(trained.text_unet.text.comfyui_state()),
        AUTOENCODER: half(trained.autoencoder.state_dict()),
        VISION: half(trained.encoder.encoder.vision.state_dict()),
        READER: half(trained.reader.state_dict()),
        PREVIEW: half(trained.unet.preview.state_dict()),
    }
    for name, state in states.items():
        write_state(folder / name, state, METADATA)
    adapter = IPAdapterPlus(trained.unet.resampler, renderer.image).half()
    save_ip_adapter(folder / IP_ADAPTER, adapter, METADATA)
    save_base_adapter(
        folder / BASE_ADAPTER, renderer.base_projection.half(), renderer.base_image.half(), METADATA
    )
    config = PriorConfig(
        **PRIOR, feed_forward_dim=feed_forward_width(PRIOR["hidden_dim"]), use_ref=False,
        adapter=adapter_stamp(adapter.resampler.state_dict()),
    )
    save_prior(folder / IP_PRIOR, half(trained.prior.state_dict()), config, METADATA)


def words(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of text encoders, in fp16."""
    return half(without_unused_words(state))
