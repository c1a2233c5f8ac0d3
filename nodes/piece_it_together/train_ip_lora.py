"""Training an IP-LoRA inside ComfyUI, on the models of the graph."""
from __future__ import annotations

import gc
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor, nn

from ...pit.files.lora import read_lora
from ...pit.files.lora_blocks import parse_block_strengths
from ...pit.files.pictures import describe_skipped
from ...pit.images import contact_sheet, to_pil, to_tensor
from ...pit.ip_adapter.attention import ImageCrossAttention
from ...pit.packages import LORA_TRAINING, check_packages
from ...pit.piece_it_together.ip_lora.cache import LoraCache, RenderEncoders, encode_lora_dataset
from ...pit.piece_it_together.ip_lora.dataset import EXPECTED, MODES, describe_lora_dataset, read_lora_dataset
from ...pit.piece_it_together.ip_lora.recipes import PRESETS, RESULT, LoraRecipe
from ...pit.training.recipes import RunSettings
from ..bridge.feedback import progress_bar
from ..bridge.folders import own_folder
from ..bridge.noise import trained_schedule
from ..bridge.picture_folders import offered_names, why_no_folder
from ..bridge.sockets import IPAdapterType
from ..bridge.stamps import patched_weights_of, weights_of
from ..bridge.training import batch_inputs, last_chart, run, save_every_input, seed_input, steps_input
from .datasets import TRAINING, chosen_folder, dataset_folders
from .encoding import token_encoder
from .ip_lora import FILES, apply_ip_lora
from .parts import CLIP_VISION_TOOLTIP, IP_ADAPTER_TOOLTIP
from .train_prior import WRITTEN
from .types import ManagedIPAdapter

if TYPE_CHECKING:
    from ...pit.piece_it_together.ip_lora.image_prompt import ImagePromptUNet

SAMPLES = "ip_lora_samples"
SHOWN_PIXELS = 256


def pictures_folder(choice: str) -> Path:
    """The folder of one of the choices; FileNotFoundError for anything else."""
    return chosen_folder(
        choice, "Train IP-LoRA", f"Put a folder with {EXPECTED} into ComfyUI's input folder."
    )


def render_encoders(
    model: ModelPatcher, clip: CLIP, vae: VAE, clip_vision, ip_adapter: ManagedIPAdapter
) -> RenderEncoders:
    """VAE, text encoders and image tokens of the graph, for the renderer `model`."""
    def latents(pixels: Tensor) -> Tensor:
        # ComfyUI's VAE takes [B, H, W, 3] in 0..1, where the trainer has [B, 3, H, W] in -1..1.
        encoded = vae.encode((pixels.movedim(1, -1) + 1) / 2)
        # ComfyUI's VAE only gives the mean of its distribution, so the standard deviation is set to zero; it
        # is a few thousandths of the mean.
        scaled = model.model.process_latent_in(encoded).float().cpu()
        return torch.cat([scaled, torch.zeros_like(scaled)], dim=1)

    def text(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        found = [clip.encode_from_tokens(clip.tokenize(each), return_pooled=True) for each in captions]
        context, pooled = (torch.cat(each).float().cpu() for each in zip(*found, strict=True))
        # As published, zeros stand for no words, and not the encoding of "".
        said = torch.tensor([bool(caption) for caption in captions])
        return context * said[:, None, None], pooled * said[:, None]

    stamps = {"VAE": patched_weights_of(vae.patcher), "text encoders": patched_weights_of(clip.patcher)}
    return RenderEncoders(stamps, latents, text, token_encoder(clip_vision, ip_adapter))


def image_prompt_unet(
    model: ModelPatcher, ip_adapter: ManagedIPAdapter, dtype: torch.dtype
) -> ImagePromptUNet:
    """The renderer of the graph for the trainer, with its own copy of the weights.

    Raises:
        ValueError: the model is not of SDXL's kind, or the adapter is for another one.
    """
    # Imported here, because diffusers takes seconds to import.
    from ...pit.piece_it_together.ip_lora.image_prompt import ImagePromptUNet, unet_of_sizes

    # The trainer needs diffusers' UNet: ComfyUI's is built for inference, and has other names for its layers.
    config = model.model.model_config.unet_config
    unet = unet_of_sizes(config)
    names, weights = comfy.utils.unet_to_diffusers(config), model.model_state_dict("diffusion_model.")
    state = {name: weights[f"diffusion_model.{names[name]}"] for name in unet.state_dict()}
    # Copied in any case: the model of the graph must not share memory with one that is being trained. The
    # UNet has no memory of its own yet, so it takes these tensors instead of copying once more.
    state = {name: value.to("cpu", dtype, copy=True) for name, value in state.items()}
    unet.load_state_dict(state, assign=True)
    image = ImageCrossAttention(ip_adapter.token_dim, ip_adapter.cross_attention.model.inner_dims)
    image.load_state_dict(ip_adapter.cross_attention.model_state_dict())
    return ImagePromptUNet(unet, image.to(dtype))


def advanced_inputs() -> list[io.Input]:
    """Inputs that few people need to set."""
    return [
        io.Boolean.Input(
            "on_adapter", default=False, optional=True, advanced=True,
            tooltip="Train the IP-Adapter's own projections as well; only Apply IP-LoRA reads them.",
        ),
        *batch_inputs(),
    ]


class TrainIPLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainIPLora",
            display_name="Train IP-LoRA",
            category=TRAINING,
            description=(
                "Trains an IP-LoRA on pictures, captions and references. Cancel keeps a checkpoint, from "
                "which the same node resumes when it is queued again."
            ),
            search_aliases=["train lora", "ip lora training"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model to train on, as Load Checkpoint gives it."),
                io.Clip.Input("clip", tooltip="Its text encoders."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                IPAdapterType.Input("ip_adapter", tooltip=IP_ADAPTER_TOOLTIP),
                io.Combo.Input(
                    "folder", options=offered_names(dataset_folders()),
                    tooltip="Folder with targets/NAME.png, targets/NAME.txt and refs/NAME_ref.png.",
                ),
                io.Combo.Input(
                    "captions", options=list(MODES), default=next(iter(MODES)),
                    tooltip="How captions are learned: in one of the published forms, or as they are.",
                ),
                io.String.Input(
                    "name", default="my_ip_lora",
                    tooltip="Name of the LoRA; the file is models/loras/NAME/ip_lora.safetensors.",
                ),
                io.Combo.Input(
                    "preset", options=list(PRESETS), default=next(iter(PRESETS)),
                    tooltip="Everything that the other inputs do not set.",
                ),
                steps_input(500),
                io.Int.Input(
                    "rank", default=64, min=1, max=1024, tooltip="Rank of the LoRA; 64 as published.",
                ),
                io.Float.Input(
                    "learning_rate", default=1e-4, min=0.0, max=1.0, step=1e-6, round=1e-9,
                    tooltip="Peak learning rate; 0.0001 as published.",
                ),
                io.Int.Input(
                    "size", default=1024, min=64, max=2048, step=64,
                    tooltip="Pictures are scaled and cropped to squares of this size.",
                ),
                save_every_input("a validation", 50),
                seed_input("the order of samples, the noise and the initial weights"),
                *advanced_inputs(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model with the trained LoRA, for Apply IP+ Tokens.",
                ),
                io.Image.Output(display_name="chart", tooltip="The loss, as a picture."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        return why_no_folder(folder, pictures_folder) or True

    @classmethod
    def fingerprint_inputs(cls, name: str | None, **_: object) -> int:
        return 0 if name is None else WRITTEN.fingerprint(own_folder(FILES.folder_to_write(), name) / RESULT)

    @classmethod
    def execute(
        cls, model: ModelPatcher, clip: CLIP, vae: VAE, clip_vision, ip_adapter: ManagedIPAdapter,
        folder: str, captions: str, name: str, preset: str, steps: int, rank: int, learning_rate: float,
        size: int, save_every: int, seed: int, on_adapter: bool = False, batch: int = 0,
        accumulation: int = 0,
    ) -> io.NodeOutput:
        check_packages("Train IP-LoRA", LORA_TRAINING)
        run_folder = own_folder(FILES.folder_to_write(), name)
        chosen = PRESETS[preset]
        recipe = replace(
            chosen, steps=steps, rank=rank, on_adapter=on_adapter, batch=batch or chosen.batch,
            accumulation=accumulation or chosen.accumulation,
            learning_rate=learning_rate or chosen.learning_rate,
        )
        dataset = read_lora_dataset(pictures_folder(folder), captions)
        samples = own_folder(os.path.join(folder_paths.get_output_directory(), SAMPLES), name)
        encoders = render_encoders(model, clip, vae, clip_vision, ip_adapter)
        cache, skipped = encode_lora_dataset(dataset.samples, samples, encoders, size, progress_bar())
        report = [describe_lora_dataset(dataset), *describe_skipped(skipped, dataset.folder)]
        logging.info("Train IP-LoRA: %s", "\n".join(report))
        # After the encoding, which needs the models, and before their weights are read below: unloading also
        # takes patches out of them again, so that what is stamped and trained on is the model itself.
        comfy.model_management.unload_all_models()
        settings = RunSettings(
            run_folder, seed, save_every, save_every,
            started_from=weights_of(model) + weights_of(ip_adapter.cross_attention),
        )
        try:
            # ComfyUI runs nodes in inference mode, in which weights silently get no gradients.
            with torch.inference_mode(False):
                path = train(cls, model, vae, ip_adapter, cache, recipe, settings)
        finally:
            gc.collect()
            comfy.model_management.soft_empty_cache()
        title = f"{run_folder.name}/{path.name}"
        patched, _ = apply_ip_lora(model, read_lora(path), title, 1.0, parse_block_strengths(""))
        WRITTEN.keep(path)
        chart = to_tensor([last_chart(run_folder)])
        return io.NodeOutput(patched, chart, ui=ui.PreviewImage(chart, cls=cls))


def train(
    node: type[io.ComfyNode], model: ModelPatcher, vae: VAE, ip_adapter: ManagedIPAdapter, cache: LoraCache,
    recipe: LoraRecipe, settings: RunSettings,
) -> Path:
    """Train or resume; returns the file of the LoRA. Cancel leaves a checkpoint."""
    # Imported here, because accelerate and diffusers take seconds to import.
    from ...pit.piece_it_together.ip_lora.samples import sample_latents
    from ...pit.piece_it_together.ip_lora.task import LoraTask
    from ...pit.training.launch import data_parallel, for_device
    from ...pit.training.trainer import Trainer

    cpu = comfy.model_management.get_torch_device().type == "cpu"
    accelerator = data_parallel(cpu)
    recipe = for_device(recipe, accelerator.device)
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    unet = image_prompt_unet(model, ip_adapter, dtype)
    task = LoraTask(unet, trained_schedule(model), cache, recipe, settings)
    trainer = Trainer(task, recipe, settings, accelerator)

    def draw(renderer: nn.Module, device: torch.device) -> Image.Image:
        with trainer.autocast():
            latents = sample_latents(task, renderer, device)
        # Back in ComfyUI's models, which expect inference mode and latents in the scale of the VAE.
        with torch.inference_mode():
            pictures = to_pil(vae.decode(model.model.process_latent_out(latents)))
        pixels = min(SHOWN_PIXELS, pictures[0].width)
        return contact_sheet([each.resize((pixels, pixels)) for each in pictures], len(pictures), pixels)

    return run(node, trainer, draw)
