"""How exactly creatures show the part words that they were drawn from, in mixtures of several species."""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import Dinov2Model

from ...images import contact_sheet, to_pil
from ...partcraft.discovery import PartClusters, Parts, codes_of, find_parts
from ...partcraft.files import PartWords
from ...partcraft.prompt import PartWord, Vocabulary
from ...partcraft.scores import measure_words
from ..drawing.captions import article
from ..drawing.creature import (
    ATTRIBUTES,
    JITTERS,
    PARTS,
    SPECIES,
    UNSEEN,
    Creature,
    part_words,
    sample_creature,
    typical_attributes,
)
from ..drawing.draw import draw_creature
from ..models.part_words import (
    PartArtist,
    Prompt,
    load_creature_clusters,
    load_creature_dino,
    load_creature_words,
)
from ..models.reader import Reading, as_pictures
from ..models.sizes import PICTURE_SIZE
from ..part_places import draw_collection, features_of
from .estimates import Estimate, mean, percent, pooled_share, share
from .markdown import markdown
from .parts_found import free_creatures, measure_parts, parts_table, verdict
from .plan import Plan
from .report import as_images
from .scores import NAMES, STYLE_OF, is_found, is_whole, targets_of
from .suite import Laboratory

SEARCHED = 8  # creatures in which parts are looked for, for each mixture
SHEET_SEEDS = 8
WORDS, CAPTIONS, CEILING = "part words", "plain captions", "true drawings"
KNOWN = 12  # members of each species that tell which codes its parts have
BARS = {1: 0.90, 2: 0.80, 3: 0.75, 4: 0.70}
WHOLE_BAR = 0.95
NOTE = (
    "EMR, CoSim and the agreement take a part for that of a species if it has the code that it most often "
    "has in fresh drawings, or one that is mostly its own there. "
    "`python -m benchmarks.creature_part_words` trains words without attention loss and without projection, "
    "and measures them in the same way. "
    "PartCraft itself (arXiv 2407.04604) reaches an EMR of 46.0% and a CoSim of 88.2% on photographs: "
    "another domain, with which nothing here can be compared."
)
# The part that each attribute belongs to: the pattern is the body's.
PART_OF = [PARTS.index("body" if NAMES[style] == "pattern" else NAMES[style]) for style in STYLE_OF]


@dataclass(frozen=True)
class Mixture:
    """Parts of several species that are asked for.

    Attributes:
        species: whose, for each part that is asked for.
        jitter: of the creature that shows them as they are drawn.
    """

    species: dict[str, str]
    jitter: dict[str, float]

    @property
    def creature(self) -> Creature:
        """A creature of these parts, without any that is not asked for."""
        values = {name: "none" if "none" in options else options[0] for name, options in ATTRIBUTES.items()}
        for part, species in self.species.items():
            values |= attributes_of(part, species)
        return Creature(next(iter(self.species.values())), values, self.jitter)

    @property
    def targets(self) -> Tensor:
        """The attributes of the parts that are asked for, `[A]`, -100 elsewhere."""
        return targets_of(self.creature, list(self.species))

    @property
    def caption(self) -> str:
        """The same in plain words."""
        creature = self.creature
        body, pattern = creature.attributes["body"], creature.attributes["pattern"]
        words = [part_words(creature, part) for part in self.species if part != "body"]
        words = [pattern, *words] if pattern != "plain" else words
        first = f"{creature.attributes['body_color']} {body} creature"
        return f"{article(first)} {first} with {' and '.join(words)}"

    def prompt(self, vocabulary: Vocabulary) -> Prompt:
        """The same in part words."""
        return [vocabulary.word(part, species) for part, species in self.species.items()]


def attributes_of(part: str, species: str) -> dict[str, str]:
    """The attributes of a part of a pure member of a species."""
    typical = typical_attributes(species)
    return {name: typical[name] for name, owner in zip(NAMES, PART_OF, strict=True) if PARTS[owner] == part}


def has_part(part: str, species: str) -> bool:
    """Whether the pure members of a species have a part."""
    return attributes_of(part, species)[part] != "none"


def draw_mixtures(parts: Sequence[str], species: int, count: int, seed: int) -> list[Mixture]:
    """Mixtures in which each of so many species gives at least one part.

    Args:
        parts: that there are words for.
    """
    rng, found = random.Random(f"mixtures/{seed}/{species}"), []
    while len(found) < count:
        chosen = rng.sample(list(SPECIES), species)
        owners = {part: rng.choice(chosen) for part in parts}
        owners = {part: owner for part, owner in owners.items() if has_part(part, owner)}
        if set(owners.values()) == set(chosen):
            found.append(Mixture(owners, {name: round(rng.uniform(-1, 1), 3) for name in JITTERS}))
    return found


@dataclass(frozen=True)
class Shown:
    """What N pictures of mixtures show.

    Attributes:
        exact: which parts have all attributes that were asked for, bool `[N, 9]`.
        by_codes: the same, as the clusters tell it.
        asked: which parts were asked for, bool `[N, 9]`.
        whole: which pictures show one complete creature, bool `[N]`.
        similarities: CoSim of each picture, `[N]`.
    """

    exact: Tensor
    by_codes: Tensor
    asked: Tensor
    whole: Tensor
    similarities: Tensor


@dataclass(frozen=True)
class WordScores:
    """The measures of pictures that were drawn alike.

    Attributes:
        exact: parts as asked, by the reader.
        emr, similarity: by the published protocol.
        agree: how often reader and clusters say the same of a part.
        whole: complete creatures.
    """

    exact: Estimate
    emr: Estimate
    similarity: Estimate
    agree: Estimate
    whole: Estimate

    @classmethod
    def of(cls, shown: Shown) -> WordScores:
        """The scores of pictures."""
        return cls(
            pooled_share(shown.exact, shown.asked), pooled_share(shown.by_codes, shown.asked),
            mean(shown.similarities), pooled_share(shown.exact == shown.by_codes, shown.asked),
            share(shown.whole),
        )


class Judge:
    """Says what pictures of mixtures show: by the reader of attributes, and by the clusters as published."""

    def __init__(self, lab: Laboratory, dino: Dinov2Model, clusters: PartClusters):
        self.lab, self.dino, self.clusters = lab, dino, clusters
        owners, codes = self._known_codes()
        names = [part.name for part in clusters.vocabulary.parts]
        # A group may have a name, and yet be seen in no drawing.
        self.groups = {
            part: names.index(part) for part in PARTS
            if part in names and (codes[:, names.index(part)] != clusters.absent).any()
        }
        self.usual = {
            (part, species): self._codes(part, species, owners, codes[:, group].tolist())
            for part, group in self.groups.items() for species in SPECIES if has_part(part, species)
        }

    @property
    def parts(self) -> list[str]:
        """The parts that were found, and can be asked for."""
        return list(self.groups)

    def _known_codes(self) -> tuple[list[str], Tensor]:
        """The species of fresh drawings, and the codes of their groups `[N, G]`."""
        owners = [species for species in SPECIES for _ in range(KNOWN)]
        rng = random.Random(f"known/{self.lab.seed}")
        drawn = [draw_creature(sample_creature(rng, 1.0, species), PICTURE_SIZE) for species in owners]
        return owners, codes_of(find_parts(features_of(self.dino, drawn), self.clusters), self.clusters)

    def _codes(self, part: str, species: str, owners: Sequence[str], codes: Sequence[int]) -> tuple[int, ...]:
        """The codes that a part of a species has in those drawings: the most frequent one, and all its own.

        None if its group is in none of them: then no picture shows the part as asked.
        """
        # Species may have a part in common: its codes are then those of both.
        wanted = attributes_of(part, species)
        alike = [attributes_of(part, owner) == wanted for owner in owners]
        shown = [code for code in codes if code != self.clusters.absent]
        counts = {
            code: sum(same for same, own in zip(alike, codes, strict=True) if own == code) for code in shown
        }
        if not any(counts.values()):
            return ()
        most = max(counts, key=counts.get)
        return tuple(sorted({
            most, *(code for code, count in counts.items() if 2 * count > codes.count(code))
        }))

    def look(self, pictures: Tensor, mixtures: Sequence[Mixture]) -> Shown:
        """What pictures `[N, 3, 256, 256]` in 0..1 show of the mixtures that they were drawn for."""
        reading = self.lab.reader.read(pictures)
        exact, asked = exact_parts(reading, torch.stack([mixture.targets for mixture in mixtures]))
        images = to_pil(pictures.permute(0, 2, 3, 1))
        parts = find_parts(features_of(self.dino, images), self.clusters)
        by_codes, similarities = self.by_codes(parts, mixtures)
        return Shown(exact, by_codes, asked, is_whole(reading), similarities)

    def by_codes(self, parts: Parts, mixtures: Sequence[Mixture]) -> tuple[Tensor, Tensor]:
        """Which parts have a code that was asked for, bool `[N, 9]`, and the CoSim of each picture, `[N]`."""
        codes = codes_of(parts, self.clusters)
        exact, similarities = torch.zeros(len(mixtures), len(PARTS), dtype=torch.bool), []
        for row, mixture in enumerate(mixtures):
            own = Parts(*(getattr(parts, name)[row:row + 1] for name in ("near", "labels", "features")))
            words = self.words(mixture)
            similarities.append(measure_words(own, self.clusters, [list(words.values())]).similarity)
            for part, word in words.items():
                exact[row, PARTS.index(part)] = int(codes[row, word.part]) in word.codes
        return exact, torch.tensor(similarities)

    def words(self, mixture: Mixture) -> dict[str, PartWord]:
        """What the clusters call the parts of a mixture that they know; one of several codes will do."""
        return {
            part: PartWord(self.groups[part], self.usual[part, species])
            for part, species in mixture.species.items() if self.usual[part, species]
        }


def exact_parts(reading: Reading, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which parts have all attributes that are wanted, and of which any is, bool `[N, 9]`; targets `[N, A]`.
    """
    found, wanted = is_found(reading, targets), targets != UNSEEN
    members = torch.tensor(PART_OF) == torch.arange(len(PARTS))[:, None]
    missed = (wanted & ~found)[:, None] & members
    return ~missed.any(dim=2), (wanted[:, None] & members).any(dim=2)


Draw = Callable[[list[Mixture]], Tensor]
"""Pictures of mixtures, `[N, 3, 256, 256]` in 0..1."""


def by_words(lab: Laboratory, artist: PartArtist) -> Draw:
    """Drawn from part words."""
    vocabulary = artist.words.vocabulary
    return lambda mixtures: artist.draw(
        [mixture.prompt(vocabulary) for mixture in mixtures], lab.seed, on_batch=lab.on_pictures
    )


def by_captions(lab: Laboratory) -> Draw:
    """Drawn from plain captions by the base alone."""
    return lambda mixtures: lab.chain.render_words(
        [mixture.caption for mixture in mixtures], lab.seed, on_batch=lab.on_pictures
    )


def as_drawn(mixtures: list[Mixture]) -> Tensor:
    """The true drawings: what reader and clusters say at best."""
    return as_pictures([draw_creature(mixture.creature, PICTURE_SIZE) for mixture in mixtures])


def measure_mixtures(
    judge: Judge, draw: Draw, count: int, species: Sequence[int] = tuple(BARS)
) -> dict[int, WordScores]:
    """The scores for mixtures of each number of species, `count` of each."""
    found = {}
    for number in species:
        mixtures = draw_mixtures(judge.parts, number, count, judge.lab.seed)
        found[number] = WordScores.of(judge.look(draw(mixtures), mixtures))
    return found


def partcraft_tables(lab: Laboratory, plan: Plan, others: Mapping[str, PartWords] | None = None) -> str:
    """Which parts are found, and what is drawn from part words, in Markdown.

    Args:
        others: further part words to draw from, by what is different about them.
    Raises:
        WeightFileError: a shipped file is missing, damaged or of another version.
    """
    dino, clusters = load_creature_dino(), load_creature_clusters()
    found = measure_parts(dino, draw_collection(free_creatures(lab.seed, SEARCHED * plan.trials)), clusters)
    judge = Judge(lab, dino, clusters)
    ways = {WORDS: load_creature_words()} | dict(others or {})
    draws = {name: by_words(lab, PartArtist(words)) for name, words in ways.items()}
    draws |= {CAPTIONS: by_captions(lab), CEILING: as_drawn}
    scores = {name: measure_mixtures(judge, draw, plan.trials) for name, draw in draws.items()}
    known = (
        f"Mixtures are of the {len(judge.parts)} parts of {len(PARTS)} that were found and have words; the "
        "targets are for all."
    )
    return "\n\n".join([parts_table(found), words_table(scores), known, NOTE])


def partcraft_pictures(plan: Plan, others: int = 0) -> int:
    """How many pictures are rendered in all."""
    return plan.trials * len(BARS) * (2 + others)


def words_table(found: dict[str, dict[int, WordScores]]) -> str:
    """The scores of each way to draw and each number of species, in Markdown, and what is to be reached."""
    rows = [
        [way, str(number), *(percent(value) for value in vars(scores).values())]
        for way, by_number in found.items() for number, scores in by_number.items()
    ]
    bars = [
        ["to be reached", str(number), verdict(scores.exact, BARS[number]), "", "", "",
         verdict(scores.whole, WHOLE_BAR)]
        for number, scores in found.get(WORDS, {}).items()
    ]
    header = ["drawn from", "species", "parts as asked", "EMR", "CoSim", "reader and clusters agree", "whole"]
    return markdown(header, rows + bars)


def mixtures_sheet(artist: PartArtist, seed: int) -> Image.Image:
    """A row for each number of species: the true drawing of a mixture, and the seeds from 0 on, none picked.

    Args:
        seed: decides which mixtures are asked for.
    """
    known = artist.words.vocabulary.names()
    parts = [part for part in PARTS if part in known]
    mixtures = [draw_mixtures(parts, number, 1, seed)[0] for number in BARS]
    prompts = [mixture.prompt(artist.words.vocabulary) for mixture in mixtures]
    columns = [as_drawn(mixtures), *(artist.draw(prompts, number) for number in range(SHEET_SEEDS))]
    return contact_sheet(as_images(torch.stack(columns, dim=1).flatten(0, 1)), len(columns), PICTURE_SIZE)
