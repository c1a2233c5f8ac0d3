"""What an operator learns from, encoded once: the embeddings of each example, one file for each.

`pit.training.sample_cache` describes the files. A training reads embeddings alone, so that no encoder runs
then, and none ever runs twice on a picture.
"""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...files.lock import only_process
from ...files.pictures import PictureError, Skipped, open_picture
from ...files.records import Models
from ...files.weights import WeightFileError, read_state
from ...files.whole import sha256_of
from ...images import clip_pixel_values
from ...ip_adapter.encoder import fingerprint, probe_picture
from ...training.sample_cache import digest, models_folder, read_sample, write_sample
from ..embeddings import CROPPED, LETTERBOXED, pixel_values
from ..modes import MODES, WORDS
from .draw import DRAWN, STORED, Drawn
from .layouts import Example, OperatorDataset
from .prepare import Pictures, Versions, prepare
from .words import WordBank, read_word_bank

RECIPE = "1"  # changes with what `prepare` makes of the same files
PROBE = "a shiny thing"
PICTURES_AT_ONCE = 32
# In fp16, which takes half the room; numbers of words are no embeddings.
EMBEDDINGS = ("target", "first", "second", "parts", "sentences")
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class OperatorEncoders:
    """The frozen models that encode for operators.

    Attributes:
        name: the image encoder's file, for messages.
        size: side of its square pictures, in pixels.
        pictures: pixel values `[B, 3, size, size]` -> raw embeddings `[B, E]` float32 on the CPU.
        words: lines -> last hidden state of each `[L, E]`, after the final layer norm and from the first
            token to that of the end, and the embeddings of all `[B, E]`; None = there is no text encoder.
    """

    name: str
    size: int
    pictures: Callable[[Tensor], Tensor]
    words: Callable[[Sequence[str]], tuple[list[Tensor], Tensor]] | None = None

    def encode(self, pixels: Tensor) -> Tensor:
        """Embeddings of many pictures `[n, E]`. Raises ValueError if they are not finite."""
        found = torch.cat([self.pictures(chunk).float().cpu() for chunk in pixels.split(PICTURES_AT_ONCE)])
        return finite(found, self.name)


@dataclass(frozen=True)
class OperatorCache:
    """The encoded examples of a dataset.

    Attributes:
        names, files: of the examples, in order.
        randoms: the files of pictures that are learned without a condition.
        models: the models that encoded them.
        width: E of the embeddings.
        words: the last hidden state of each word `[L, E]`, for the mode "instruct".
    """

    mode: str
    names: tuple[str, ...]
    files: tuple[Path, ...]
    randoms: tuple[Path, ...]
    models: Models
    width: int
    words: tuple[Tensor, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identifies the pictures and words in it; `models` identifies the encoders."""
        # The name of a file is a hash of what its example is made of.
        files = [self.mode, *(path.name for path in self.files), "randoms", *(p.name for p in self.randoms)]
        return hashlib.sha256("\n".join(files).encode()).hexdigest()

    def draw(self, index: int, rng: random.Random) -> Drawn:
        """One of the samples that an example gives. Raises WeightFileError if its file is damaged."""
        drawn = DRAWN[self.mode](read_example(self.files[index], self.mode), rng)
        return drawn if drawn.word is None else drawn._replace(words=self.words[drawn.word])

    def draw_random(self, rng: random.Random) -> Drawn:
        """A picture without a condition."""
        target = read_sample(rng.choice(self.randoms), ["target"])["target"][0]
        # The published trainer shows the picture itself in both slots, and then drops them.
        return Drawn(target.expand(2, -1), target, is_random=True)


def read_example(path: Path, mode: str) -> dict[str, Tensor]:
    """The embeddings of an example. Raises WeightFileError if its file is damaged."""
    return read_sample(path, STORED[mode])


def encode_operator_dataset(
    dataset: OperatorDataset, folder: Path, encoders: OperatorEncoders, *, versions: int = 4, seed: int = 0,
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[OperatorCache, list[Skipped]]:
    """Encode what the folder does not hold yet; what cannot be read is left out and named.

    Args:
        versions: of what the published trainer draws anew in each step: patches, places, backgrounds, words.
        seed: decides these.
        on_progress: called with the number of examples that are done and the number of all; may raise to
            cancel. What is complete by then is kept, and the next call resumes from there.
    Raises:
        WeightFileError: a file cannot be written.
        ValueError: no example is left, fewer than one version, or a text encoder is missing or of another
            width.
        InUseError: another process encodes to the folder.
    """
    if versions < 1:
        raise ValueError(f"Expected at least 1 version of each picture, got {versions}.")
    takes_words = MODES[dataset.mode].takes == WORDS
    if takes_words and encoders.words is None:
        raise ValueError(f"Expected a text encoder for the mode {dataset.mode}, got none. Give one as well.")
    bank = read_word_bank(dataset.folder) if takes_words else None
    with only_process(folder):
        models = models_of(encoders, takes_words)
        encoding = Encoding(
            models_folder(folder, models), encoders, dataset, Versions(versions, seed, dataset.backgrounds),
            bank,
        )
        return encoding.run(models, on_progress)


def models_of(encoders: OperatorEncoders, takes_words: bool) -> Models:
    """Fingerprints of the encoders, by what they answer to a test picture and a few words."""
    answer = encoders.pictures(clip_pixel_values([probe_picture(encoders.size)], encoders.size))
    models = {"image encoder": fingerprint(encoders.name, answer)}
    if takes_words:
        states, said = encoders.words([PROBE])
        if states[0].shape[-1] != answer.shape[-1] or said.shape[-1] != answer.shape[-1]:
            raise ValueError(
                f"Expected a text encoder of the width of the image encoder, {answer.shape[-1]}, got "
                f"{states[0].shape[-1]}. Take both from one CLIP (ViT-bigG for the published operators)."
            )
        models["text encoder"] = fingerprint("text encoder", states[0])
    return models


@dataclass(frozen=True)
class Encoding:
    """One pass over a dataset, into a folder of these models."""

    folder: Path
    encoders: OperatorEncoders
    dataset: OperatorDataset
    versions: Versions
    bank: WordBank | None

    def run(self, models: Models, on_progress: OnProgress) -> tuple[OperatorCache, list[Skipped]]:
        """Encode what is missing."""
        examples, randoms = self.dataset.examples, self.dataset.randoms
        names, files, found, skipped, total = [], [], [], [], len(examples) + len(randoms)
        words = () if self.bank is None else self.words()
        for done, example in enumerate(examples):
            on_progress(done, total)
            path = self.kept(example.first, lambda example=example: self.example(example), skipped)
            if path is not None:
                names.append(example.name)
                files.append(path)
        for done, picture in enumerate(randoms):
            on_progress(len(examples) + done, total)
            path = self.kept(picture, lambda picture=picture: self.random_picture(picture), skipped)
            found += [] if path is None else [path]
        on_progress(total, total)
        if not files:
            raise ValueError(
                f"Expected at least one example that can be read, got none of {len(examples)}: "
                f"{skipped[0].why}. Replace the pictures."
            )
        width = read_example(files[0], self.dataset.mode)["target"].shape[-1]
        mode = self.dataset.mode
        return OperatorCache(mode, tuple(names), tuple(files), tuple(found), models, width, words), skipped

    def kept(self, source: Path, encode: Callable[[], Path], skipped: list[Skipped]) -> Path | None:
        """The file of what is encoded, or None and an entry in `skipped`."""
        try:
            return encode()
        except (PictureError, OSError) as error:
            skipped.append(Skipped(source, f"it or what belongs to it cannot be used ({error})"))
            return None

    def example(self, example: Example) -> Path:
        """The file of an example, which is encoded if there is none."""
        path = self.path_of(example)
        if not path.is_file():
            pictures = prepare(self.dataset.mode, example, self.versions)
            write_sample(path, self.embeddings(pictures) | self.said(example), half=EMBEDDINGS)
        return path

    def path_of(self, example: Example) -> Path:
        """Named by everything that the example is made of."""
        sources = [f"{what} {sha256_of(path)}" for what, paths in example.files.items() for path in paths]
        grounds = ()
        if self.dataset.mode == "scene":
            chosen = (self.versions.background_of(example.name, i) for i in range(self.versions.count))
            grounds = ["white" if path is None else sha256_of(path) for path in chosen]
        words = () if self.bank is None else (example.text, *self.bank.adjectives, "/", *self.bank.art_types)
        drawn = (example.name, str(self.versions.count), str(self.versions.seed))
        return self.file([RECIPE, self.dataset.mode, *drawn, *sources, *grounds, *words])

    def random_picture(self, picture: Path) -> Path:
        """The file of a picture without a condition, which is encoded if there is none."""
        path = self.file([RECIPE, "random", sha256_of(picture)])
        if not path.is_file():
            write_sample(path, self.embeddings({"target": [open_picture(picture)]}), half=["target"])
        return path

    def file(self, parts: Iterable[str]) -> Path:
        return self.folder / f"{digest([*parts])}.safetensors"

    def embeddings(self, pictures: Pictures) -> dict[str, Tensor]:
        """The embeddings of pictures, those of all names in one pass."""
        # Garments are seldom square: cropped, as the published trainer does, they would lose their ends.
        fit = LETTERBOXED if self.dataset.mode == "clothes" else CROPPED
        everything = [picture for group in pictures.values() for picture in group]
        try:
            pixels = pixel_values(everything, fit, self.encoders.size)
        except ValueError as error:
            raise PictureError(str(error)) from error
        found = self.encoders.encode(pixels).split([len(group) for group in pictures.values()])
        return dict(zip(pictures, found, strict=True))

    def said(self, example: Example) -> dict[str, Tensor]:
        """The words that are learned for an example, by number, and the embeddings of their sentences."""
        if self.bank is None:
            return {}
        drawn = [self.bank.draw(example.text, rng) for rng in self.versions.each(example.name)]
        _, sentences = self.encoders.words([each.sentence for each in drawn])
        numbers = torch.tensor([self.bank.all.index(each.word) for each in drawn])
        return {"words": numbers, "sentences": finite(sentences.float().cpu(), "the text encoder")}

    def words(self) -> tuple[Tensor, ...]:
        """The last hidden states of all words, which are encoded if there is no file of them."""
        path = self.file([RECIPE, "words", *self.bank.all])
        if not path.is_file():
            states, _ = self.encoders.words(self.bank.all)
            states = [finite(state.float().cpu(), "the text encoder") for state in states]
            write_sample(path, {str(number): state for number, state in enumerate(states)})
        state, _ = read_state(path)
        missing = [word for number, word in enumerate(self.bank.all) if str(number) not in state]
        if missing:
            raise WeightFileError(f"{path}: expected all words, got none for {missing[0]!r}. Remove it.")
        return tuple(state[str(number)].float() for number in range(len(self.bank.all)))


def finite(values: Tensor, name: str) -> Tensor:
    """The values. Raises ValueError unless all are finite, which those of a damaged encoder are not."""
    if not values.isfinite().all():
        raise ValueError(
            f"Expected finite embeddings from {name}, got NaN or infinite values: its file is damaged. Fetch "
            "it again."
        )
    return values
