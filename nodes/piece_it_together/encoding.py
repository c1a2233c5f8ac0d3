"""From pictures to IP+ tokens, with the models of the graph."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import comfy.model_management
import torch
from torch import Tensor

from ...pit.files.published import file_kind
from ...pit.ip_adapter.encoder import TokenEncoder
from ..bridge.feedback import progress_bar
from .types import ManagedIPAdapter

# Bounds the memory of an encoding, however many pictures there are, and lets Cancel in between.
PICTURES_AT_ONCE = 16


def check_encoder(clip_vision, ip_adapter: ManagedIPAdapter) -> None:
    """Raise ValueError if the IP-Adapter was not made for this image encoder."""
    # The type as well as the width: encoders of other families can have the same width.
    found, width = clip_vision.model_type, clip_vision.config["hidden_size"]
    if found != "clip_vision_model" or width != ip_adapter.feature_dim:
        raise ValueError(
            f"{ip_adapter.name} expected a clip_vision_model of width {ip_adapter.feature_dim} as its "
            f"CLIP_VISION, got a {found} of width {width}. {file_kind('clip_vision').where_to_get}"
        )


def made_by(node: str, clip_vision, ip_adapter: ManagedIPAdapter) -> dict[str, Any]:
    """What tokens record about their origin, as the arguments of `pit.files.records.Made`."""
    return {
        "source": f"{node} with {ip_adapter.name}", "adapter": ip_adapter.stamp,
        "notes": {"encoder": encoder_name(clip_vision), "adapter": ip_adapter.name},
    }


def encoder_name(clip_vision) -> str:
    return f"{clip_vision.config['model_type']} of width {clip_vision.config['hidden_size']}"


def token_encoder(clip_vision, ip_adapter: ManagedIPAdapter) -> TokenEncoder:
    """From pixel values to features to IP+ tokens, with both models loaded by ComfyUI.

    Raises:
        ValueError: the encoder is not the one that the IP-Adapter was made for.
    """
    check_encoder(clip_vision, ip_adapter)
    comfy.model_management.load_models_gpu([clip_vision.patcher, ip_adapter.resampler])

    # The network is ComfyUI's, but its `encode_image` is not used: its preprocessing rounds where the
    # published one truncates, and cannot give all-zero pixels. The plus resampler reads the features of
    # the layer before the last one, which is what -2 asks for.
    def features(pixels: Tensor) -> Tensor:
        return clip_vision.model(pixel_values=pixels.to(clip_vision.load_device), intermediate_output=-2)[1]

    # An encoder may run in half precision. From here on it is float32, in which all tokens travel.
    def resample(features: Tensor) -> Tensor:
        return ip_adapter.resampler.model(features.to(ip_adapter.resampler.load_device, torch.float32))

    name, size = encoder_name(clip_vision), clip_vision.image_size
    return TokenEncoder(name, ip_adapter.name, size, features, resample, ip_adapter.stamp)


class Encoded(NamedTuple):
    """Encoded pictures, float32, on ComfyUI's intermediate device.

    Attributes:
        tokens: `[B, 16, D]`.
        uncond: tokens of the all-zero pixels that SDXL's negative branch sees, `[1, 16, D]`.
        features: what the resampler made the tokens from, `[B, N, E]`; directions in CLIP space act on them.
    """

    tokens: Tensor
    uncond: Tensor
    features: Tensor


def encode_pixels(clip_vision, ip_adapter: ManagedIPAdapter, pixels: Tensor) -> Encoded:
    """Encode pixel values as the published processor makes them, `[B, 3, size, size]` in the encoder's size.

    Raises:
        ValueError: the encoder is not the one that the IP-Adapter was made for.
        FloatingPointError: the tokens are not finite.
    """
    encoder = token_encoder(clip_vision, ip_adapter)
    # Zero after normalization is the mean color: a gray picture, which the published code puts in place of
    # no image at all. It is the last row.
    pixels = torch.cat([pixels, torch.zeros_like(pixels[:1])])
    tokens, features = encode_chunks(encoder, pixels.split(PICTURES_AT_ONCE), len(pixels), progress_bar())
    return Encoded(tokens[:-1], tokens[-1:], features[:-1])


def encode_chunks(
    encoder: TokenEncoder, chunks: Iterable[Tensor], total: int, done: Callable[[int, int], None]
) -> tuple[Tensor, Tensor]:
    """Tokens `[B, 16, D]` and features `[B, N, E]` of pixel values in chunks, on the intermediate device.

    Args:
        total: number of all pictures, for `done`, which is told how many are encoded.
    Raises:
        FloatingPointError: the tokens are not finite.
    """
    # Off the GPU chunk by chunk: the features of one picture are many times larger than its tokens.
    tokens, features, device = [], [], comfy.model_management.intermediate_device()
    for chunk in chunks:
        seen = encoder.features(chunk)
        tokens += encoder.resample(seen).to(device)
        features += seen.to(device, torch.float32)
        done(len(tokens), total)
    values = torch.stack(tokens)
    check_finite(values, encoder.adapter)
    return values, torch.stack(features)


def resample(ip_adapter: ManagedIPAdapter, features: Tensor) -> Tensor:
    """Tokens `[B, 16, D]` from penultimate features `[B, N, E]`, on the intermediate device.

    Raises:
        ValueError: the features do not have the width that the resampler reads.
        FloatingPointError: the tokens are not finite.
    """
    if features.shape[-1] != ip_adapter.feature_dim:
        raise ValueError(
            f"{ip_adapter.name} expected image features of width {ip_adapter.feature_dim}, got "
            f"{features.shape[-1]}. Use the IP-Adapter that the pictures were encoded with."
        )
    comfy.model_management.load_models_gpu([ip_adapter.resampler])
    done, tokens = progress_bar(), []
    for chunk in features.split(PICTURES_AT_ONCE):
        tokens.append(ip_adapter.resampler.model(chunk.to(ip_adapter.resampler.load_device)))
        done(len(tokens) * PICTURES_AT_ONCE, len(features))
    values = torch.cat(tokens).to(comfy.model_management.intermediate_device())
    check_finite(values, ip_adapter.name)
    return values


def check_finite(tokens: Tensor, name: str) -> None:
    """Raise FloatingPointError for tokens that are not finite."""
    if not tokens.isfinite().all():
        raise FloatingPointError(
            f"Expected finite tokens from {name}, got NaN or infinite values: its file or that of the CLIP "
            "vision model is damaged. Download it again."
        )
