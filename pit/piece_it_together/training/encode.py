"""From the pictures of a dataset to a token cache: every target, and k augmented variants of every part."""
from __future__ import annotations

import hashlib
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ...files.pictures import PackedPicture, PictureError, Skipped, open_picture
from ...files.whole import sha256_of
from ...images import clip_pixel_values, resize_for_encoder, white_image
from ...ip_adapter.encoder import TokenEncoder, fingerprints
from ..parts import reference_grid
from ..sketch import SKETCH_FIT
from .augment import Augmentation, augment_part
from .cache import Sources
from .cache_parts import WHOLE, Share, known_besides
from .cache_writer import CacheWriter
from .dataset import Concept, Dataset
from .tar_shards import ReadShards, concepts_in

PUBLISHED = Augmentation()
UNUSABLE = "a picture that cannot be read, is too large, or is as thin as a line"
GRID_SIZE = 512
GRID_TARGETS = 4
LEAST_TARGETS = 9  # in a group, for references, as published
WORKERS = 4  # threads that open and augment pictures while the encoder works


@dataclass(frozen=True)
class EncodeReport:
    """The outcome of an encoding: concepts encoded now, concepts already cached, and pictures left out."""

    added: int
    kept: int
    skipped: tuple[Skipped, ...]


@dataclass
class Job:
    """A concept on its way into the cache; without `pictures` there is nothing to encode.

    Attributes:
        size: how many pictures it counts as in the progress.
        pictures: as the encoder sees them: the target, the variants of each part, the reference grids.
    """

    sources: Sources
    size: int
    pictures: list[Image.Image] = field(default_factory=list)
    kept: bool = False
    skipped: list[Skipped] = field(default_factory=list)


def encode_dataset(
    dataset: Dataset, folder: Path, encoder: TokenEncoder, *, variants: int = 4,
    augmentation: Augmentation = PUBLISHED, references: int = 0, seed: int = 0, batch: int = 32,
    on_progress: Callable[[int, int], None] = lambda done, total: None, shards: Sequence[Path] = (),
    share: Share = WHOLE,
) -> EncodeReport:
    """Encode what the cache in `folder` does not hold yet; creates it or adds to it.

    Pictures are identified by the SHA-256 of their files: unchanged concepts are kept, changed ones are
    replaced, and concepts that left the dataset stay cached. Everything random comes from the seed and the
    names of the concept and its part, so that adding pictures later gives the same tokens as encoding all in
    one go. Pictures that cannot be read are left out, and so is a concept without a readable target and part.

    Args:
        variants: augmented versions of each part.
        references: number of 2 x 2 grids of other targets of the same group, for each concept; groups with
            fewer than 9 targets are then left out, as published.
        batch: pictures that the encoder gets at a time.
        on_progress: called with the number of pictures that are done and the number of all; may raise to
            cancel. What is complete by then is in the cache, and the next call resumes from there. Pictures
            in archives are not counted beforehand: the first number may exceed the second.
        shards: tar archives with more concepts; those that are encoded to their end are not read again.
        share: what of all this process encodes; several processes write into parts of the cache, which
            `gather_parts` puts together.

    Raises:
        CacheError: the folder cannot be written, or holds a cache of another encoder or other settings.
        ValueError: fewer than one variant or picture in a batch, or a negative number of references.
    """
    check_numbers(variants, batch, references, shards)
    # White through the processor is the empty slot; zeros behind the processor, a gray picture, are the
    # unconditional tokens of IP-Adapter. As published, the two are not the same.
    ends = torch.cat([
        clip_pixel_values([white_image(encoder.size)], encoder.size),
        torch.zeros(1, 3, encoder.size, encoder.size),
    ])
    empty, uncond = encoder.tokens(ends).split(1)
    models = dict(zip(("encoder", "adapter"), fingerprints(encoder), strict=True))
    settings = settings_of(augmentation, references, seed)
    with CacheWriter(
        share.folder(folder), width=empty.shape[-1], variants=variants, augmentation=settings, empty=empty,
        uncond=uncond, **models,
    ) as writer:
        known = writer.known | known_besides(folder, writer.settings, share)
        preparation = Preparation(
            dataset, encoder.size, variants, augmentation, references, seed, known, share
        )
        line = EncodingLine(encoder, writer, batch, preparation.total, on_progress)
        line.skipped += preparation.left_out
        encode_concepts(preparation, preparation.concepts, line)
        read = [ReadShards(each) for each in dict.fromkeys((folder, writer.folder))]
        for shard in share.of(shards):
            kept = preparation.concepts_of[shard.stem]
            # Both: the list of what is read may be older than the cache.
            if kept and any(each.holds(shard) for each in read):
                line.kept += kept
            else:
                encode_shard(shard, preparation, line, read[-1])
        line.finish()
    return EncodeReport(line.added, line.kept, tuple(line.skipped))


def check_numbers(variants: int, batch: int, references: int, shards: Sequence[Path]) -> None:
    """Raise ValueError for numbers with which nothing can be encoded."""
    if min(variants, batch) < 1 or references < 0:
        raise ValueError(
            f"Expected variants and batch of at least 1 and references of at least 0, got {variants}, "
            f"{batch} and {references}."
        )
    if shards and references:
        # A grid needs other targets of the group, which are anywhere in the archives.
        raise ValueError(f"Expected no references for concepts in tar archives, got {references}.")


def settings_of(augmentation: Augmentation, references: int, seed: int) -> dict[str, Any]:
    """How pictures are drawn, as a cache keeps it."""
    settings = asdict(augmentation) | {"references": references, "seed": seed}
    if augmentation.sketch_probability:
        # Version 0.5.0 fitted the curves of sketches otherwise: its caches are not added to.
        settings["sketches"] = SKETCH_FIT
    return settings


def encode_concepts(preparation: Preparation, concepts: Iterable[Concept], line: EncodingLine) -> None:
    """Send concepts through the encoder."""
    # Closed as soon as anything raises, so that no thread keeps opening pictures.
    with closing(prefetched(preparation.prepare, concepts)) as jobs:
        for job in jobs:
            line.put(job)


def encode_shard(shard: Path, preparation: Preparation, line: EncodingLine, read: ReadShards) -> None:
    """Send the concepts of an archive through the encoder, and note it if it was read to its end."""
    problems: list[Skipped] = []
    encode_concepts(preparation, concepts_in(shard, problems), line)
    line.finish()
    # What is noted as read is not read again: so all of it must be on the disk before.
    line.writer.flush()
    line.skipped += problems
    if not any(each.path == shard for each in problems):
        read.add(shard)


class Preparation:
    """Turns concepts into the pictures that the encoder sees. `prepare` may run in several threads."""

    def __init__(
        self, dataset: Dataset, size: int, variants: int, augmentation: Augmentation, references: int,
        seed: int, known: dict[str, str], share: Share = WHOLE,
    ) -> None:
        self.size, self.variants, self.augmentation = size, variants, augmentation
        self.references, self.seed = references, seed
        self.known = dict(known)  # a copy: the writer changes its own while threads read this one
        enough = {
            name for name, group in dataset.targets.items() if not references or len(group) >= LEAST_TARGETS
        }
        mine = share.of(dataset.concepts)
        self.concepts = [concept for concept in mine if concept.group in enough]
        self.left_out = [
            Skipped(concept.target, f"one of fewer than {LEAST_TARGETS} targets in a group with references")
            for concept in mine if concept.group not in enough
        ]
        self.rings = [
            {name: Ring(dataset.targets[name], f"{seed}/{number}") for name in enough}
            for number in range(references)
        ]
        self.total = sum(map(self.pictures_of, self.concepts))
        # By the first part of their names, which is that of the archive for those in archives.
        self.concepts_of = Counter(name.partition("/")[0] for name in self.known)
        # Each target is hashed for its own concept and for every grid that it is in.
        self.hash_of_file = lru_cache(maxsize=None)(_hash_or_nothing)

    def hash(self, picture: Path | PackedPicture) -> str:
        return picture.sha256 if isinstance(picture, PackedPicture) else self.hash_of_file(picture)

    def pictures_of(self, concept: Concept) -> int:
        return 1 + len(concept.parts) * self.variants + self.references

    def prepare(self, concept: Concept) -> Job:
        """The job for one concept; its pictures are opened only if the cache does not hold them."""
        job = Job(self.sources(concept, concept.parts, self.first_grids(concept)), self.pictures_of(concept))
        if not self.is_kept(job):
            self.open_pictures(job, concept)
        return job

    def open_pictures(self, job: Job, concept: Concept) -> None:
        """Fill in the pictures, and remove from the sources what cannot be read."""
        target = opened(concept.target, job.skipped)
        view = None if target is None else self.view(concept.target, target, job.skipped)
        parts = {path: picture for path in concept.parts if (picture := opened(path, job.skipped))}
        if view is None or not parts:
            place = place_of(concept.target)
            job.skipped.append(Skipped(place, "a concept without a readable target and part"))
            return
        grids = self.open_grids(job, concept)
        if len(grids) < self.references:
            job.skipped.append(Skipped(concept.target, "a concept without four readable references"))
            return
        job.sources = self.sources(concept, parts, [paths for paths, _ in grids])
        # Asked again: what cannot be read was not cached either, so the sources may be known without it.
        if not self.is_kept(job):
            job.pictures = [view]
            for path, part in parts.items():
                job.pictures += self.part_variants(concept, path, part, target.size)
            job.pictures += [grid for _, grid in grids]

    def view(
        self, path: Path | PackedPicture, picture: Image.Image, skipped: list[Skipped]
    ) -> Image.Image | None:
        try:
            return resize_for_encoder(picture, self.size)
        except ValueError:
            skipped.append(Skipped(place_of(path), UNUSABLE))
            return None

    def is_kept(self, job: Job) -> bool:
        job.kept = self.known.get(job.sources.name) == job.sources.digest
        return job.kept

    def part_variants(
        self, concept: Concept, path: Path | PackedPicture, part: Image.Image, canvas: tuple[int, int]
    ) -> Iterator[Image.Image]:
        for variant in range(self.variants):
            # By names, not by a running number, which would change with every picture that is added.
            rng = random.Random(f"{self.seed}/{concept.name}/{path.name}/{variant}")
            yield resize_for_encoder(augment_part(part, canvas, self.augmentation, rng), self.size)

    def first_grids(self, concept: Concept) -> list[list[Path]]:
        """The targets in each reference grid, provided that all can be read."""
        return [list(islice(ring[concept.group].after(concept), GRID_TARGETS)) for ring in self.rings]

    def open_grids(self, job: Job, concept: Concept) -> list[tuple[list[Path], Image.Image]]:
        grids = []
        for ring in self.rings:
            readable = ((path, opened(path, [])) for path in ring[concept.group].after(concept))
            chosen = dict(islice(((path, each) for path, each in readable if each), GRID_TARGETS))
            if len(chosen) == GRID_TARGETS:
                grid = reference_grid(list(chosen.values()), size=GRID_SIZE)
                grids.append((list(chosen), resize_for_encoder(grid, self.size)))
        return grids

    def sources(
        self, concept: Concept, parts: Iterable[Path | PackedPicture], grids: list[list[Path]]
    ) -> Sources:
        return Sources(
            concept.name, concept.group, self.hash(concept.target),
            tuple((path.name, self.hash(path)) for path in parts),
            tuple(_digest("/".join(map(self.hash, paths))) for paths in grids),
        )


class Ring:
    """The targets of a group, by name, in a circle, in an order that their names alone decide.

    The references of a concept are the targets that follow it, so that a new picture changes few grids.
    """

    def __init__(self, group: Mapping[str, Path], salt: str) -> None:
        ring = sorted(group, key=lambda name: _digest(f"{salt}/{name}"))
        self.targets = [group[name] for name in ring]
        self.places = {name: place for place, name in enumerate(ring)}

    def after(self, concept: Concept) -> Iterator[Path]:
        """The other targets, starting with the next one."""
        place = self.places[concept.name]
        return iter(self.targets[place + 1:] + self.targets[:place])


class EncodingLine:
    """Sends pictures through the encoder in full batches, across concepts, and concepts to the cache."""

    def __init__(
        self, encoder: TokenEncoder, writer: CacheWriter, batch: int, total: int,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.encoder, self.writer, self.batch = encoder, writer, batch
        self.total, self.on_progress = total, on_progress
        self.done = self.added = self.kept = 0
        self.skipped: list[Skipped] = []
        self.jobs: deque[Job] = deque()
        self.pictures: list[Image.Image] = []
        self.tokens: list[Tensor] = []

    def put(self, job: Job) -> None:
        self.skipped += job.skipped
        self.kept += job.kept
        # Across concepts, because one has few pictures and the encoder is fastest on full batches.
        if job.pictures:
            self.jobs.append(job)
            self.pictures += job.pictures
        self._advance(job.size - len(job.pictures))
        while len(self.pictures) >= self.batch:
            self._encode(self.batch)

    def finish(self) -> None:
        if self.pictures:
            self._encode(len(self.pictures))

    def _encode(self, count: int) -> None:
        self.tokens += self.encoder.tokens(clip_pixel_values(self.pictures[:count], self.encoder.size))
        del self.pictures[:count]
        while self.jobs and len(self.tokens) >= len(self.jobs[0].pictures):
            self._add(self.jobs.popleft())
        self._advance(count)

    def _add(self, job: Job) -> None:
        tokens = torch.stack(self.tokens[:len(job.pictures)])
        del self.tokens[:len(job.pictures)]
        end = len(tokens) - len(job.sources.grids)
        self.writer.add(job.sources, tokens[0], tokens[1:end].split(self.writer.variants), tokens[end:])
        self.added += 1

    def _advance(self, count: int) -> None:
        if count:
            self.done += count
            self.on_progress(self.done, self.total)


def prefetched(prepare: Callable[[Concept], Job], concepts: Iterable[Concept]) -> Iterator[Job]:
    """`prepare` of each concept, in order, a few ahead in threads."""
    # A few only: prepared jobs hold pictures, and a slow encoder would let them pile up.
    waiting = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            for concept in concepts:
                waiting.append(pool.submit(prepare, concept))
                if len(waiting) > 2 * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def opened(path: Path | PackedPicture, skipped: list[Skipped]) -> Image.Image | None:
    """The picture, or None and an entry in `skipped`."""
    try:
        return open_picture(path)
    except PictureError:
        skipped.append(Skipped(place_of(path), UNUSABLE))
        return None


def place_of(picture: Path | PackedPicture) -> Path:
    """Where a picture is, for reports."""
    return picture.place if isinstance(picture, PackedPicture) else picture


def _hash_or_nothing(path: Path) -> str:
    """SHA-256 of a file, or nothing if it cannot be read; opening the picture then reports it."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
