"""The miniature models as native ComfyUI objects."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.clip_vision
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.taesd.taesd import TAESD
from torch import Tensor

from ...pit.demo.models.autoencoder import CreatureAutoencoder
from ...pit.demo.models.preview import TokenPreview
from ...pit.demo.models.sizes import (
    EMBEDDING_DIM,
    ENCODER_SIZE,
    LATENT_CHANNELS,
    LATENT_FACTOR,
    PICTURE_SIZE,
    SD15_CHANNELS,
    SD15_HEAD_DIM,
    TEXT_G,
    TEXT_L,
    TEXT_SD15,
    TIME_ID_DIM,
    TIME_IDS,
    UNET_CHANNELS,
    UNET_DEPTHS,
    UNET_HEAD_DIM,
    VISION,
)
from ...pit.demo.models.vision import CreatureVision
from ...pit.demo.models.weights import AUTOENCODER, PREVIEW, RENDERER, SD15, read_weights, with_prefix
from ...pit.demo.models.weights import VISION as VISION_FILE
from ..bridge.memory import managed
from ..bridge.widths import WidthFactor
from .size import tell_other_sizes

SD15_DEPTHS = (1, 1, 0)  # transformer blocks on each level; none on the last, as in SD 1.5


def unet_sizes(widths: Sequence[int], depths: Sequence[int], **more: Any) -> dict[str, Any]:
    """ComfyUI's configuration of a UNet with these widths and transformer blocks on each level."""
    return {
        "image_size": 32, "use_spatial_transformer": True, "legacy": False,
        "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS,
        "model_channels": widths[0],
        "channel_mult": [WidthFactor(width, widths[0]) for width in widths],
        "num_res_blocks": [1] * len(widths),
        "transformer_depth": list(depths),
        "transformer_depth_output": [depth for depth in depths for _ in range(2)],
        "use_temporal_attention": False, "use_temporal_resblock": False, **more,
    }


class CreatureLatent(comfy.latent_formats.LatentFormat):
    """Latents of the creatures' autoencoder, whose scale is that of noise already."""

    latent_channels = LATENT_CHANNELS
    spacial_downscale_ratio = LATENT_FACTOR


class SizedSDXL(comfy.model_base.SDXL):
    """SDXL that is told the true size of its pictures."""

    def encode_adm(self, **given: Any) -> Tensor:
        """The vector `[1, A]` that SDXL is told beside the context."""
        noise = given.get("noise")
        # Where nobody tells the size of the picture, ComfyUI takes it to be 8 times that of the latents.
        for name, dim in (("height", 2), ("width", 3)):
            if noise is not None and given.get(name) == 8 * noise.shape[dim]:
                given[name] = LATENT_FACTOR * noise.shape[dim]
        return super().encode_adm(**given)


class Miniature(comfy.supported_models_base.BASE):
    """What both base models have in common."""

    native_size = PICTURE_SIZE
    latent_format = CreatureLatent

    def inpaint_model(self) -> bool:
        # By default, ComfyUI takes all models with more than 4 channels for ones that inpaint.
        return False


class MiniatureSDXL(Miniature, comfy.supported_models.SDXL):
    """SDXL's structure at the creature models' widths."""

    # ComfyUI recognizes models by fixed widths, so no checkpoint of this size would be detected as SDXL. The
    # class is used directly and stays out of ComfyUI's list: the detection of other files does not change.
    unet_config = unet_sizes(
        UNET_CHANNELS, UNET_DEPTHS,
        transformer_depth_middle=UNET_DEPTHS[-1],
        use_linear_in_transformer=True,
        context_dim=TEXT_L["hidden_size"] + TEXT_G["hidden_size"],
        num_classes="sequential",
        adm_in_channels=TEXT_G["hidden_size"] + TIME_IDS * TIME_ID_DIM,
    )
    unet_extra_config = {"num_heads": -1, "num_head_channels": UNET_HEAD_DIM}

    def get_model(
        self, state_dict: Mapping[str, Tensor], prefix: str = "", device: torch.device | None = None
    ) -> SizedSDXL:
        return SizedSDXL(self, model_type=self.model_type(state_dict, prefix), device=device)


class MiniatureSD15(Miniature, comfy.supported_models.SD15):
    """SD 1.5's structure at the creature models' widths."""

    unet_config = unet_sizes(
        SD15_CHANNELS, SD15_DEPTHS,
        transformer_depth_middle=1,
        use_linear_in_transformer=False,
        context_dim=TEXT_SD15["hidden_size"],
        adm_in_channels=None,
    )
    unet_extra_config = {"num_heads": -1, "num_head_channels": SD15_HEAD_DIM}


@dataclass(frozen=True)
class Base:
    """A base model.

    Attributes:
        file: of its UNet and its text encoders.
        kind: ComfyUI's description of it.
        marks: keys by whose presence ComfyUI tells what a UNet predicts; their values are not read.
        text: sizes of the text encoders, under ComfyUI's names.
    """

    file: str
    kind: type[Miniature]
    marks: tuple[str, ...]
    text: dict[str, dict[str, int]]


LIKE_SDXL = Base(RENDERER, MiniatureSDXL, ("v_pred", "ztsnr"), {
    "clip_l_model_config": TEXT_L,
    "clip_g_model_config": TEXT_G | {"projection_dim": TEXT_G["hidden_size"]},
})
LIKE_SD15 = Base(SD15, MiniatureSD15, (), {"clip_l_model_config": TEXT_SD15})


def load_unet(base: Base, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL; ComfyUI may keep it from being loaded piece by piece."""
    # The steps of ComfyUI's own loader of diffusion models, without its detection by widths.
    config = base.kind(base.kind.unet_config)
    names = comfy.utils.unet_to_diffusers(config.unet_config)
    state = {names[key]: value for key, value in with_prefix(read_weights(base.file), "unet.").items()}
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(model_params=comfy.utils.calculate_parameters(state))
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast, device=device)
    model = config.get_model(dict.fromkeys(base.marks, torch.tensor([])), device=offload)
    patchers = comfy.model_patcher
    patcher = (patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher)(
        model, load_device=device, offload_device=offload
    )
    model.load_model_weights(state, assign=patcher.is_dynamic())
    # ComfyUI makes copies with weights of their own by this: to train a LoRA, and for a second GPU.
    patcher.cached_patcher_init = (load_unet, (base,))
    tell_other_sizes(patcher, sheets=base is LIKE_SDXL)
    return patcher


def load_text_encoders(base: Base, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The CLIP."""
    # The file also holds a UNet, whose parameters must not count among those of the text encoders.
    state = read_weights(base.file)
    state = {key: value for key, value in state.items() if key.startswith("clip_")}
    clip = comfy.sd.CLIP(
        base.kind(base.kind.unet_config).clip_target(), parameters=comfy.utils.calculate_parameters(state),
        state_dict=state, model_options=dict(base.text), disable_dynamic=disable_dynamic,
    )
    clip.patcher.cached_patcher_init = (reload_text_encoders, (base,))
    return clip


def reload_text_encoders(base: Base, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the CLIP, with new weights from its file."""
    return load_text_encoders(base, disable_dynamic).patcher


class CreatureVAE(comfy.sd.VAE):
    """ComfyUI's VAE with the miniature autoencoder in place of Stable Diffusion's."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        """`state`: all weights of a `CreatureAutoencoder`."""
        device = comfy.model_management.vae_device()
        # The superclass builds an autoencoder by its weights, which is replaced below: so a tiny one.
        super().__init__(
            sd=TAESD().state_dict(), device=device,
            # Small enough for full precision, in which white is white.
            dtype=comfy.model_management.vae_dtype(device, [torch.float32]),
        )
        self.latent_channels = LATENT_CHANNELS
        self.downscale_ratio = self.upscale_ratio = LATENT_FACTOR
        self.memory_used_encode = memory_used_encode
        self.memory_used_decode = memory_used_decode
        self.first_stage_model = CreatureAutoencoder(
            comfy.ops.disable_weight_init, dtype=self.vae_dtype
        ).eval()
        comfy.model_management.archive_model_dtypes(self.first_stage_model)
        # The superclass's patcher holds the model that is no longer there.
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.first_stage_model.load_state_dict(
            {key: value.to(self.vae_dtype) for key, value in state.items()}, assign=self.patcher.is_dynamic()
        )
        self.size = comfy.model_management.module_size(self.first_stage_model)


# Values for each pixel of a picture that are there at once, as measured, and as much again for what a GPU
# needs to compute a convolution.
ENCODED, DECODED = 120, 150


def memory_used_encode(shape: Sequence[int], dtype: torch.dtype) -> int:
    """The bytes that it takes to encode one of the pictures `[B, 3, H, W]`."""
    return ENCODED * shape[2] * shape[3] * comfy.model_management.dtype_size(dtype)


def memory_used_decode(shape: Sequence[int], dtype: torch.dtype) -> int:
    """The bytes that it takes to decode one of the latents `[B, 12, h, w]`."""
    return DECODED * shape[2] * shape[3] * LATENT_FACTOR**2 * comfy.model_management.dtype_size(dtype)


def load_autoencoder() -> CreatureVAE:
    """The VAE."""
    vae = CreatureVAE(read_weights(AUTOENCODER))
    vae.patcher.cached_patcher_init = (reload_autoencoder, ())
    return vae


def reload_autoencoder(disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the VAE, with new weights from its file."""
    # ComfyUI's VAE does not let us choose its kind of patcher, and its own factory ignores this as well.
    return load_autoencoder().patcher


class CreatureClipVision(comfy.clip_vision.ClipVisionModel):
    """ComfyUI's CLIP_VISION with the miniature's convolutional trunk in place of a vision transformer."""

    def __init__(self) -> None:
        # The superclass builds a vision transformer, which is replaced below: so the smallest one there is,
        # of one layer and one patch. Only type, widths and picture size of this configuration are read later.
        super().__init__({
            "model_type": "clip_vision_model", "image_size": ENCODER_SIZE, "patch_size": ENCODER_SIZE,
            "num_channels": 3, "hidden_size": VISION["channels"][-1], "projection_dim": EMBEDDING_DIM,
            "hidden_act": "gelu", "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 1,
        })
        offload = self.patcher.offload_device
        self.model = CreatureVision(comfy.ops.manual_cast, dtype=self.dtype, device=offload).eval()
        # The superclass's patcher holds the model that is no longer there.
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.model, load_device=self.load_device, offload_device=offload
        )


def load_clip_vision() -> CreatureClipVision:
    """The CLIP_VISION."""
    clip_vision = CreatureClipVision()
    # The superclass's `load_sd` would leave weights random that are missing.
    clip_vision.model.load_state_dict(read_weights(VISION_FILE), assign=clip_vision.patcher.is_dynamic())
    return clip_vision


def load_preview() -> comfy.model_patcher.ModelPatcher:
    """What turns tokens into small pictures while they are sampled."""
    return managed(TokenPreview, read_weights(PREVIEW))
