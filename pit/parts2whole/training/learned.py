"""What of Parts2Whole is learned, and how it becomes the published files."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ...files.weights import WeightFileError, write_state
from ...files.whole import not_written, write_whole
from ..files import DECOUPLED, WEIGHT_FILES, save_decoupled
from ..unets import blocks_of
from .recipes import EVERYTHING, LORA, PartsRecipe
from .step import WholeModel, outer_layers

ADAPTED = ("to_q", "to_k", "to_v", "to_out.0")
BASE_LAYER, ADAPTER = ".base_layer.", ".lora_"  # in peft's names
UNET_FOLDERS = ("unet", "reference_unet")
POSE_FOLDER = "pose_guider"


def prepare(model: WholeModel, recipe: PartsRecipe, seed: int) -> WholeModel:
    """Let the recipe's weights be trained, in fp32; frozen UNets take a narrower type with its precision."""
    unets = model.denoiser.unet, model.reference_unet
    model.float().requires_grad_(recipe.trains == EVERYTHING)
    model.pose_guider.requires_grad_(True)
    model.denoiser.decoupled.requires_grad_(True)
    for parameter in outer_layers(model.denoiser):
        parameter.requires_grad = False
    if recipe.trains != EVERYTHING:
        if recipe.precision == "bf16":
            narrow(unets)
        for number, unet in enumerate(unets if recipe.trains == LORA else unets[1:]):
            add_lora(unet, recipe.rank, seed + number)
    if recipe.gradient_checkpointing:
        for unet in unets:
            unet.enable_gradient_checkpointing()
    return model


def narrow(networks: Iterable[nn.Module]) -> None:
    """Keep large weights in 16 bits."""
    for parameter in (each for network in networks for each in network.parameters()):
        # float16 and not bfloat16, which has 3 bits less: they are written as they are here. What norms hold
        # stays in float32, since a CPU takes no other types beside each other.
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()


def add_lora(unet: UNet2DConditionModel, rank: int, seed: int) -> None:
    """Add a LoRA to the attention of a UNet, of which the second factor is zero, in fp32."""
    targets = [
        name for name, module in unet.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(tuple(f".{each}" for each in ADAPTED))
    ]
    settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights="gaussian")
    # peft draws from the global generator. It is seeded here and put back, since ComfyUI and other nodes use
    # it, too; no devices, as this happens on the CPU and asking for them would start CUDA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        inject_adapter_in_model(settings, unet)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad = ADAPTER in name
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


@torch.no_grad()
def merged_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network on the CPU in fp32, with its LoRA added to them."""
    state = {
        key.replace(BASE_LAYER, "."): value.detach().float().cpu()
        for key, value in network.state_dict().items() if ADAPTER not in key
    }
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLayer):
            change = layer.get_delta_weight("default")
            state[f"{name}.weight"] = state[f"{name}.weight"] + change.float().cpu()
    return state


def write_parts(folder: Path, model: WholeModel, metadata: dict[str, str]) -> None:
    """Write the four models in the published layout, which Load Parts2Whole reads.

    Raises:
        WeightFileError: a file cannot be written.
    """
    unets = dict(zip(UNET_FOLDERS, (model.denoiser.unet, model.reference_unet), strict=True))
    try:
        for name in (*UNET_FOLDERS, POSE_FOLDER):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, unet in unets.items():
            write_whole(folder / name / "config.json", unet.to_json_string().encode())
    except OSError as error:
        raise WeightFileError(not_written(folder, error)) from error
    for name, network in {**unets, POSE_FOLDER: model.pose_guider}.items():
        write_state(folder / name / WEIGHT_FILES[0], merged_weights(network), metadata)
    save_decoupled(folder / DECOUPLED, model.denoiser.decoupled, blocks_of(unets["unet"]), metadata)
