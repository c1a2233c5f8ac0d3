"""Training words for the parts of the creatures' species by PartCraft's own task, on the shipped models."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm
from transformers import Dinov2Model

from ...files.weights import read_state, write_state
from ...partcraft.cluster_files import save_part_clusters
from ...partcraft.discovery import SEED, PartClusters, discover, find_parts
from ...partcraft.naming import named
from ...partcraft.training.cache import PartCache, Preparation, encode_pictures
from ...partcraft.training.painter import new_mapper
from ...partcraft.training.pictures import BY_FOLDERS, coding_of, read_pictures
from ...partcraft.training.recipes import PUBLISHED, PartRecipe
from ...partcraft.training.task import PartTask
from ...training.launch import data_parallel
from ...training.recipes import RunSettings
from ...training.sample_cache import digest
from ...training.trainer import Trainer
from ..drawing.creature import PARTS, Creature
from ..models.chain import load_text_renderer
from ..models.part_files import CLUSTERS, WORDS
from ..models.part_words import (
    MAP_LEVEL,
    creature_part_encoders,
    load_creature_dino,
    part_painter,
)
from ..models.sizes import PICTURE_SIZE
from ..models.weights import BASE_STAMP, base_stamp
from ..part_places import GROUPS, START, Overlaps, draw_collection, features_of, from_features
from ..species import write_species
from .export import half
from .stage import Run, run_trainer

PICTURES = 64  # of each species
CODES = 32  # of each part in the clusters; those of the words are the species
LEAST_OVERLAP = 0.1  # with a true part, from which a group has its name
SAVE_EVERY = 500
# As for the creatures' IP-LoRAs, a miniature tolerates larger steps than SD 1.5. Pictures are not mirrored: a
# creature from the front has its tail on one side. Each picture is of one species: a word must not be taught
# what stands around its part; and of that, most is decided where there is much noise, as the base has it.
RECIPE = replace(
    PUBLISHED, steps=6000, batch=16, accumulation=1, learning_rate=1e-3, warmup=50, schedule="cosine",
    precision="bf16", ema_decay=0.99, map_level=MAP_LEVEL, attention_form="present", attention_weight=0.03,
    min_snr_gamma=1.0, dropping=0.5, masked=True,
)
# What the measures compare the words with.
BASELINES = {
    "without attention loss": replace(RECIPE, attention_weight=0.0),
    "without projection": replace(RECIPE, projections=0),
}


@dataclass(frozen=True)
class Words:
    """What words are learned from.

    Attributes:
        folder: of the pictures, and of everything that is worked out of them.
        cache: the encoded pictures.
        clusters: the parts that were found in them.
    """

    folder: Path
    cache: PartCache
    clusters: PartClusters


def train_part_words(run: Run, weights: Path) -> None:
    """Find the parts, train the words in a folder within that of the run, and write both to `weights`."""
    words = encoded(run)
    state, metadata = read_state(train_words(run, words, "words", RECIPE))
    write_state(weights / WORDS, half(state), metadata | {BASE_STAMP: base_stamp()})
    save_part_clusters(weights / CLUSTERS, words.clusters)


def train_baselines(run: Run) -> dict[str, Path]:
    """Train what the words are compared with; returns the files, by what differs."""
    words = encoded(run)
    return {name: train_words(run, words, name, recipe) for name, recipe in BASELINES.items()}


def train_words(run: Run, words: Words, name: str, recipe: PartRecipe) -> Path:
    """Train words by a recipe, or resume their training; returns their file."""
    recipe = replace(recipe, precision=run.recipe_precision)
    # In a folder by what it builds on: once that is trained anew, its checkpoints are of no use.
    stamp = digest([base_stamp(), words.cache.fingerprint])[:12]
    folder = words.folder / name.replace(" ", "_") / stamp
    settings = RunSettings(folder, run.seed, SAVE_EVERY, SAVE_EVERY, started_from=base_stamp())
    base, coding = load_text_renderer(), words.cache.coding
    mapper = new_mapper(
        len(coding.vocabulary.parts), coding.count, [base.text.clip_l], recipe.projections, run.seed
    )
    painter, tokens = part_painter(base, mapper)
    task = PartTask(painter, tokens, words.cache, recipe, settings)
    trainer = Trainer(task, recipe, settings, data_parallel(cpu=run.device.type == "cpu"))
    return run_trainer(trainer, name)


def encoded(run: Run) -> Words:
    """The pictures of all species, the parts in them, and both encoded once."""
    folder, dino = run.folder / "part_words", load_creature_dino()
    clusters = found_clusters(dino, write_species(folder / "pictures", PICTURES, run.seed))
    pictures, encoders = read_pictures(folder / "pictures"), creature_part_encoders(dino)
    preparation = Preparation(PICTURE_SIZE, variants=1, mirrored=RECIPE.flips, seed=run.seed)
    with tqdm(total=len(pictures.paths), desc="part words: pictures", mininterval=5) as bar:
        cache, _ = encode_pictures(
            pictures, folder / "encoded", encoders, clusters, coding_of(clusters, pictures, BY_FOLDERS),
            preparation, lambda done, total: bar.update(done - bar.n),
        )
    return Words(folder, cache, clusters)


def found_clusters(dino: Dinov2Model, creatures: list[Creature]) -> PartClusters:
    """The parts that are found in creatures, and their names."""
    collection = draw_collection(creatures)
    seen = features_of(dino, collection.pictures)
    clusters = discover(
        from_features(seen), len(seen), GROUPS, min(CODES, len(seen)), seed=SEED, start=START
    ).clusters
    # A person looks at a sheet of the parts to name them; here the true ones tell.
    overlaps = Overlaps.of(find_parts(seen, clusters).labels, collection.truth)
    return replace(clusters, names=named(clusters, part_names(overlaps)))


def part_names(overlaps: Overlaps) -> list[str]:
    """The names of groups by the true parts that they lie over; "" for one that lies over none."""
    names = [""] * GROUPS
    shares = overlaps.both.sum(dim=0) / overlaps.either.sum(dim=0).clamp(min=1)
    for part, group, share in zip(PARTS, overlaps.groups.tolist(), shares.tolist(), strict=True):
        names[group] = part if share >= LEAST_OVERLAP else ""
    return names
