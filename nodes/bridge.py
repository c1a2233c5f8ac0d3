"""The bridge to ComfyUI: model folders, modules that it manages, its image encoder, progress and cancel."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from PIL import Image
from server import PromptServer
from torch import Tensor, nn

from ..pit.precision import cpu_has_bf16
from ..pit.published import where_to_get
from ..pit.training.encode import TokenEncoder
from ..pit.training.make_parts import file_name
from .types import ManagedIPAdapter

FOLDERS = {
    "ip_adapter": "ipadapter", "ip_prior": "ip_prior", "ip_lora": "loras", "ip_direction": "ip_directions",
    "ip_tokens": "ip_tokens",
}
LOADERS = {
    "ip_adapter": "Load IP-Adapter+", "ip_prior": "Load IP-Prior", "ip_lora": "Apply IP-LoRA",
    "ip_direction": "Load IP+ Direction", "ip_tokens": "Load IP+ Tokens",
}
MADE_BY = {"ip_tokens": "Save IP+ Tokens writes such files."}
PICTURES_AT_ONCE = 16
WIDE = 1024


def register_model_folders() -> None:
    """Tell ComfyUI of our folders below `models`; those of extra_model_paths.yaml stay in front."""
    for folder in FOLDERS.values():
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        extensions = extensions | folder_paths.supported_pt_extensions
        folder_paths.folder_names_and_paths[folder] = (paths, extensions)


def model_files(kind: str) -> list[str]:
    """What a loader offers: the files of a kind, or one entry that says that there are none."""
    return folder_paths.get_filename_list(FOLDERS[kind]) or [f"no file in models/{FOLDERS[kind]}"]


def why_missing(kind: str, name: str) -> str | None:
    """None if the file is there, else what was wanted, where it was sought, what is there, where to get it.

    Only names that ComfyUI itself lists are accepted, so that no name leads out of the model folders.
    """
    if name in folder_paths.get_filename_list(FOLDERS[kind]):
        return None
    folders = folder_paths.get_folder_paths(FOLDERS[kind])
    found = sorted({file for folder in folders for file in folder_paths.recursive_search(folder)[0]})
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return (
        f"{LOADERS[kind]} is set to {name!r}. It looked in {', '.join(folders)} and found "
        f"{', '.join(found[:8]) or 'nothing'}{more} there. {MADE_BY.get(kind) or where_to_get(kind)}"
    )


def model_path(kind: str, name: str) -> str:
    """The path of a listed file. Raises FileNotFoundError with the text of `why_missing`."""
    missing = why_missing(kind, name)
    if missing:
        raise FileNotFoundError(missing)
    return folder_paths.get_full_path_or_raise(FOLDERS[kind], name)


def file_stamp(path: str) -> tuple[int, int] | None:
    """Modification time in nanoseconds and size of a file; None where there is none."""
    if not os.path.isfile(path):
        return None
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size


def managed(
    build: Callable[..., nn.Module], state: Mapping[str, Tensor], dtype: torch.dtype | None = None,
    dynamic: bool = True,
) -> comfy.model_patcher.ModelPatcher:
    """A module that ComfyUI loads, offloads and frees.

    Args:
        build: makes the module; called with `operations`, `device` and `dtype`.
        state: all its weights.
        dtype: what they are kept in, and cast from where they are used; by default that in which most come.
        dynamic: may be loaded piece by piece while it runs, where ComfyUI can; a CUDA graph wants it whole.
    """
    device = comfy.model_management.unet_offload_device()
    dtype = dtype or comfy.utils.weight_dtype(state)
    module = build(operations=comfy.ops.manual_cast, device=device, dtype=dtype).eval()
    patchers = comfy.model_patcher
    patcher = (patchers.CoreModelPatcher if dynamic else patchers.ModelPatcher)(
        module, load_device=comfy.model_management.get_torch_device(), offload_device=device
    )
    state = {key: value.to(dtype) for key, value in state.items()}
    module.load_state_dict(state, assign=patcher.is_dynamic())
    return patcher


def prior_dtype(hidden_dim: int) -> torch.dtype:
    """What an IP-Prior computes in: bfloat16 where it is wide enough to gain by it and the device has it."""
    if hidden_dim < WIDE:
        return torch.float32
    device = comfy.model_management.get_torch_device()
    if device.type == "cpu":
        has_bf16 = cpu_has_bf16()
    else:
        has_bf16 = comfy.model_management.should_use_bf16(device)
    return torch.bfloat16 if has_bf16 else torch.float32


def as_lines(facts: Mapping[str, object]) -> str:
    """Facts one below the other."""
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


def say(node: type[io.ComfyNode], text: str) -> None:
    """Show text in a node, whose schema must ask for its hidden id."""
    if node.hidden and node.hidden.unique_id:
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


def told(node: type[io.ComfyNode], text: str) -> ui.PreviewText:
    """Text as the output of a node, and shown in it: the page by itself shows no such output."""
    say(node, text)
    return ui.PreviewText(text)


def progress_bar() -> Callable[..., None]:
    """A function of (steps done, steps in all) that moves the progress bar, and raises once cancelled.

    It takes a picture as well, which is shown in the node.
    """
    bar = comfy.utils.ProgressBar(1)

    def done(step: int, total: int, picture: Image.Image | None = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        # ComfyUI encodes it later, in another thread, and only RGB.
        preview = None if picture is None else ("JPEG", picture.convert("RGB"), None)
        bar.update_absolute(step, total, preview)

    return done


def own_folder(root: str, name: str) -> Path:
    """The folder `name` directly below `root`, not made yet.

    Anyone who can queue a graph chooses the name, so ValueError meets all that would lead elsewhere.
    """
    safe = file_name(name.strip())
    folder = os.path.join(root, safe)
    inside = folder_paths.is_within_directory(root, folder)
    if not inside or os.path.realpath(folder) == os.path.realpath(root):
        raise ValueError(f"{name!r} leads out of {root}. Choose a plain name, such as my_creatures.")
    return Path(folder)


def check_encoder(clip_vision, ip_adapter: ManagedIPAdapter) -> None:
    """Raise ValueError if the IP-Adapter was not made for this image encoder."""
    found, width = clip_vision.model_type, clip_vision.config["hidden_size"]
    if found != "clip_vision_model" or width != ip_adapter.feature_dim:
        raise ValueError(
            f"{ip_adapter.name} reads a clip_vision_model of width {ip_adapter.feature_dim}, but the "
            f"connected CLIP_VISION is a {found} of width {width}. {where_to_get('clip_vision')}"
        )


def own_file(root: str, name: str) -> Path:
    """The file `name`.safetensors directly below `root`, whose folder is there; errors as in `own_folder`."""
    folder = own_folder(root, name.strip().removesuffix(".safetensors"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.with_name(f"{folder.name}.safetensors")


def encoder_notes(clip_vision, ip_adapter: ManagedIPAdapter) -> dict[str, str]:
    """What tokens were made with, for their file."""
    return {"encoder": encoder_name(clip_vision), "adapter": ip_adapter.name}


def encoder_name(clip_vision) -> str:
    return f"{clip_vision.config['model_type']} of width {clip_vision.config['hidden_size']}"


def token_encoder(clip_vision, ip_adapter: ManagedIPAdapter) -> TokenEncoder:
    """From pixel values to features to IP+ tokens, by models that ComfyUI has loaded for it.

    The network is ComfyUI's; its preprocessing is not used, since it rounds where the published one truncates
    and has no way to all-zero pixels.

    Raises:
        ValueError: the encoder is not the one that the IP-Adapter was made for.
    """
    check_encoder(clip_vision, ip_adapter)
    comfy.model_management.load_models_gpu([clip_vision.patcher, ip_adapter.resampler])

    def features(pixels: Tensor) -> Tensor:
        return clip_vision.model(pixel_values=pixels.to(clip_vision.load_device), intermediate_output=-2)[1]

    def resample(features: Tensor) -> Tensor:
        return ip_adapter.resampler.model(features.to(ip_adapter.resampler.load_device, torch.float32))

    name, size = encoder_name(clip_vision), clip_vision.image_size
    return TokenEncoder(name, ip_adapter.name, size, features, resample)


def encode_pixels(clip_vision, ip_adapter: ManagedIPAdapter, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """IP+ tokens of pictures, and those of the all-zero pixels that SDXL's negative branch sees.

    Args:
        pixels: pixel values of the published processor `[B, 3, size, size]`, in the encoder's size.
    Returns:
        Tokens of the pictures `[B, 16, D]` and the unconditional tokens `[1, 16, D]`, float32, on ComfyUI's
        intermediate device.
    Raises:
        ValueError: the encoder is not the one that the IP-Adapter was made for.
        FloatingPointError: the tokens are not finite.
    """
    tokens, uncond, _ = encode_with_features(clip_vision, ip_adapter, pixels)
    return tokens, uncond


def encode_with_features(
    clip_vision, ip_adapter: ManagedIPAdapter, pixels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As `encode_pixels`, with the penultimate features of the pictures `[B, N, E]`, in which CLIP-space
    directions lie.
    """
    encoder = token_encoder(clip_vision, ip_adapter)
    pixels = torch.cat([pixels, torch.zeros_like(pixels[:1])])
    tokens, features = encode_chunks(encoder, pixels.split(PICTURES_AT_ONCE), len(pixels), progress_bar())
    return tokens[:-1], tokens[-1:], features[:-1]


def encode_chunks(
    encoder: TokenEncoder, chunks: Iterable[Tensor], total: int, done: Callable[[int, int], None]
) -> tuple[Tensor, Tensor]:
    """Tokens `[B, 16, D]` and features `[B, N, E]` of pixel values in chunks, on the intermediate device.

    Args:
        total: pictures in all, for `done`, which is told how many are encoded.
    Raises:
        FloatingPointError: the tokens are not finite.
    """
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
    """Tokens `[B, 16, D]` of penultimate features `[B, N, E]`, on the intermediate device.

    Raises:
        ValueError: the features are not of the width that the resampler reads.
        FloatingPointError: the tokens are not finite.
    """
    if features.shape[-1] != ip_adapter.feature_dim:
        raise ValueError(
            f"{ip_adapter.name} reads image features of width {ip_adapter.feature_dim}, found "
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
            f"The tokens of {name} are not finite: its file or that of the CLIP vision model is damaged. "
            "Fetch it again."
        )
