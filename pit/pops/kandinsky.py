"""The decoder of Kandinsky 2.2, from image embeddings to pictures. The networks are diffusers' own classes.

Its UNet reads the embedding alone: 32 tokens of it by cross-attention, and once more beside the time. Its
autoencoder is a MoVQ (arXiv 2209.09002), decoded without quantizing.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..files.checked import StrPath, another_file, filled, shapes, sound, without_wrappers
from ..files.plain_json import read_json
from ..files.published import file_kind
from ..files.weights import WeightFileError, read_state
from ..messages import shortened

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel, VQModel

PIXELS, LATENT_PIXELS = 64, 8  # pictures are multiples of the first, which the latents hold with the second
TRAINING_STEPS, FIRST_BETA, LAST_BETA = 1000, 0.00085, 0.012  # a linear schedule
GUIDANCE, STEPS = 4.0, 50  # as published
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# What the UNet reads beside the latents, by the name that its configuration has for it.
PROMPTS = {"encoder_hid_dim_type": "image_proj", "addition_embed_type": "image"}
MOST_BLOCKS, MOST_LAYERS = 16, 64  # in a configuration, which may come from anybody
UNET_SIGN, MOVQ_SIGN = "add_embedding.image_proj.weight", "quantize.embedding.weight"

# The published sizes, for weights without their config.json.
UNET = {
    "sample_size": 64, "in_channels": 4, "out_channels": 8, "addition_embed_type": "image",
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "block_out_channels": [384, 768, 1152, 1536],
    "layers_per_block": 3, "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj",
    "cross_attention_dim": 768, "attention_head_dim": 64, "resnet_time_scale_shift": "scale_shift",
}
MOVQ = {
    "block_out_channels": [128, 256, 256, 512], "layers_per_block": 2, "norm_type": "spatial",
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "latent_channels": 4, "num_vq_embeddings": 16384, "vq_embed_dim": 4,
}


def latent_size(pixels: int) -> int:
    """The side of the latents of a picture, rounded up to whole multiples of 64 pixels."""
    return math.ceil(pixels / PIXELS) * LATENT_PIXELS


def betas() -> Tensor:
    """Variances of the noise that each of the 1000 training steps adds."""
    return torch.linspace(FIRST_BETA, LAST_BETA, TRAINING_STEPS, dtype=torch.float32)


def noise_prediction(unet: UNet2DConditionModel, latents: Tensor, t: Tensor, embeddings: Tensor) -> Tensor:
    """The noise in latents `[B, 4, h, w]` at the timestep t under raw image embeddings `[B, E]`."""
    conditions = {"image_embeds": embeddings.to(latents)}
    found = unet(latents, t, encoder_hidden_states=None, added_cond_kwargs=conditions, return_dict=False)[0]
    # Beside the noise stands a variance, which the published sampler leaves alone.
    return found[:, :latents.shape[1]]


def guided_prediction(
    unet: UNet2DConditionModel, latents: Tensor, t: Tensor, embeddings: Tensor, negative: Tensor,
    scale: float = GUIDANCE,
) -> Tensor:
    """The noise under guidance, with both branches in one batch.

    Args:
        embeddings: raw `[B, E]`.
        negative: raw embedding of all-zero pixel values, `[1, E]` or `[B, E]`.
    """
    if scale <= 1:
        return noise_prediction(unet, latents, t, embeddings)
    both = torch.cat([negative.expand(len(latents), -1), embeddings])
    away, toward = noise_prediction(unet, latents.repeat(2, 1, 1, 1), t, both).chunk(2)
    return away + scale * (toward - away)


def decoded(movq: VQModel, latents: Tensor) -> Tensor:
    """Pictures `[B, H, W, 3]` in 0..1 from latents `[B, 4, h, w]`."""
    # Other latents of diffusers are scaled for their UNet; these are not.
    pictures = movq.decode(latents, force_not_quantize=True, return_dict=False)[0]
    return (pictures / 2 + 0.5).clamp(0, 1).movedim(1, -1)


def load_unet(path: StrPath) -> UNet2DConditionModel:
    """The UNet in a file, or in a folder of diffusers: that of the whole pipeline, or its `unet`.

    Raises:
        WeightFileError: it is missing, damaged or of another kind.
    """
    from diffusers import UNet2DConditionModel  # takes seconds

    path = _weights_in(Path(path), "unet")
    unet = _loaded(UNet2DConditionModel, path, UNET, UNET_SIGN)
    _check_prompts(path, unet.config)
    return unet


def load_movq(path: StrPath) -> VQModel:
    """The autoencoder in a file, or in a folder of diffusers, like `load_unet`."""
    from diffusers import VQModel  # takes seconds

    return _loaded(VQModel, _weights_in(Path(path), "movq"), MOVQ, MOVQ_SIGN)


def _weights_in(path: Path, part: str) -> Path:
    if not path.is_dir():
        return path
    places = [path / folder / name for folder in (part, "") for name in WEIGHTS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise WeightFileError(
            f"{path}: expected a folder with the decoder of Kandinsky 2.2, got one without "
            f"{part}/{WEIGHTS[0]}. {file_kind('kandinsky_decoder').where_to_get}"
        )
    return found


def _loaded(network: Any, path: Path, published: Mapping[str, Any], sign: str) -> nn.Module:
    """A network of diffusers with the weights of a file, complete and finite."""
    state = without_wrappers(read_state(path)[0])
    if sign not in state:
        raise another_file(path, state, "a decoder of Kandinsky 2.2")
    module = _empty(network, path.with_name("config.json"), published)
    return filled(module, sound(path, state, shapes(module))).requires_grad_(False)


def _check_prompts(path: Path, config: Mapping[str, Any]) -> None:
    """Raise WeightFileError for a sibling: those for inpainting and for depth maps, and that of 2.1."""
    wanted = {"in_channels": UNET["in_channels"], **PROMPTS}
    found = {name: config.get(name) for name in wanted}
    if found != wanted or config["out_channels"] < wanted["in_channels"]:
        described = ", ".join(f"{name} {shortened(str(value), 60)}" for name, value in found.items())
        raise WeightFileError(
            f"{path}: expected the decoder of Kandinsky 2.2 that draws from an image embedding alone, got "
            f"one with {described}: it is for inpainting, for depth maps, or of another version. "
            f"{file_kind('kandinsky_decoder').where_to_get}"
        )


def _empty(network: Any, path: Path, published: Mapping[str, Any]) -> nn.Module:
    """The network on the meta device, of the sizes in its `config.json` or else the published ones."""
    try:
        config = read_json(path) if path.is_file() else dict(published)
        if not isinstance(config, dict):  # diffusers would take a text for the name of a model to fetch
            raise ValueError(f"a {type(config).__name__} in place of named values")
        _check_depth(config)
        with torch.device("meta"):
            return network.from_config(config)
    except Exception as error:  # of sizes that do not fit together, diffusers raises errors of every kind
        raise WeightFileError(
            f"{path}: expected the configuration of a decoder of Kandinsky 2.2, got one that diffusers "
            f"cannot build ({shortened(str(error), 300)}). Fetch the file again."
        ) from error


def _check_depth(config: Mapping[str, Any]) -> None:
    """Raise ValueError for more blocks and layers than any decoder has, which would take forever to build."""
    for name, value in config.items():
        values = value if isinstance(value, list) else [value]
        if len(values) > MOST_BLOCKS:
            raise ValueError(f"{len(values)} values of {shortened(name, 60)}, more than {MOST_BLOCKS}")
        # Widths are harmless: on the meta device they take no memory.
        most = max((each for each in values if isinstance(each, int | float)), default=0)
        if "layers" in name and most > MOST_LAYERS:
            raise ValueError(f"{most} {shortened(name, 60)}, more than {MOST_LAYERS}")
