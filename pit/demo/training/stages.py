"""The stages in order, and what each of them needs from those before it."""
from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...files.weights import WeightFileError, load_states, save_states
from ...piece_it_together.prior import IPPrior
from ..drawing.composition import Composition
from ..models.autoencoder import CreatureAutoencoder
from ..models.library import FOLDER
from ..models.operators import shipped_encoders
from ..models.reader import CreatureReader
from ..models.sizes import ENCODER_SIZE, PRIOR
from ..models.unet import TextRenderer
from . import STAGES
from .autoencoder import encode_pictures, train_autoencoder, train_decoder
from .data import open_dataset
from .dino import train_dino
from .encoder import ImageTokens, TaughtEncoder, encode_pixels, encode_views, pixel_values, train_encoder
from .export import Trained, export
from .importance import importance_of, part_importance
from .library import write_library
from .loras import train_loras
from .object_insertion import train_object_insertion
from .part_words import train_part_words
from .parts2whole import train_parts2whole
from .pops import train_pops
from .prior import PriorData, train_prior, write_cache
from .reader import train_reader
from .stage import Run, checkpoint_path
from .text_unet import TextData, train_text_unet
from .truth import picture_truth
from .unet import RendererData, TaughtRenderer, compositions, train_unet

Data = dict[str, np.ndarray]
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "reader": CreatureReader, "encoder": TaughtEncoder, "autoencoder": CreatureAutoencoder,
    "decoder": CreatureAutoencoder, "unet": TaughtRenderer, "text_unet": TextRenderer,
    "prior": lambda: IPPrior(**PRIOR),
}
# What is shipped, and the stage that trained it last: that of the decoder leaves the whole autoencoder.
EXPORTED = {name: name for name in ("reader", "encoder", "unet", "text_unet", "prior")} | {
    "autoencoder": "decoder",
}
# The stages whose models stay as they are while one goes on with what it has learned of them.
SOURCES = {"decoder": ("autoencoder",), "unet": ("autoencoder", "encoder"), "text_unet": ("autoencoder",)}


def run_stages(arguments: argparse.Namespace) -> int:
    """Run the wanted stages in order; each leaves its result in the folder for the next ones."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    run = Run(arguments.folder, device, precision, arguments.seed, arguments.compile)
    run.folder.mkdir(parents=True, exist_ok=True)
    data = drawn_data(run, arguments.creatures, arguments.workers)
    trainers = {
        "reader": lambda: train_reader(run, data),
        "encoder": lambda: train_encoder(run, data),
        "autoencoder": lambda: train_autoencoder(run, data),
        "decoder": lambda: train_decoder(run, finished(run, "autoencoder"), data),
        "unet": lambda: train_unet(run, renderer_data(run, data), taught_tokens(run)),
        "text_unet": lambda: train_text_unet(run, text_data(run, data)),
        "prior": lambda: train_prior(run, token_cache(run, data)),
    }
    wanted = arguments.stage or STAGES
    for name in STAGES:
        if name in trainers and name in wanted:
            check_sources(run, name)
            save_states(result_path(run, name), trainers[name]().state_dict())
    if "export" in wanted:
        trained = {name: finished(run, stage) for name, stage in EXPORTED.items()}
        export(arguments.weights or FOLDER, Trained(**trained))
    # These use the weight files of the pack, whatever this run has trained.
    on_shipped = {
        "loras": lambda: train_loras(run, FOLDER),
        "library": lambda: write_library(FOLDER, run.seed),
        "pops": lambda: train_pops(run, data, *shipped_encoders(), FOLDER, arguments.workers),
        "object_insertion": lambda: train_object_insertion(run, FOLDER),
        "parts2whole": lambda: train_parts2whole(run, FOLDER),
        "dino": lambda: train_dino(run, data, FOLDER),
        "part_words": lambda: train_part_words(run, FOLDER),
    }
    for name in [name for name in on_shipped if name in wanted]:
        if arguments.weights in (None, FOLDER):
            on_shipped[name]()
        else:
            print(f"{name}: skipped; it uses the weights in {FOLDER}, so copy the new ones there first")
    return 0


def check_sources(run: Run, stage: str) -> None:
    """Check that a stage does not go on with what it has learned on models that were trained since.

    Raises:
        WeightFileError: a stage that it builds on has a newer checkpoint.
    """
    own = checkpoint_path(run, stage)
    for source in SOURCES.get(stage, ()):
        path = checkpoint_path(run, source)
        if own.exists() and path.exists() and is_older(own, path):
            raise WeightFileError(
                f"{own}: expected a checkpoint that is newer than {path.name}, on which it builds, got an "
                "older one. Delete it to train this stage anew."
            )


def drawn_data(run: Run, count: int, workers: int) -> Data:
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
    model = BUILDERS[stage]()
    model.load_state_dict(load_states(path))
    return model.to(run.device).eval().requires_grad_(False)


def taught_tokens(run: Run) -> dict[str, dict[str, Tensor]]:
    """What the stage of the encoder knows of tokens: weights of the resampler, of a head, of the preview."""
    taught = finished(run, "encoder")
    parts = {
        "resampler": taught.encoder.resampler, "attributes": taught.reading.attributes,
        "preview": taught.reading.preview,
    }
    return {name: part.cpu().state_dict() for name, part in parts.items()}


def final_tokens(run: Run) -> ImageTokens:
    """The encoder with the resampler as it was trained on along with the UNet."""
    encoder = finished(run, "encoder").encoder
    encoder.resampler = finished(run, "unet").resampler
    return encoder


def uncond_tokens(encoder: ImageTokens, device: torch.device) -> Tensor:
    """Tokens of the negative branch, `[1, 16, D]`: those of all-zero pixel values."""
    return encode_pixels(encoder, torch.zeros(1, 3, ENCODER_SIZE, ENCODER_SIZE), device)


def renderer_data(run: Run, data: Data) -> RendererData:
    """What the renderer learns from, encoded once."""
    pictures, clean = compositions(run.seed, len(data["labels"]))
    vision = finished(run, "encoder").encoder.vision
    nothing = vision.features(torch.zeros(1, 3, ENCODER_SIZE, ENCODER_SIZE, device=run.device)).cpu()
    return RendererData(
        latents(run, data, "pictures"), latents(run, data, "clean"),
        seen(run, data, "views", "features"), nothing,
        seen(run, data, "picture_views", "embed"), seen(run, data, "views", "embed"),
        pictures, clean, data["views"], data["labels"], picture_truth(run.seed, len(data["labels"])),
        importance_of(pictures) + parts_count_more(run, "pictures", pictures),
        1 + parts_count_more(run, "clean", clean),
    )


def parts_count_more(run: Run, name: str, shown: list[Composition]) -> Tensor:
    """`part_importance` of the pictures of an array, which takes minutes to draw: kept in a file."""
    path = result_path(run, f"importance_{name}_{len(shown)}_{run.seed}")
    if not path.exists():
        save_states(path, {name: part_importance(shown).half()})
    return load_states(path)[name].float()


def text_data(run: Run, data: Data) -> TextData:
    """What the base of SD 1.5's structure learns from, encoded once."""
    count = len(data["labels"])
    pictures, clean = compositions(run.seed, count)
    return TextData(
        latents(run, data, "pictures"), latents(run, data, "clean"), pictures, clean,
        picture_truth(run.seed, count).kinds, importance_of(pictures),
    )


def latents(run: Run, data: Data, name: str) -> Tensor:
    """Latents of the pictures of an array, fp16 `[N, 12, 16, 16]`."""
    def encode(model: CreatureAutoencoder) -> Tensor:
        return encode_pictures(model.to(memory_format=torch.channels_last), data[name], run.device)

    return cached(run, f"latents_{name}", "autoencoder", encode)


def seen(run: Run, data: Data, name: str, method: str) -> Tensor:
    """Features or embeddings of the views of an array, fp16, by that method of the image encoder."""
    @torch.no_grad()
    def encode(model: TaughtEncoder) -> Tensor:
        views, see = data[name], getattr(model.encoder.vision, method)
        chunks = (pixel_values(views[start:start + 512]) for start in range(0, len(views), 512))
        return torch.cat([see(chunk.to(run.device)).float().cpu() for chunk in chunks])

    return cached(run, f"{method}_{name}", "encoder", encode)


def prior_data(run: Run, data: Data) -> PriorData:
    """What the prior learns from, encoded once."""
    shape = data["part_views"].shape
    views = data["part_views"].reshape(-1, *shape[2:])
    white = np.full((1, ENCODER_SIZE, ENCODER_SIZE, 3), 255, np.uint8)
    encoder = final_tokens(run)
    return PriorData(
        tokens=encode_views(encoder, data["views"], run.device),
        parts=encode_views(encoder, views, run.device).unflatten(0, shape[:2]),
        part_kinds=data["part_kinds"],
        empty=encode_views(encoder, white, run.device),
        uncond=uncond_tokens(encoder, run.device),
    )


def token_cache(run: Run, data: Data) -> Path:
    """The token cache that the prior learns from; written again if the resampler was trained since."""
    folder = run.folder / "tokens"
    if is_older(folder / "manifest.json", checkpoint_path(run, "unet")):
        with run.autocast():
            found = prior_data(run, data)
        write_cache(folder, found, final_tokens(run).cpu())
    return folder


def is_older(path: Path, source: Path) -> bool:
    """Whether a file is missing or older than what it was made from."""
    return not path.exists() or path.stat().st_mtime < source.stat().st_mtime


def cached(run: Run, name: str, stage: str, make: Callable[[nn.Module], Tensor]) -> Tensor:
    """What the model of an earlier stage makes of the data set; made again if that was trained since."""
    # By its checkpoint: a decoder that was trained on alone leaves latents as they are.
    path, source = result_path(run, name), checkpoint_path(run, stage)
    if is_older(path, source):
        with run.autocast():
            # fp16 halves the file; its rounding is far below the noise that trainings add.
            save_states(path, {name: make(finished(run, stage)).half()})
    return load_states(path)[name]
