"""The decoder of Kandinsky 2.2 as ComfyUI's MODEL and VAE, which the stock sampler and decoder draw with."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import comfy.utils
import torch
from torch import Tensor, nn

from ...pit.pops.kandinsky import (
    FIRST_BETA,
    LAST_BETA,
    LATENT_PIXELS,
    TRAINING_STEPS,
    load_movq,
    load_unet,
    noise_prediction,
)
from ..bridge.errors import InputProblem
from ..bridge.memory import castable
from ..bridge.noise import with_published_start
from ..bridge.rows import check_images

SOURCE = "image_embedding"
"""The name under which a conditioning says what embeddings it holds."""
NATIVE_SIZE = 512


class KandinskyLatent(comfy.latent_formats.LatentFormat):
    """As the autoencoder gives them: other latents are scaled for their UNet, these are not."""

    spacial_downscale_ratio = LATENT_PIXELS


class Kandinsky22(comfy.supported_models_base.BASE):
    """What ComfyUI asks of a kind of models. It finds none of them by itself: this one has its own loader."""

    native_size = NATIVE_SIZE
    unet_config = {"disable_unet_model_creation": True, "in_channels": 4}
    unet_extra_config = {}
    # ComfyUI calls this schedule by what it does to the deviations: the variances are linear.
    sampling_settings = {
        "beta_schedule": "sqrt_linear", "linear_start": FIRST_BETA, "linear_end": LAST_BETA,
        "timesteps": TRAINING_STEPS,
    }
    latent_format = KandinskyLatent
    memory_usage_factor = 1.2  # that of SD 1.5, whose UNet has 320 channels in place of 384


class KandinskyUNet(nn.Module):
    """diffusers' UNet, called as ComfyUI calls its own."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def embedding_dim(self) -> int:
        """Width of the image embeddings that it reads."""
        return self.unet.add_embedding.image_proj.in_features

    def forward(
        self, x: Tensor, timesteps: Tensor, context: None = None, control: object = None,
        transformer_options: dict[str, Any] | None = None, *, image_embeds: Tensor,
    ) -> Tensor:
        """The noise in latents `[B, 4, h, w]`. Raises InputProblem for what this UNet cannot take."""
        if control is not None:
            raise InputProblem(
                "The decoder of Kandinsky expected no ControlNet, got one: there are none for it here. Use "
                "SDXL with Embedding to IP+ Tokens, or take the ControlNet out of the graph."
            )
        # Each level halves them, and diffusers' way back up would not fit where a half was rounded.
        factor = 2 ** (len(self.unet.config.block_out_channels) - 1)
        if any(side % factor for side in x.shape[-2:]):
            height, width = (LATENT_PIXELS * side for side in x.shape[-2:])
            raise InputProblem(
                f"The decoder of Kandinsky expected sides that are multiples of {LATENT_PIXELS * factor} "
                f"pixels, got {width} x {height}. Change the size of the empty latent, or of the area."
            )
        return noise_prediction(self.unet, x, timesteps, image_embeds)


class EmbeddingRows(comfy.conds.CONDRegular):
    """An embedding for all images `[1, E]`, or one for each `[B, E]`, dealt out one after another."""

    def process_cond(self, batch_size: int, **area: Any) -> EmbeddingRows:
        # ComfyUI would cut off what is too many.
        if len(self.cond) > 1:
            check_images(len(self.cond), batch_size)
        return super().process_cond(batch_size, **area)


class KandinskyModel(comfy.model_base.BaseModel):
    """The UNet with its schedule, and what it takes from a conditioning."""

    def __init__(self, config: Kandinsky22, unet: KandinskyUNet, device: torch.device):
        super().__init__(config, device=device)
        self.diffusion_model = unet

    def extra_conds(self, **given: Any) -> dict[str, comfy.conds.CONDRegular]:
        """The embeddings by the name that the UNet has for them. Raises InputProblem if there are none."""
        found, source = given.get("cross_attn"), given.get(SOURCE)
        if found is None or source is None:
            raise InputProblem(
                "The decoder of Kandinsky expected an image embedding as its prompt, got a conditioning of "
                "another kind, such as words. Connect both outputs of Kandinsky Conditioning."
            )
        width = self.diffusion_model.embedding_dim
        if found.shape[-1] != width:
            raise InputProblem(
                f"The decoder of Kandinsky expected image embeddings of width {width}, got those from "
                f"{source} of width {found.shape[-1]}. Use the image encoder that it was trained with "
                "(ViT-bigG for the published one)."
            )
        if found.shape[1] != 1:
            raise InputProblem(
                f"The decoder of Kandinsky expected one embedding for each picture, got {found.shape[1]}. "
                "Blend them in place of concatenating their conditionings."
            )
        return {"image_embeds": EmbeddingRows(found[:, 0].to(given["device"]))}


class MovqNetwork(nn.Module):
    """diffusers' autoencoder, called as ComfyUI calls its own; nothing is quantized."""

    def __init__(self, movq: nn.Module):
        super().__init__()
        self.movq = movq

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents `[B, 4, h, w]` of pictures in -1..1."""
        return self.movq.encode(pixels, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in -1..1 `[B, 3, H, W]`."""
        return self.movq.decode(latents, force_not_quantize=True, return_dict=False)[0]


class MovqVAE(comfy.sd.VAE):
    """ComfyUI's VAE around an autoencoder that has no place in its list."""

    def __init__(self, movq: nn.Module) -> None:
        # The superclass tells a VAE by its weights, and warns of none. This is the smallest one it knows: a
        # single number. Devices and dtypes are chosen there, and the rest is replaced below.
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)})
        self.downscale_ratio = self.upscale_ratio = LATENT_PIXELS
        self.latent_channels = movq.config.latent_channels
        self.memory_used_encode = lambda shape, dtype: memory_used(shape, dtype)
        self.memory_used_decode = lambda shape, dtype: LATENT_PIXELS**2 * memory_used(shape, dtype)
        self.disable_offload = False
        offload = comfy.model_management.vae_offload_device()
        self.first_stage_model = castable(MovqNetwork(movq).to(offload, self.vae_dtype))
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=offload
        )
        self.size = None
        self.model_size()


VALUES_PER_PIXEL = 2200  # that live at once: what ComfyUI counts for autoencoders of these widths


def memory_used(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Bytes that an encoding of pictures `[B, C, H, W]` uses for each of them, and a decoding to them."""
    return VALUES_PER_PIXEL * shape[-2] * shape[-1] * comfy.model_management.dtype_size(dtype)


def load_decoder(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The MODEL; WeightFileError for any other file. ComfyUI may keep it from being loaded piece by piece."""
    unet, config = KandinskyUNet(load_unet(path)), Kandinsky22(Kandinsky22.unet_config)
    management = comfy.model_management
    device, offload = management.get_torch_device(), management.unet_offload_device()
    dtype = management.unet_dtype(model_params=comfy.utils.calculate_parameters(unet.state_dict()))
    cast = management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast, device=device)
    model = KandinskyModel(config, castable(unet.to(offload, dtype)), offload)
    patchers = comfy.model_patcher
    patcher = (patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher)(
        model, load_device=device, offload_device=offload
    )
    # ComfyUI makes copies with weights of their own by this: to train a LoRA, and for a second GPU.
    patcher.cached_patcher_init = (load_decoder, (path,))
    return with_published_start(patcher)


def load_autoencoder(path: Path) -> MovqVAE:
    """The VAE; WeightFileError for any other file or folder."""
    vae = MovqVAE(load_movq(path))
    # ComfyUI's VAE does not let us choose its kind of patcher, and its own factory ignores this as well.
    vae.patcher.cached_patcher_init = (reload_autoencoder, (path,))
    return vae


def reload_autoencoder(path: Path, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the VAE, with new weights from its file."""
    return load_autoencoder(path).patcher
