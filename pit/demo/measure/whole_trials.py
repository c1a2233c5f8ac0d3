"""What the measures ask of the creatures' Parts2Whole: unseen mixtures in a pose, and their parts."""
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...parts2whole.parts import Reference
from ..drawing.composition import Composition, compose, draw_composition
from ..drawing.creature import PARTS, UNSEEN, Creature, sample_creature, visible_slots
from ..drawing.draw import draw_label_map, draw_masks, label_picture
from ..drawing.mixture import slots_of, with_parts_of
from ..drawing.pose import NEUTRAL, sample_pose
from ..models.reader import as_pictures
from ..models.sizes import PICTURE_SIZE
from ..models.whole_pictures import Request
from .scores import NAMES, targets_of
from .trials import FREE, Trial, scene_caption


@dataclass(frozen=True)
class WholeTrial:
    """A picture to make.

    Attributes:
        target: the creature in its pose; its given parts are those of `sources`.
        sources: the creatures that the given parts come from, by part.
        scene: what the prompt asks for.
    """

    target: Creature
    sources: dict[str, Creature]
    scene: str = "white"

    @property
    def composition(self) -> Composition:
        """The picture itself."""
        return compose(self.target, scene=self.scene)

    @property
    def parts(self) -> Trial:
        """The same parts for those that read pictures of parts alone, and know no poses."""
        return Trial(replace(self.target, scene=self.scene, pose=NEUTRAL), tuple(self.sources))

    def request(self, figure: Creature | None = None) -> Request:
        """The references with their masks, a label map, and a prompt that names the scene.

        Args:
            figure: whose label map is the pose; by default the target itself.
        """
        references = tuple(reference(source, part) for part, source in self.sources.items())
        pose = label_picture(draw_label_map(figure or self.target, PICTURE_SIZE))
        return Request(references, pose, scene_caption(self.scene))


def reference(creature: Creature, part: str) -> Reference:
    """A creature on white, with a mask of one part."""
    picture = as_pictures([draw_composition(compose(creature), PICTURE_SIZE)]).movedim(1, -1)
    return Reference(picture, part, torch.from_numpy(draw_masks(creature, [part], PICTURE_SIZE)))


def draw_whole_trials(seed: int, count: int, parts: int, scenes: Sequence[str]) -> list[WholeTrial]:
    """Free mixtures in random poses with `parts` given parts each, the same for the same arguments."""
    rng = random.Random(f"wholes/{seed}/{parts}")
    trials: list[WholeTrial] = []
    while len(trials) < count:
        creature = sample_creature(rng, FREE)
        if len(creature.parts) >= parts:
            given = rng.sample(creature.parts, parts)
            sources = {part: creature_with(rng, part) for part in given}
            target = replace(with_parts_of(creature, sources), pose=sample_pose(rng))
            trials.append(WholeTrial(target, sources, rng.choice(list(scenes))))
    return trials


def creature_with(rng: random.Random, part: str) -> Creature:
    """A free mixture that has this part."""
    while True:
        creature = sample_creature(rng, FREE)
        if creature.attributes[part] != "none":
            return creature


def given_targets(trials: Sequence[WholeTrial]) -> Tensor:
    """The attributes of the given parts that the poses show, `[N, A]`; -100 elsewhere."""
    return torch.stack([only(trial.target, trial.sources, trial.target) for trial in trials])


def masked_targets(trials: Sequence[WholeTrial], others: Sequence[WholeTrial], number: int) -> Tensor:
    """What the mask of a reference leaves out: the attributes of parts that neither is given, `[N, A]`.

    Args:
        trials: which parts are given, and what of the others can be seen.
        others: as many trials, whose references have these attributes.
        number: of the reference in each of `others`.
    """
    rows = []
    for trial, other in zip(trials, others, strict=True):
        # A reference of another picture is sure to have the part that it was chosen for: that is not chance.
        left = [part for part in PARTS if part not in {*trial.sources, *other.sources}]
        rows.append(only([*other.sources.values()][number], left, trial.target))
    return torch.stack(rows)


def only(creature: Creature, parts: Sequence[str] | dict[str, Creature], seen: Creature) -> Tensor:
    """The attributes of some parts of a creature that the view of another one shows, `[A]`."""
    names = {name for part in parts for name in slots_of(part)}
    shown = visible_slots(seen)
    hidden = [name not in names or name.removesuffix("_color") not in shown for name in NAMES]
    return targets_of(creature).masked_fill(torch.tensor(hidden), UNSEEN)
