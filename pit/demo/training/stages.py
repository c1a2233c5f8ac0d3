"""The stages in order, and what each of them needs from those before it."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import tqdm

from ...files.weights import load_states, save_states
from ...piece_it_together.prior import IPPrior
from ..models.autoencoder import build_autoencoder
from ..models.library import FOLDER
from ..models.reader import CreatureReader
from ..models.sizes import ENCODER_SIZE, PRIOR
from ..models.unet import Renderer
from . import STAGES
from .autoencoder import encode_pictures, train_autoencoder
from .data import open_dataset
from .encoder import ImageTokens, TaughtEncoder, encode_pixels, encode_views, train_encoder
from .export import export
from .library import write_library
from .loras import train_loras
from .prior import PriorData, train_prior, write_cache
from .reader import train_reader
from .stage import Run
from .unet import RendererData, train_unet


def run_stages(arguments: argparse.Namespace) -> int:
    """Run the wanted stages in order; each leaves its result in the folder for the next ones."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    run = Run(arguments.folder, device, precision, arguments.seed)
    run.folder.mkdir(parents=True, exist_ok=True)
    data = drawn_data(run, arguments.creatures, arguments.workers)
    trainers = {
        "reader": lambda: train_reader(run, data),
        "encoder": lambda: train_encoder(run, data),
        "autoencoder": lambda: train_autoencoder(run, data, finished(run, "encoder").encoder.vision),
        "unet": lambda: train_unet(run, renderer_data(run, data)),
        "prior": lambda: train_prior(run, token_cache(run, data)),
    }
    wanted = arguments.stage or STAGES
    for name in STAGES:
        if name in trainers and name in wanted:
            save_states(result_path(run, name), trainers[name]().state_dict())
    if "export" in wanted:
        taught = finished(run, "encoder")
        export(
            arguments.weights or FOLDER, finished(run, "autoencoder"), taught.encoder,
            finished(run, "unet"), finished(run, "prior"), finished(run, "reader"), taught.reading.preview,
        )
    # These use the weight files of the pack, whatever this run has trained.
    on_shipped = {
        "loras": lambda: train_loras(run, FOLDER), "library": lambda: write_library(FOLDER, run.seed),
    }
    for name in [name for name in on_shipped if name in wanted]:
        if arguments.weights in (None, FOLDER):
            on_shipped[name]()
        else:
            print(f"{name}: skipped; it uses the weights in {FOLDER}, so copy the new ones there first")
    return 0


def drawn_data(run: Run, count: int, workers: int) -> dict[str, np.ndarray]:
    """The data set, drawn unless it is there already."""
    with tqdm(total=count, desc="data", mininterval=5) as bar:
        folder = run.folder / "data"
        return open_dataset(folder, count, run.seed, workers, lambda done: bar.update(done - bar.n))


def result_path(run: Run, stage: str) -> Path:
    """Where the trained model of a stage is kept."""
    return run.folder / f"{stage}.pt"


def finished(run: Run, stage: str) -> nn.Module:
    """The trained model of an earlier stage.

    Raises:
        FileNotFoundError: that stage has not finished.
    """
    path = result_path(run, stage)
    if not path.exists():
        raise FileNotFoundError(
            f"Expected the result of the stage {stage!r} in {path}, got no such file. Run that stage first."
        )
    builders = {
        "reader": CreatureReader, "autoencoder": build_autoencoder, "encoder": TaughtEncoder,
        "unet": Renderer, "prior": lambda: IPPrior(**PRIOR),
    }
    model = builders[stage]()
    model.load_state_dict(load_states(path))
    return model.to(run.device).eval().requires_grad_(False)


def uncond_tokens(encoder: ImageTokens, device: torch.device) -> Tensor:
    """Tokens of the negative branch, `[1, 16, D]`: those of all-zero pixel values."""
    return encode_pixels(encoder, torch.zeros(1, 3, ENCODER_SIZE, ENCODER_SIZE), device)


def renderer_data(run: Run, data: dict[str, np.ndarray]) -> RendererData:
    """What the UNet learns from, encoded once."""
    def encode(model: AutoencoderKL) -> Tensor:
        return encode_pictures(model, data["pictures"], run.device)

    encoder = finished(run, "encoder").encoder
    latents = cached(run, "latents", "autoencoder", encode)
    return RendererData(latents, whole_tokens(run, data), uncond_tokens(encoder, run.device))


def whole_tokens(run: Run, data: dict[str, np.ndarray]) -> Tensor:
    """Tokens of all creatures, `[N, 16, D]`, encoded once."""
    def encode(model: TaughtEncoder) -> Tensor:
        return encode_views(model.encoder, data["views"], run.device)

    return cached(run, "tokens", "encoder", encode)


def prior_data(run: Run, data: dict[str, np.ndarray]) -> PriorData:
    """What the prior learns from, encoded once."""
    shape = data["part_views"].shape
    views = data["part_views"].reshape(-1, *shape[2:])
    white = np.full((1, ENCODER_SIZE, ENCODER_SIZE, 3), 255, np.uint8)

    encoder = finished(run, "encoder").encoder

    def encode(model: TaughtEncoder) -> Tensor:
        return encode_views(model.encoder, views, run.device)

    return PriorData(
        tokens=whole_tokens(run, data),
        parts=cached(run, "part_tokens", "encoder", encode).unflatten(0, shape[:2]),
        part_kinds=data["part_kinds"],
        empty=encode_views(encoder, white, run.device),
        uncond=uncond_tokens(encoder, run.device),
    )


def token_cache(run: Run, data: dict[str, np.ndarray]) -> Path:
    """The token cache that the prior learns from; written again if the encoder is newer."""
    folder = run.folder / "tokens"
    if is_older(folder / "manifest.json", result_path(run, "encoder")):
        write_cache(folder, prior_data(run, data), finished(run, "encoder").encoder.cpu())
    return folder


def is_older(path: Path, source: Path) -> bool:
    """Whether a file is missing or older than what it was made from."""
    return not path.exists() or path.stat().st_mtime < source.stat().st_mtime


def cached(run: Run, name: str, stage: str, make: Callable[[nn.Module], Tensor]) -> Tensor:
    """What the model of an earlier stage makes of the data set; made again if that model is newer."""
    path, source = result_path(run, name), result_path(run, stage)
    if is_older(path, source):
        with run.autocast():
            # fp16 halves the file; its rounding is far below the noise that trainings add.
            save_states(path, {name: make(finished(run, stage)).half()})
    return load_states(path)[name].float()
