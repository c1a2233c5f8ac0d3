"""Files with random weights in every published size and layout."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor

from dev import ROOT
from pit.files.whole import replacing

Shapes = Mapping[str, Sequence[int]]

FACTS = ROOT / "tests" / "golden"
# As published in the folder models/image_encoder of the IP-Adapter.
VIT_H = {
    "architectures": ["CLIPVisionModelWithProjection"], "attention_dropout": 0.0, "dropout": 0.0,
    "hidden_act": "gelu", "hidden_size": 1280, "image_size": 224, "initializer_factor": 1.0,
    "initializer_range": 0.02, "intermediate_size": 5120, "layer_norm_eps": 1e-05,
    "model_type": "clip_vision_model", "num_attention_heads": 16, "num_channels": 3,
    "num_hidden_layers": 32, "patch_size": 14, "projection_dim": 1024, "torch_dtype": "float32",
}
PRIOR = {"hidden_dim": 2048, "num_layers": 4, "num_attention_heads": 32, "use_ref": True, "max_crops": 7}
LORAS = ("character_sheet", "background_generation")
PARTS = ("part_1", "part_2", "part_3", "concept")


class Files:
    """Where everything lies in the folder of the benchmark."""

    def __init__(self, folder: Path):
        self.base = folder / "base"
        models = self.base / "models"
        self.checkpoint = models / "checkpoints" / "sd_xl_base_1.0.safetensors"
        self.vision = folder / "image_encoder"
        self.vision_link = models / "clip_vision" / "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
        self.adapter = models / "ipadapter" / "ip-adapter-plus_sdxl_vit-h.safetensors"
        self.prior = models / "ip_prior" / "characters" / "prior.ckpt"
        self.loras = {name: models / "loras" / "pit" / f"{name}.safetensors" for name in LORAS}
        self.pictures = self.base / "input"
        self.shapes = folder / "sdxl_shapes.json"
        self.captured = folder / "captured"
        self.log = folder / "comfyui.log"


def random_state(shapes: Shapes, seed: int, dtype: torch.dtype, exact: torch.dtype | None = None) -> dict:
    """Weights that let signals through, in `dtype`, with values that `exact` holds as well.

    Models whose weights are kept in a narrower type than that of their file then compute with the same
    values, and what is measured is the arithmetic alone.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        key: random_weight(key, torch.Size(shape), generator).to(exact or dtype).to(dtype)
        for key, shape in shapes.items()
    }


def random_weight(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices and convolutions that keep the size of their inputs; norms around 1, biases around 0."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return noise / shape[1:].numel() ** 0.5
    return noise / 10 + key.endswith("weight")


def facts(name: str) -> dict:
    """What is known of a published file: its keys and shapes."""
    return json.loads((FACTS / f"{name}.json").read_text(encoding="utf-8"))


def vision_shapes() -> Shapes:
    """CLIP ViT-H, as transformers names its weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection  # takes memory for good

    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(CLIPVisionConfig.from_dict(VIT_H))
    return {key: value.shape for key, value in model.state_dict().items()}


def adapter_shapes() -> Shapes:
    """IP-Adapter-plus in its flat layout."""
    known = facts("ip_adapter_plus_sdxl_keys")
    return {
        f"{part}.{key}": shape for part in ("image_proj", "ip_adapter") for key, shape in known[part].items()
    }


def prior_shapes() -> Shapes:
    """The IP-Prior of the characters."""
    return facts("pit_prior_full_keys")["layers4"]["keys"]


def lora_shapes() -> Shapes:
    """An IP-LoRA of rank 64, as diffusers saves it."""
    return facts("ip_lora_full_keys")["keys"]


def write_missing(path: Path, state: Callable[[], dict[str, Tensor]], write: Callable = save_file) -> None:
    """Write a file of weights, unless it is there already."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            write(state(), unfinished)


def write_checkpoint(files: Files) -> None:
    """SDXL in a single file, float16 as published, with the layout in `files.shapes`."""
    shapes = json.loads(files.shapes.read_text(encoding="utf-8"))
    write_missing(files.checkpoint, lambda: random_state(shapes, 1, torch.float16))


def write_vision(files: Files) -> None:
    """CLIP ViT-H with its config, and a link to it where ComfyUI looks; float32 as published."""
    # ComfyUI keeps image encoders in float16, hence values that are exact in it.
    weights = files.vision / "model.safetensors"
    write_missing(weights, lambda: random_state(vision_shapes(), 2, torch.float32, torch.float16))
    (files.vision / "config.json").write_text(json.dumps(VIT_H), encoding="utf-8")
    files.vision_link.parent.mkdir(parents=True, exist_ok=True)
    files.vision_link.unlink(missing_ok=True)
    files.vision_link.symlink_to(weights.resolve())


def write_adapter(files: Files) -> None:
    """IP-Adapter-plus, float16 as published."""
    write_missing(files.adapter, lambda: random_state(adapter_shapes(), 3, torch.float16))


def write_prior(files: Files) -> None:
    """The IP-Prior as a pickled state dict with its cfg.yaml; float32 as published."""
    # The node keeps a wide prior in bfloat16 on some machines, hence values that are exact in it.
    state = lambda: random_state(prior_shapes(), 4, torch.float32, torch.bfloat16)  # noqa: E731
    write_missing(files.prior, state, torch.save)
    lines = (f"{key}: {str(value).lower()}\n" for key, value in PRIOR.items())
    files.prior.with_name("cfg.yaml").write_text("".join(lines), encoding="utf-8")


def lora_state(shapes: Shapes, seed: int) -> dict[str, Tensor]:
    """A LoRA that changes every weight by an eighth of its size, as training leaves small changes, too."""
    state = random_state(shapes, seed, torch.float32)
    return {key: value / 8 if ".lora.up." in key else value for key, value in state.items()}


def write_loras(files: Files) -> None:
    """Both IP-LoRAs, float32 as published."""
    for seed, path in enumerate(files.loras.values(), start=5):
        write_missing(path, lambda seed=seed: lora_state(lora_shapes(), seed))


def write_pictures(files: Files) -> None:
    """Blobs on white for every picture that the graphs load; the third is transparent around them."""
    files.pictures.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    for name in PARTS:
        picture = Image.new("RGBA", (320, 280), "#ffffff00" if name == "part_3" else "white")
        draw = ImageDraw.Draw(picture)
        for x, y, *color in torch.randint(20, 200, (12, 5), generator=generator).tolist():
            draw.ellipse((x, y, x + 70, y + 60), fill=tuple(color))
        picture.convert("RGBA" if name == "part_3" else "RGB").save(files.pictures / f"{name}.png")


# One after the other, so that one model at a time is in memory.
WRITERS: dict[str, Callable[[Files], None]] = {
    "SDXL, a single file": write_checkpoint, "CLIP ViT-H": write_vision, "IP-Adapter-plus": write_adapter,
    "IP-Prior, 4 layers": write_prior, "two IP-LoRAs, rank 64": write_loras, "pictures": write_pictures,
}
