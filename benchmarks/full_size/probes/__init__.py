"""Nodes for the benchmark alone: they write down what a graph computes, and the layout of an SDXL file."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import comfy.ldm.models.autoencoder
import comfy.ldm.modules.diffusionmodules.openaimodel
import comfy.ops
import comfy.sdxl_clip
import comfy.supported_models
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.latest import ComfyExtension, io
from safetensors.torch import save_file
from torch import Tensor

UNET = {
    "image_size": 32, "use_spatial_transformer": True, "legacy": False, "num_classes": "sequential",
    "adm_in_channels": 2816, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_linear_in_transformer": True, "context_dim": 2048, "num_heads": -1, "num_head_channels": 64,
}
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
    "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}


def record(folder: str, name: str, **tensors: Tensor) -> None:
    """Write tensors to a file of this name with the next free number."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    number = len(list(Path(folder).glob(f"{name}_*.safetensors")))
    # Cloned, because ComfyUI computes with tensors that cannot be told apart from their views later on.
    copies = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
    save_file(copies, Path(folder) / f"{name}_{number}.safetensors")


def watch_vision(clip_vision, folder: str, name: str):
    """Record the pixels that the encoder sees, and its features."""
    def hook(module, args, given: dict, output: tuple) -> None:
        record(folder, name, pixels=given["pixel_values"], features=output[1])

    clip_vision.model.register_forward_hook(hook, with_kwargs=True)
    return clip_vision


def watch_adapter(adapter, folder: str, name: str):
    """Record the features that the resampler sees, and its tokens."""
    def hook(module, args: tuple, output: Tensor) -> None:
        record(folder, name, features=args[0], tokens=output)

    adapter.resampler.model.register_forward_hook(hook)
    return adapter


def in_float32(prior, folder: str, name: str):
    """The same prior, computing in float32 also where the node chooses bfloat16."""
    return replace(prior, dtype=torch.float32)


def watch_unet(model, folder: str, name: str):
    """A clone that records every call of the UNet: its inputs, its output, and 0 for positive rows."""
    def wrapper(call, x: Tensor, t: Tensor, context: Tensor, y: Tensor, control, options: dict, **more):
        output = call(x, t, context, y, control, options, **more)
        roles = torch.tensor(options["cond_or_uncond"])
        record(folder, name, x=x, t=t, context=context, y=y, roles=roles, output=output)
        return output

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "full_size", wrapper)
    return watched


def write_values(value, folder: str, name: str):
    """Record all tensors of a latent, or of what travels between our nodes."""
    fields = value if isinstance(value, dict) else vars(value)
    record(folder, name, **{key: each for key, each in fields.items() if isinstance(each, Tensor)})
    return value


PROBES: dict[str, Callable] = {
    "vision": watch_vision, "adapter": watch_adapter, "prior": in_float32, "unet": watch_unet,
    "values": write_values,
}


class Probe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FullSize_Probe", is_output_node=True,
            inputs=[
                io.AnyType.Input("value"), io.Combo.Input("kind", options=list(PROBES)),
                io.String.Input("folder"), io.String.Input("name"),
            ],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, value, kind: str, folder: str, name: str) -> io.NodeOutput:
        return io.NodeOutput(PROBES[kind](value, folder, name))


def sdxl_shapes() -> dict[str, list[int]]:
    """The names and shapes of the weights of an SDXL in a single file, as ComfyUI itself would save it."""
    operations, config = comfy.ops.manual_cast, comfy.supported_models.SDXL(UNET)
    build = comfy.ldm.modules.diffusionmodules.openaimodel.UNetModel
    unet = build(**UNET, device="meta", dtype=torch.float16, operations=operations).state_dict()
    with torch.device("meta"):
        vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict()
        text = comfy.sdxl_clip.SDXLClipModel(device="meta", dtype=torch.float16).state_dict()
    state = config.process_unet_state_dict_for_saving(unet)
    state |= config.process_vae_state_dict_for_saving(vae)
    state |= config.process_clip_state_dict_for_saving(text)
    return {key: list(value.shape) for key, value in state.items() if value.is_floating_point()}


class Shapes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FullSize_Shapes", is_output_node=True, inputs=[io.String.Input("file")], outputs=[],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        Path(file).write_text(json.dumps(sdxl_shapes()), encoding="utf-8")
        return io.NodeOutput()


class FullSize(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [Probe, Shapes]


async def comfy_entrypoint() -> FullSize:
    return FullSize()
