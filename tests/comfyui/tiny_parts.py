"""Tiny files of PartCraft and Parts2Whole in the layouts of the published ones, for the tiny SD 1.5."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from pit.partcraft.mapper import TokenMapper
from pit.parts2whole.training.learned import write_parts
from pit.parts2whole.training.start import new_parts
from pit.parts2whole.training.step import WholeModel
from pit.parts2whole.unets import empty_unet
from tests.encoders.test_dino import tiny
from tests.golden import Golden
from tests.parts2whole.test_clothes import NAMES, write_segmenter

WIDTH, CHANNELS = 48, 32  # of the tiny Stable Diffusion 1.5: of its texts, and of its first level
PARTS, CODES = 8, 256  # as published
WORN = ("Hair", "Face", "Dress")


def write_words(folder: Path) -> None:
    """Part words of the published numbers, and the LoRA of one layer."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(TokenMapper(PARTS, CODES, WIDTH, 1).state_dict(), folder / "pytorch_model_1.bin")
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.to_q_lora"
    shapes = {"down": (4, CHANNELS), "up": (CHANNELS, 4)}
    lora = {f"{layer}.{name}.weight": torch.ones(shape) / 50 for name, shape in shapes.items()}
    torch.save(lora, folder / "pytorch_model.bin")


def write_dino(path: Path) -> None:
    """A DINOv2 for pictures of 56 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.clone() for key, value in tiny(patch_size=4).state_dict().items()}, path)


def write_parts2whole(golden: Golden, folder: Path) -> None:
    """Parts2Whole with random weights, and the sizes of the golden one but for the texts."""
    facts = golden.facts("parts2whole_tiny_config")["unet"]
    config = {key: value for key, value in facts.items() if key[0] != "_"} | {"cross_attention_dim": WIDTH}
    unet = empty_unet(config)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet.load_state_dict(UNet2DConditionModel(**config).state_dict(), assign=True)
    write_parts(folder, WholeModel(new_parts(unet, 0)), {})


def write_clothes(folder: Path) -> None:
    """A segmenter that finds hair, a face and a dress, and nothing else, in any picture."""
    model = write_segmenter(folder)
    with torch.no_grad():
        for number, name in enumerate(NAMES):
            model.decode_head.classifier.bias[number] = 0 if name in WORN else -100
    model.save_pretrained(folder)
