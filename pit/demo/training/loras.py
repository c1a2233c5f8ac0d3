"""Training the creatures' IP-LoRAs on the shipped models, with the trainer of `pit.training`."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...files.weights import read_state, write_state
from ...piece_it_together.ip_lora.cache import LoraCache, encode_lora_dataset
from ...piece_it_together.ip_lora.dataset import read_lora_dataset
from ...piece_it_together.ip_lora.recipes import PUBLISHED, LoraRecipe
from ...piece_it_together.ip_lora.task import LoraTask
from ...training.launch import data_parallel
from ...training.recipes import RunSettings
from ...training.trainer import Trainer
from ..datasets import write_scene_dataset, write_sheet_dataset
from ..models.library import SCENES_LORA, SHEET_LORA
from ..models.renderer import creature_render_encoders, creature_renderer, creature_stamp
from ..models.sizes import PICTURE_SIZE
from .export import METADATA, half
from .stage import Run, run_trainer

SAVE_EVERY = 400
# A miniature tolerates larger steps than SDXL, and needs a lower rank. With too few steps at too low a rank,
# most of them on new scenes, it forgets those that it knew.
RECIPE = replace(
    PUBLISHED, steps=2400, batch=16, accumulation=1, learning_rate=1e-3, warmup=50, schedule="cosine",
    precision="bf16", rank=16, text_dropout=0.1, ema_decay=0.99,
)


@dataclass(frozen=True)
class CreatureLora:
    """What an IP-LoRA learns from: `write(folder, count, seed)` draws its pictures, of `size` pixels."""

    file: str
    write: Callable[[Path, int, int], None]
    count: int
    size: int
    recipe: LoraRecipe


LORAS = (
    CreatureLora(SCENES_LORA, write_scene_dataset, 2000, PICTURE_SIZE, RECIPE),
    # Creatures that are seen from behind are the last to lose their faces.
    CreatureLora(
        SHEET_LORA, write_sheet_dataset, 800, 2 * PICTURE_SIZE, replace(RECIPE, steps=2000, batch=8)
    ),
)


def train_loras(run: Run, weights: Path) -> None:
    """Train each in its own folder within that of the run, and write it to the folder `weights`."""
    for lora in LORAS:
        state, _ = read_state(train_lora(run, lora))
        write_state(weights / lora.file, half(state), METADATA)


def train_lora(run: Run, lora: CreatureLora) -> Path:
    """Train one of them, or resume its training; returns its file."""
    folder = run.folder / Path(lora.file).stem
    recipe = replace(lora.recipe, precision=run.recipe_precision)
    cache = encoded(folder, lora, run.seed)
    settings = RunSettings(folder / "run", run.seed, SAVE_EVERY, SAVE_EVERY, started_from=creature_stamp())
    task = LoraTask(*creature_renderer(), cache, recipe, settings)
    trainer = Trainer(task, recipe, settings, data_parallel(cpu=run.device.type == "cpu"))
    return run_trainer(trainer, folder.name)


def encoded(folder: Path, lora: CreatureLora, seed: int) -> LoraCache:
    """The pictures, drawn and encoded once."""
    pictures = folder / "pictures"
    lora.write(pictures, lora.count, seed)
    samples = read_lora_dataset(pictures, "captions as they are").samples
    cache, _ = encode_lora_dataset(samples, folder / "encoded", creature_render_encoders(), lora.size)
    return cache
