"""Training the creatures' Parts2Whole: all four models together, on the shipped base.

The step is the published one (`pit.parts2whole.training.step`), with two differences that save time: pictures
of a batch have different numbers of references, all of which are read in one batch; and of these, only some
pass their gradient on to the reference UNet.
"""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...files.weights import write_state
from ...files.whole import sha256_of
from ...parts2whole.attention import IMAGE_TOKENS, ReferenceTokens
from ...parts2whole.files import Parts2Whole
from ...parts2whole.references import Written, log_of_two
from ...parts2whole.training.step import Drops, WholeModel, outer_layers, training_schedule
from ...parts2whole.unets import write_references
from ...training.sample_cache import digest
from ..models.sizes import EMBEDDING_DIM
from ..models.weights import AUTOENCODER, BASE_STAMP, SD15, VISION, base_stamp, weight_file
from ..models.whole import WHOLE, changes_of, load_words, new_whole
from ..wholes import EVERYTHING, Whole, sample_given
from .export import METADATA, half
from .parts2whole_examples import EXACT, MASKS, Examples, draw_examples, pose_pictures
from .stage import Run, Stage, train_stage
from .text_unet import noise_loss, noise_weights

STAGE = Stage("parts2whole", steps=4500, batch=16, learning_rate=8e-4, warmup=200, decay=0.5)
REFERENCES, TARGETS = 5000, 8000
DRAWING = "1"  # to be raised with any change of what is drawn for the same seed
# References of all pictures of a batch, and those of them whose gradient reaches the reference UNet.
SLOTS, TAUGHT = 48, 12
# How many tokens of its references a picture reads, by the tokens of a reference in a layer; more are rare.
MOST_TOKENS = {256: 384, 64: 128, 16: 48}
# Poses, all references of a picture, and single ones are left out, and what guidance needs. As published but
# rarer, since training is short.
DROPS = Drops(reference=0.1, prompt=0.1)
NO_TOKENS = 0.1  # of the pictures: references without image tokens
# Parts cover little of a picture. Where those are that are given, the error counts as much more.
GIVEN_WEIGHT = 3.0
# How often a part has an exact mask, a wide one, or none, which leaves it to the label; and a whole creature.
PART_MASKS, WHOLE_MASKS = (0.475, 0.475, 0.05), (0.25, 0.25, 0.5)


class Part(NamedTuple):
    """A reference: the picture in the batch that reads it, its own number, its label, its kind of mask."""

    row: int
    number: int
    label: str
    mask: int


class Given(NamedTuple):
    """What is given of one picture: its prompt, references, numbers of its image tokens, and its pose."""

    prompt: bool
    parts: list[Part]
    seen: list[int]
    posed: bool


@dataclass(frozen=True)
class Rows:
    """What one step is given, for B pictures.

    Attributes:
        targets: their numbers.
        captions: "" is what the negative branch of guidance reads.
        parts: references that are read, up to `SLOTS`, in random order.
        seen: for each picture, the numbers of those whose image tokens it reads.
        posed: for each picture, whether its pose is given.
    """

    targets: list[int]
    captions: list[str]
    parts: list[Part]
    seen: list[list[int]]
    posed: list[bool]


def train_parts2whole(run: Run, weights: Path) -> None:
    """Train, or resume a training, and write what is not the base's own to the folder `weights`."""
    # In a folder by what it builds on: once that is trained anew, latents and checkpoints are of no use.
    weight_files = [sha256_of(weight_file(name)) for name in (SD15, AUTOENCODER, VISION)]
    stamp = digest([*weight_files, DRAWING, str(run.seed), str(REFERENCES), str(TARGETS)])
    run = replace(run, folder=run.folder / STAGE.name / stamp[:12])
    run.folder.mkdir(parents=True, exist_ok=True)
    examples = draw_examples(run, REFERENCES, TARGETS, load_words())
    write_whole(weights, train_whole(run, examples))


def train_whole(run: Run, examples: Examples) -> WholeModel:
    """Train all four models to predict the noise in targets."""
    torch.manual_seed(run.seed)
    model = WholeModel(new_whole(run.seed))
    for parameter in outer_layers(model.denoiser):
        parameter.requires_grad = False
    model.to(run.device, memory_format=torch.channels_last)
    predictor, schedule = Predictor(model, examples, run), training_schedule()
    weights = noise_weights(schedule)

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = draw_rows(examples, random.Random(f"{run.seed}/{step}"))
        return noise_loss(
            run, schedule, weights, examples.targets.latents[rows.targets].float(),
            given_weights(examples, rows), generator, partial(predictor.predict, rows),
        )

    return train_stage(run, STAGE, model, loss_at)


def given_weights(examples: Examples, rows: Rows) -> Tensor:
    """How much the error counts at each place, `[B, 16, 16]`."""
    read = [[part.label for part in rows.parts if part.row == row] for row in range(len(rows.targets))]
    shown = [examples.targets.shows(*each) for each in zip(rows.targets, read, strict=True)]
    return 1 + GIVEN_WEIGHT * torch.stack(shown)


def draw_rows(examples: Examples, rng: random.Random) -> Rows:
    """Random targets, and of each what is given of it."""
    wholes = examples.targets.wholes
    targets = [rng.randrange(len(wholes)) for _ in range(STAGE.batch)]
    given = [sample_row(wholes[target], row, rng) for row, target in enumerate(targets)]
    pairs = list(zip(targets, given, strict=True))
    parts = [part for each in given for part in each.parts]
    rng.shuffle(parts)
    # If there are too many, those go that the pose tells something of.
    parts = sorted(parts, key=lambda part: not wholes[targets[part.row]].reshaped)[:SLOTS]
    rng.shuffle(parts)
    return Rows(
        targets, [examples.captions[target] if each.prompt else "" for target, each in pairs],
        parts, [each.seen for each in given], [each.posed for each in given],
    )


def sample_row(whole: Whole, row: int, rng: random.Random) -> Given:
    """What is given of a whole to a row of the batch."""
    labels = sample_given(whole, rng)
    numbers = [number_of(whole.sources, label) for label in labels]
    kept = DROPS.keep(len(labels), rng)
    if whole.reshaped:  # which nothing but the references tells
        kept = kept._replace(references=tuple(range(len(labels))), prompt=True)
    # Negative prompts read no references.
    parts = [
        Part(row, numbers[place], labels[place], sample_mask(labels[place], rng))
        for place in kept.references if kept.prompt
    ]
    seen = numbers if kept.prompt and rng.random() >= NO_TOKENS else []
    return Given(kept.prompt, parts, seen, kept.pose)


def sample_mask(label: str, rng: random.Random) -> int:
    """One of `MASKS`."""
    return rng.choices(MASKS, WHOLE_MASKS if label == EVERYTHING else PART_MASKS)[0]


def number_of(sources: Mapping[str, int], label: str) -> int:
    """The creature that a reference with this label shows."""
    return sources[label] if label in sources else next(iter(sources.values()))


class Predictor:
    """The models of a training, as its steps call them."""

    def __init__(self, model: WholeModel, examples: Examples, run: Run):
        self.model, self.examples, self.run, self.device = model, examples, run, run.device
        self.denoise: Callable[..., Tensor] = model.denoiser
        self.reference_unet: Callable[..., Tensor] = model.reference_unet
        if run.compiled:
            self.denoise = torch.compile(model.denoiser, dynamic=False)
            self.reference_unet = torch.compile(model.reference_unet, dynamic=False)

    def predict(self, rows: Rows, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise in noisy latents `[B, 12, 16, 16]`, in bfloat16 or float32."""
        text = self.examples.texts.of(rows.captions).to(self.device)
        posed = torch.tensor(rows.posed, dtype=torch.float32, device=self.device)
        pictures = pose_pictures(self.examples.targets.maps[rows.targets]).to(self.device)
        pose = self.model.posing(pictures.contiguous(memory_format=torch.channels_last), posed)
        images = image_tokens(self.examples.references.embeddings, rows.seen).to(self.device)
        read = self.model.denoiser.keys_and_values(self.read(rows))
        return self.denoise(noisy, timesteps, text, images, pose, read)

    def read(self, rows: Rows) -> dict[str, ReferenceTokens]:
        """What each block reads of the references."""
        written = self.write(rows.parts)
        owners = torch.tensor([part.row for part in rows.parts], dtype=torch.long, device=self.device)
        owners = functional.pad(owners, (0, SLOTS - len(owners)), value=-1)
        return {block: gathered(each, owners, len(rows.targets)) for block, each in written.items()}

    def write(self, parts: Sequence[Part]) -> dict[str, Written]:
        """What the reference UNet writes of references, of which the first ones teach it."""
        found = self.examples.references
        # Filled up by what no picture reads: all steps are of one size.
        parts = [*parts, *[Part(-1, 0, EVERYTHING, EXACT)] * (SLOTS - len(parts))]
        latents = found.latents[[part.number for part in parts]].float().to(self.device)
        labels = self.examples.texts.of([part.label for part in parts]).to(self.device)
        masks = torch.stack([found.mask(part.number, part.label, part.mask) for part in parts])
        given = latents.contiguous(memory_format=torch.channels_last), labels, masks.to(self.device)
        taught = write_references(self.reference_unet, *(each[:TAUGHT] for each in given))
        with torch.no_grad():
            others = write_references(self.reference_unet, *(each[TAUGHT:] for each in given))
        return {
            block: Written(*(torch.cat(both) for both in zip(taught[block], others[block], strict=True)))
            for block in taught
        }


def image_tokens(embeddings: Tensor, seen: Sequence[Sequence[int]]) -> Tensor:
    """The image tokens of each picture, filled up with zeros, `[B, 6, 256]`."""
    tokens = torch.zeros(len(seen), IMAGE_TOKENS, EMBEDDING_DIM)
    for row, numbers in zip(tokens, seen, strict=True):
        row[:len(numbers)] = embeddings[list(numbers)].float()
    return tokens


def gathered(written: Written, owners: Tensor, rows: int) -> ReferenceTokens:
    """What a block reads where pictures have different numbers of references, as `references.folded` does.

    Args:
        written: of S references `[S, N, C]`.
        owners: the picture that reads each of them `[S]`; -1 = none.
    Returns:
        Tokens `[rows, M + 2, C]` with their bias, M after `MOST_TOKENS`; the last two stand for all that are
        masked.
    """
    features, mask = written
    here = (owners >= 0)[:, None] & (mask > 0)
    by_row = torch.where(here, owners[:, None], rows).flatten()
    counts = by_row.bincount(minlength=rows + 1)[:rows]
    places = torch.arange(MOST_TOKENS[features.shape[1]], device=features.device)
    first = counts.cumsum(0) - counts
    order = by_row.argsort(stable=True)[(first[:, None] + places).clamp(max=by_row.numel() - 1)]
    none = features.new_tensor(-torch.inf, dtype=torch.float32)
    bias = torch.where(places < counts[:, None], 0, none)
    masked = torch.where(here, -1, owners[:, None]).flatten()
    zeros = (masked[masked >= 0]).bincount(minlength=rows)[:, None].float()
    tokens = functional.pad(features.flatten(0, 1)[order], (0, 0, 0, 2))
    return ReferenceTokens(tokens, torch.cat([bias, log_of_two(zeros)], 1))


def write_whole(folder: Path, model: nn.Module) -> None:
    """Write in fp16 what is not the base's own."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = Parts2Whole(
        model.denoiser.unet, model.reference_unet, model.pose_guider, model.denoiser.decoupled
    )
    write_state(folder / WHOLE, half(changes_of(parts)), METADATA | {BASE_STAMP: base_stamp()})
