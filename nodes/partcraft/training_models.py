"""The models of the graph as the training of part words takes them."""
from __future__ import annotations

from collections.abc import Sequence

import comfy.clip_model
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from ...pit.partcraft.training.cache import PartEncoders
from ..bridge.dino import features_of
from ..bridge.stamps import patched_weights_of, weights_of
from ..bridge.training_copies import copied_weights, fill_unet
from .text import text_encoders

NODE = "Train PartCraft"
ENCODERS = {1: ["clip_l"], 2: ["clip_l", "clip_g"]}
SIZES = {1: 512, 2: 1024}  # of pictures, by the number of text encoders


def check_base(model: ModelPatcher, clip: CLIP | None) -> list[str]:
    """The names of the text encoders of an SD 1.5 or SDXL. Raises ValueError for another base."""
    # Imported here, because diffusers takes seconds to import.
    from ...pit.training.unets import like_sd15, like_sdxl

    config = getattr(getattr(model.model, "model_config", None), "unet_config", None) or {}
    unet = "num_res_blocks" in config and "transformer_depth" in config
    number = 1 if unet and like_sd15(config) else 2 if unet and like_sdxl(config) else 0
    if not number or config["in_channels"] != config["out_channels"]:
        raise ValueError(
            f"{NODE} expected a text-to-image model of SD 1.5 or SDXL, got another kind. Load one of these."
        )
    names = text_encoders(clip, NODE)
    if names != ENCODERS[number]:
        raise ValueError(
            f"{NODE} expected the CLIP of the model, with {' and '.join(ENCODERS[number])}, got one with "
            f"{' and '.join(names)}. Connect the CLIP of the same Load Checkpoint."
        )
    return names


def picture_size(model: ModelPatcher, names: Sequence[str]) -> int:
    """The side of the pictures that a model with these text encoders draws."""
    # Of the class: ComfyUI logs a warning when a description of a model is asked for what it lacks.
    return getattr(type(model.model.model_config), "native_size", SIZES[len(names)])


def encoders_of(model: ModelPatcher, vae: VAE, clip_vision) -> PartEncoders:
    """What encodes pictures, from the models of the graph."""
    def latents(pictures: Tensor) -> Tensor:
        # ComfyUI's VAE takes [B, H, W, 3] in 0..1, where the trainer has [B, 3, H, W] in -1..1. It only gives
        # the mean of its distribution, so the deviation is set to zero; it is a few thousandths of the mean.
        mean = model.model.process_latent_in(vae.encode((pictures.movedim(1, -1) + 1) / 2)).float().cpu()
        return torch.cat([mean, torch.zeros_like(mean)], dim=1)

    def features(pixels: Tensor) -> Tensor:
        return features_of(clip_vision, pixels)

    # The latents are scaled for the model.
    models = {
        "VAE": f"{patched_weights_of(vae.patcher)} {model.model.latent_format.scale_factor}",
        "DINOv2": weights_of(clip_vision.patcher),
    }
    return PartEncoders(models, latents, features, clip_vision.image_size)


def unet_of(model: ModelPatcher, dtype: torch.dtype) -> nn.Module:
    """The UNet of the graph for the trainer, with its own copy of the patched weights."""
    from ...pit.training.unets import unet_of_sizes

    unet = unet_of_sizes(model.model.model_config.unet_config)
    fill_unet(unet, model, dtype)
    return unet


def text_encoder_of(clip: CLIP, name: str) -> nn.Module:
    """A text encoder of the graph for the trainer, likewise."""
    from ...pit.partcraft.training.base import text_encoder

    transformer = getattr(clip.cond_stage_model, name).transformer
    layers, table = transformer.text_model.encoder.layers, transformer.get_input_embeddings().weight
    kinds = {function: kind for kind, function in comfy.clip_model.ACTIVATIONS.items()}
    config = {
        "vocab_size": table.shape[0], "hidden_size": table.shape[1], "num_hidden_layers": len(layers),
        "intermediate_size": layers[0].mlp.fc1.weight.shape[0],
        "num_attention_heads": layers[0].self_attn.heads, "hidden_act": kinds[layers[0].mlp.activation],
        "max_position_embeddings": transformer.text_model.embeddings.position_embedding.weight.shape[0],
    }
    prefix = f"{name}.transformer."
    keys = [prefix + key for key in transformer.state_dict()]
    weights = copied_weights(clip.patcher, keys, torch.float32)
    return text_encoder(config, {key.removeprefix(prefix): value for key, value in weights.items()})
