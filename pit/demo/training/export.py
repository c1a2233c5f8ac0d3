"""Writing the shipped weight files: fp16 safetensors, in the layouts that ComfyUI and the loaders read."""
from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ...files.weights import write_state
from ...ip_adapter.attention import IPAdapterPlus
from ...ip_adapter.files import save_ip_adapter
from ...piece_it_together.prior import IPPrior, feed_forward_width
from ...piece_it_together.prior_files import PriorConfig, save_prior
from ..models.preview import TokenPreview
from ..models.reader import CreatureReader
from ..models.sizes import PRIOR
from ..models.text import TextEncoders
from ..models.unet import Renderer
from ..models.weights import IP_ADAPTER, IP_PRIOR, PREVIEW, READER, RENDERER, VERSION, VISION
from ..models.words import END, START, WORDS
from .encoder import ImageTokens

METADATA = {"version": VERSION, "made_by": "python -m pit demo-train"}


def half(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The weights in fp16, their keys behind a prefix."""
    # Buffers of integers, such as position ids, are the same in every model: the classes make them.
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    return {prefix + key: value.half().contiguous() for key, value in floats.items()}


def export(
    folder: Path, autoencoder: AutoencoderKL, encoder: ImageTokens, renderer: Renderer, prior: IPPrior,
    reader: CreatureReader, preview: TokenPreview,
) -> None:
    """Write the four weight files of the chain, that of the reader and that of the preview."""
    folder.mkdir(parents=True, exist_ok=True)
    forget_unused_words(renderer.text)
    state = half(renderer.unet.state_dict(), "unet.") | half(autoencoder.state_dict(), "vae.")
    state |= half(renderer.text.comfyui_state())
    write_state(folder / RENDERER, state, METADATA)
    write_state(folder / VISION, half(encoder.vision.state_dict()), METADATA)
    write_state(folder / READER, half(reader.state_dict()), METADATA)
    write_state(folder / PREVIEW, half(preview.state_dict()), METADATA)
    adapter = IPAdapterPlus(encoder.resampler, renderer.image).half()
    save_ip_adapter(folder / IP_ADAPTER, adapter, METADATA)
    config = PriorConfig(**PRIOR, feed_forward_dim=feed_forward_width(PRIOR["hidden_dim"]), use_ref=False)
    save_prior(folder / IP_PRIOR, half(prior.state_dict()), config, METADATA)


@torch.no_grad()
def forget_unused_words(text: TextEncoders) -> None:
    """Zero the embeddings that no caption has trained: unknown words say nothing, and files compress well."""
    # 0 is what the second encoder pads with.
    known = sorted({START, END, 0, *(token for ids in WORDS.values() for token in ids)})
    for encoder in (text.clip_l, text.clip_g):
        weight = encoder.get_input_embeddings().weight
        kept = weight[known].clone()
        weight.zero_()
        weight[known] = kept
