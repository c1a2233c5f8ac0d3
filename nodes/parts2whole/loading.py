"""The loader: a published folder, or files from anywhere, as a MODEL and what reads pictures for it."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy.latent_formats import LatentFormat
from comfy_api.latest import io
from torch import Tensor, nn

from ...pit.ip_adapter.attention import ImageCrossAttention
from ...pit.messages import ShortError, quoted
from ...pit.packages import check_packages
from ...pit.parts2whole.pose import PoseGuider
from ...pit.parts2whole.published import DECOUPLED, FOLDER, NAME
from ...pit.parts2whole.schedule import BETA_END, BETA_START, COMFYUI_NAME
from ..bridge.feedback import progress_bar
from ..bridge.folders import ModelFiles, file_stamp, same_but_for_separators
from ..bridge.memory import managed
from ..bridge.widths import WidthFactor
from .types import CATEGORY, ManagedParts2Whole, Parts2WholeType, latents_of

if TYPE_CHECKING:
    from ...pit.parts2whole.files import Parts2Whole

FILES = ModelFiles(DECOUPLED.name)
DECOUPLED_FILE = DECOUPLED.published[0].path
# As the published folder calls them, and in the order in which they are loaded.
PARTS = ("unet", "reference_unet", "pose_guider", DECOUPLED_FILE)
INPUTS = ("unet", "reference_unet", "pose_guider", "decoupled")
FROM_FOLDER = "from the folder"
NORM_GROUPS = 32  # of all UNets in ComfyUI
SAMPLING = {"beta_schedule": COMFYUI_NAME, "linear_start": BETA_START, "linear_end": BETA_END}


class Held(nn.Module):
    """Around a network of diffusers or transformers, whose own `device` ComfyUI could not set."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network


class Parts2WholeUNet(comfy.supported_models.SD15):
    """Stable Diffusion 1.5 of any width, with the schedule that Parts2Whole was trained with.

    The class is used directly and stays out of ComfyUI's list, so that other files are detected as before.
    Nodes that change the sampling read the schedule here, too.
    """

    sampling_settings = SAMPLING

    def inpaint_model(self) -> bool:
        # By default, ComfyUI takes all models with more than 4 channels for ones that inpaint.
        return self.unet_config["in_channels"] > self.latent_format.latent_channels


def folders() -> list[str]:
    """Folders in models/parts2whole that hold a published part, whether they are complete or not."""
    found = set()
    for name in FILES.listed():
        path = Path(name.replace("\\", "/"))
        if path.name == DECOUPLED_FILE:
            found.add(path.parent)
        elif path.parent.name in PARTS:
            found.add(path.parent.parent)
    return sorted(map(str, found))


def folder_options() -> list[str]:
    """What the loader offers; if there is nothing at all, one entry says so."""
    return folders() or [f"no folder in models/{FOLDER}"]


def why_missing(name: str | None) -> str | None:
    """None if there is a folder of this name, or the name comes over a link; else what to do."""
    if name is None or same_but_for_separators(name, folders()) is not None:
        return None
    return (
        f"Load Parts2Whole expected a folder in models/{FOLDER} with {', '.join(PARTS)}, got {name!r:.200}. "
        f"Run `python -m pit download {NAME} --models ComfyUI/models` in the folder of this pack. Looked in: "
        f"{', '.join(folder_paths.get_folder_paths(FOLDER))}."
    )


def folder_path(name: str) -> Path:
    """The folder of this name that is offered. Raises FileNotFoundError with the text of `why_missing`."""
    here = same_but_for_separators(name, folders())
    if here is None:
        raise FileNotFoundError(why_missing(name))
    places = [Path(root, here) for root in folder_paths.get_folder_paths(FOLDER)]
    return next((place for place in places if any((place / part).exists() for part in PARTS)), places[0])


def chosen_paths(folder: str, files: Sequence[str]) -> list[Path]:
    """The path of each part: a file that was chosen, or what the folder holds.

    Raises:
        FileNotFoundError: a file or the folder is not offered.
        WeightFileError: the folder lacks a part.
    """
    from ...pit.parts2whole.files import check_folder

    wanted = [part for part, file in zip(PARTS, files, strict=True) if file == FROM_FOLDER]
    root = folder_path(folder) if wanted else Path()
    check_folder(root, wanted)
    return [root / part if file == FROM_FOLDER else FILES.path(file)
            for part, file in zip(PARTS, files, strict=True)]


def comfyui_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of a UNet in ComfyUI's names, from those in diffusers'. Raises ValueError for other sizes."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    if config["norm_num_groups"] != NORM_GROUPS or any(width % NORM_GROUPS for width in widths):
        raise ShortError(
            f"Expected a denoising UNet with {NORM_GROUPS} groups in its norms and widths that are multiples "
            f"of them, as ComfyUI has them, got {config['norm_num_groups']} groups and the widths "
            f"{quoted(list(widths))}. Use another model."
        )
    down, up = ([int(kind.startswith("CrossAttn")) for kind in config[f"{way}_block_types"]]
                for way in ("down", "up"))
    return {
        "image_size": 32, "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None,
        "in_channels": config["in_channels"], "out_channels": config["out_channels"],
        "model_channels": widths[0], "num_res_blocks": [layers] * len(widths),
        "channel_mult": [factor_of(width, widths[0]) for width in widths],
        "transformer_depth": [depth for depth in down for _ in range(layers)],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [depth for depth in up[::-1] for _ in range(layers + 1)],
        "use_linear_in_transformer": False, "context_dim": config["cross_attention_dim"],
        "use_temporal_attention": False, "use_temporal_resblock": False,
    }


def factor_of(width: int, first: int) -> int | WidthFactor:
    """How many times as wide as the first level another one is."""
    return WidthFactor(width, first) if width % first else width // first


def heads_of(config: Mapping[str, Any]) -> dict[str, int]:
    """The heads of a UNet in ComfyUI's names: how many, or how wide. Raises ValueError for other heads."""
    heads = config["attention_head_dim"]  # in spite of its name, how many
    if isinstance(heads, int):
        return {"num_heads": heads, "num_head_channels": -1}
    widths = {width / number for width, number in zip(config["block_out_channels"], heads, strict=True)}
    if len(widths) > 1:
        raise ShortError(
            "Expected a denoising UNet with as many heads on all levels, or with heads of one width, got "
            f"{quoted(list(heads))} heads. Use another model."
        )
    return {"num_heads": -1, "num_head_channels": int(widths.pop())}


def model_of(
    unet: nn.Module, path: Path, latents: LatentFormat, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL with the weights of a denoising UNet, which were read from this path.

    Raises:
        ValueError: ComfyUI's UNet cannot have its sizes.
    """
    patcher = model_of_kind(unet, Parts2WholeUNet, latents, disable_dynamic)
    # ComfyUI makes copies with weights of their own by this: to compile, to train, and for a second GPU.
    patcher.cached_patcher_init = (reload_model, (path, latents))
    return patcher


def model_of_kind(
    unet: nn.Module, kind: type[Parts2WholeUNet], latents: LatentFormat, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL with the weights of a denoising UNet, by a description of it; errors as in `model_of`."""
    sizes = comfyui_config(unet.config)
    names, state = comfy.utils.unet_to_diffusers(sizes), unet.state_dict()
    # The steps of ComfyUI's own loader of diffusion models, without its detection by widths.
    config = kind(sizes)
    config.latent_format = latents
    config.unet_config |= heads_of(unet.config)
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = unet_dtype(state)
    cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast, device=device)
    model = config.get_model({}, "", device=offload)
    patchers = comfy.model_patcher
    patcher = (patchers.ModelPatcher if disable_dynamic else patchers.CoreModelPatcher)(
        model, load_device=device, offload_device=offload
    )
    weights = {names[key]: value.to(dtype) for key, value in state.items()}
    model.load_model_weights(weights, assign=patcher.is_dynamic())
    return patcher


def reload_model(
    path: Path, latents: LatentFormat, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The MODEL, with new weights from its file."""
    from ...pit.parts2whole.files import load_unet

    return model_of(load_unet(path), path, latents, disable_dynamic)


def unet_dtype(state: Mapping[str, Tensor]) -> torch.dtype:
    """What ComfyUI would keep a UNet with these weights in."""
    return comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state), weight_dtype=comfy.utils.weight_dtype(state),
    )


def managed_whole(
    network: nn.Module, dtype: torch.dtype | None = None
) -> comfy.model_patcher.ModelPatcher:
    """A network of another library, as `network` of a module that ComfyUI loads, offloads and frees.

    Args:
        dtype: what it computes in, by default what a UNet would.
    """
    device = comfy.model_management.get_torch_device()
    # Its layers do not cast weights as they run, as ComfyUI's own do, and so have the type to compute in.
    if dtype is None:
        stored = unet_dtype(network.state_dict())
        dtype = comfy.model_management.unet_manual_cast(stored, device) or stored
    return comfy.model_patcher.ModelPatcher(
        Held(network.to(dtype).eval()), load_device=device,
        offload_device=comfy.model_management.unet_offload_device(),
    )


def managed_parts(name: str, model: Parts2Whole, blocks: Sequence[str]) -> ManagedParts2Whole:
    """All but the denoising UNet under ComfyUI's memory management."""
    guider, decoupled = model.pose_guider, model.decoupled
    attention = partial(ImageCrossAttention, decoupled.token_dim, decoupled.inner_dims)
    # A small network whose result acts in every step: in float32, in which it is published.
    posing = managed(partial(PoseGuider, **guider.sizes), guider.state_dict(), torch.float32)
    return ManagedParts2Whole(
        name, managed_whole(model.reference_unet), posing, managed(attention, decoupled.state_dict()),
        tuple(blocks), latents_of(model.unet.config.out_channels, guider.latent_pixel),
    )


class LoadParts2Whole(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadParts2Whole",
            display_name="Load Parts2Whole",
            category=CATEGORY,
            description=(
                "Loads Parts2Whole: the model that draws, with the noise schedule that it was trained with, "
                "and what reads reference pictures and poses for it."
            ),
            search_aliases=["parts2whole", "reference unet", "human generation"],
            inputs=[
                io.Combo.Input(
                    "folder", options=folder_options(),
                    tooltip="The folder in models/parts2whole with unet, reference_unet, pose_guider and "
                            "decoupled_attn.pth.",
                ),
                *(file_input(name) for name in INPUTS),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="The model that draws, for LoRAs and Apply Parts2Whole.",
                ),
                Parts2WholeType.Output(
                    display_name="parts2whole", tooltip="What reads references and poses for it.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, folder: str | None, unet: str | None = FROM_FOLDER, reference_unet: str | None = FROM_FOLDER,
        pose_guider: str | None = FROM_FOLDER, decoupled: str | None = FROM_FOLDER,
    ) -> bool | str:
        files = unet, reference_unet, pose_guider, decoupled
        missing = next(filter(None, (FILES.why_missing(each) for each in files if each != FROM_FOLDER)), None)
        return missing or (why_missing(folder) if FROM_FOLDER in files else None) or True

    @classmethod
    def fingerprint_inputs(cls, folder: str | None, **files: str | None) -> object:
        names = [files.get(name, FROM_FOLDER) for name in INPUTS]
        if folder is None or None in names:
            return None
        return [stamps_of(path) for path in chosen_paths(folder, names)]

    @classmethod
    def execute(
        cls, folder: str, unet: str = FROM_FOLDER, reference_unet: str = FROM_FOLDER,
        pose_guider: str = FROM_FOLDER, decoupled: str = FROM_FOLDER,
    ) -> io.NodeOutput:
        check_packages("Load Parts2Whole", ["diffusers"])
        from ...pit.parts2whole.files import load_parts
        from ...pit.parts2whole.unets import blocks_of

        paths = chosen_paths(folder, (unet, reference_unet, pose_guider, decoupled))
        model = load_parts(*paths, progress=progress_bar())
        parts = managed_parts(folder, model, blocks_of(model.unet))
        return io.NodeOutput(model_of(model.unet, paths[0], parts.latents), parts)


def file_input(name: str) -> io.Input:
    """A part that may come from a single file."""
    what = "decoupled attention" if name == "decoupled" else name.replace("_", " ")
    return io.Combo.Input(
        name, options=[FROM_FOLDER, *FILES.listed()], default=FROM_FOLDER, optional=True, advanced=True,
        tooltip=f"A single file from models/parts2whole in place of the {what} in the folder.",
    )


def stamps_of(path: Path) -> list[tuple[int, ...] | None]:
    """Stamps of a file, or of all files in a folder of one part."""
    files = sorted(path.iterdir()) if path.is_dir() else [path, path.with_name("config.json")]
    return [file_stamp(file) for file in files]
