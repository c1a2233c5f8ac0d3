"""The creatures' renderer as IP-LoRAs are trained on it: the shipped weights and the encoders around them."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ...files.records import adapter_stamp
from ...files.whole import sha256_of
from ...ip_adapter.encoder import TokenEncoder
from ...ip_adapter.files import load_ip_adapter
from ...piece_it_together.ip_lora.cache import RenderEncoders
from ...piece_it_together.ip_lora.image_prompt import ImagePromptUNet
from ...training.denoising import noise_schedule
from .loading import load_creature_autoencoder, load_creature_vision
from .sizes import ENCODER_SIZE
from .text import TextEncoders
from .unet import PREDICTION, build_unet
from .weights import IP_ADAPTER, RENDERER, VISION, float_weights, weight_file, with_prefix


def creature_renderer() -> tuple[ImagePromptUNet, DDPMScheduler]:
    """The UNet with its image cross-attention, in fp32, and its noise schedule.

    Raises:
        WeightFileError: a file is missing, damaged or of another version.
    """
    unet = build_unet()
    unet.load_state_dict(with_prefix(float_weights(RENDERER), "unet."))
    image = load_ip_adapter(weight_file(IP_ADAPTER)).cross_attention.float()
    return ImagePromptUNet(unet.eval(), image), noise_schedule(PREDICTION, zero_snr=True)


def creature_render_encoders() -> RenderEncoders:
    """What encodes pictures, captions and references for the renderer; errors as in `creature_renderer`."""
    text = TextEncoders()
    text.load_comfyui_state(float_weights(RENDERER))
    text.eval().requires_grad_(False)
    latents = load_creature_autoencoder().mean_and_spread

    def words(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        try:
            return text(list(captions))
        except KeyError as error:
            raise ValueError(
                f"The miniature text encoders do not know the word {error}. Write captions of the words in "
                "pit/demo/models/words.py."
            ) from error

    return RenderEncoders({"creature models": creature_stamp()}, latents, words, creature_encoder())


def creature_stamp() -> str:
    """A text that is different for every version of the renderer, the IP-Adapter and the image encoder."""
    return "".join(sha256_of(weight_file(name)) for name in (RENDERER, IP_ADAPTER, VISION))


def creature_encoder(device: torch.device | str = "cpu") -> TokenEncoder:
    """The image encoder and resampler of the shipped creature models, in fp32.

    Raises:
        WeightFileError: a file is missing, damaged or of another version.
    """
    vision, resampler = load_creature_vision(device), load_ip_adapter(weight_file(IP_ADAPTER)).resampler
    resampler.to(device).float().eval().requires_grad_(False)
    stamp = adapter_stamp(resampler.state_dict())
    return TokenEncoder(
        VISION, IP_ADAPTER, ENCODER_SIZE, lambda pixels: vision.features(pixels.to(device)), resampler, stamp
    )
