"""Where the page can get the files that the templates name, so that it offers them when they are missing."""

from __future__ import annotations

from pathlib import Path

from pit.files.published import published_files
from pit.parts2whole.published import IMAGE_ENCODER

CHECKPOINT = "checkpoints/sd_xl_base_1.0.safetensors"
SD15 = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
HUB = "https://huggingface.co"
DEPTH_MODEL = "geometry_estimation/depth_anything_3_mono_large.safetensors"
DEPTH_CONTROL = "controlnet/controlnet-depth-sdxl-1.0.safetensors"
SAM = "checkpoints/sam3.1_multiplex_fp16.safetensors"
INPAINTING = "diffusion_models/sdxl-inpainting-0.1.safetensors"
# Where the page can get each file that the graphs name, by its place below ComfyUI's `models`.
SOURCES = {
    CHECKPOINT: f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/{Path(CHECKPOINT).name}",
    SD15: f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/{Path(SD15).name}",
    DEPTH_MODEL: f"{HUB}/Comfy-Org/Depth-Anything-3/resolve/main/{DEPTH_MODEL}",
    DEPTH_CONTROL: (
        f"{HUB}/diffusers/controlnet-depth-sdxl-1.0/resolve/main/diffusion_pytorch_model.fp16.safetensors"
    ),
    SAM: f"{HUB}/Comfy-Org/sam3.1/resolve/main/{SAM}",
    INPAINTING: (
        f"{HUB}/diffusers/stable-diffusion-xl-1.0-inpainting-0.1/resolve/main/unet/"
        "diffusion_pytorch_model.fp16.safetensors"
    ),
    **{
        file.target: f"{HUB}/{file.repo}/resolve/main/{file.path}"
        for file in published_files() if not file.is_folder
    },
    # Published as a folder.
    **{
        f"{file.target}model.safetensors": f"{HUB}/{file.repo}/resolve/main/{file.path}model.safetensors"
        for file in IMAGE_ENCODER.published
    },
}
CONVERTED = "diffusion_models/object_insertion_unet.safetensors"  # a published file in another layout
# What else a graph names: a folder of the published model, and one of the user's pictures.
OTHERS = ("models/parts2whole/published/decoupled_attn.pth", "input/my_pictures/1.png", "input/example.png")
# The folders of the files that a node names, in the order of its first widgets.
LOADERS = {
    "CheckpointLoaderSimple": ("checkpoints",), "CLIPVisionLoader": ("clip_vision",),
    "ControlNetLoader": ("controlnet",), "LoadDA3Model": ("geometry_estimation",), "VAELoader": ("vae",),
    "UNETLoader": ("diffusion_models",),
    "PiT_LoadIPAdapter": ("ipadapter",), "PiT_LoadIPPrior": ("ip_prior",), "PiT_ApplyIPLora": ("loras",),
    "PiT_LoadBaseIPAdapter": ("ipadapter",), "PiT_LoadOperator": ("pops", "kandinsky_prior"),
    "PiT_LoadKandinskyDecoder": ("kandinsky_decoder", "kandinsky_decoder"),
    "PiT_LoadEmbeddingOptimizer": ("object_insertion",), "PiT_LoadPartCraft": ("part_words",),
    "PiT_LoadDino": ("clip_vision",), "PiT_ClothesParser": ("clothes_segmenter",),
}


def models_of(node: dict) -> dict[str, list[dict[str, str]]]:
    """The property by which the page offers the missing files of a loader; none for files of the pack."""
    named = zip(LOADERS.get(node["type"], ()), node["widgets_values"], strict=False)
    models = [
        {"name": name, "url": SOURCES[f"{folder}/{name}"], "directory": folder}
        for folder, name in named if f"{folder}/{name}" in SOURCES
    ]
    return {"models": models} if models else {}


def fill_base(base: Path) -> Path:
    """Put all files that the graphs name into ComfyUI's folders, so that no picture shows missing ones.

    They are empty, since the page only lists their names.
    """
    for name in (*(f"models/{name}" for name in (*SOURCES, CONVERTED)), *OTHERS):
        file = base / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return base
