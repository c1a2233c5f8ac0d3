"""How a creature stands: limbs raised or lowered, leaning, mirrored, and the side that it shows."""
from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

FRONT, SIDE, BACK = VIEWS = ("front", "side", "back")
# Degrees at the ends of the scales, upward at 1 and downward at -1; of legs, apart and together.
ARM_TURN, WING_TURN, LEG_TURN, LEAN_TURN = (60, 35), (32, 85), (20, 10), 6
# A word is used for what is clearly so.
CLEARLY = 0.4


@dataclass(frozen=True)
class Pose:
    """A pose; the neutral one is that of all creatures that were drawn without any.

    Attributes:
        arms, wings: from -1, hanging down, to 1, raised.
        legs: from -1, together, to 1, apart; seen from the side, the near one in front or behind.
        lean: from -1, to the left of the picture, to 1, to the right.
        mirrored: left and right change places.
        view: one of `VIEWS`; the side view looks to the right unless mirrored.
    Raises:
        ValueError: a number outside -1..1, or an unknown view.
    """

    arms: float = 0.0
    wings: float = 0.0
    legs: float = 0.0
    lean: float = 0.0
    mirrored: bool = False
    view: str = FRONT

    def __post_init__(self) -> None:
        for name in ("arms", "wings", "legs", "lean"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"Expected {name} between -1 and 1, got {getattr(self, name)}.")
        if self.view not in VIEWS:
            raise ValueError(f"Expected one of the views {', '.join(VIEWS)}, got {self.view!r}.")

    def turn(self, part: str) -> float:
        """By how many degrees a limb on the right is turned clockwise: downward for arms and wings."""
        amount = getattr(self, part)
        up, down = {"arms": ARM_TURN, "wings": WING_TURN, "legs": LEG_TURN}[part]
        return -amount * (up if amount > 0 else down)

    def shrink(self, part: str) -> float:
        """By what factor a turned limb is smaller, so that it stays inside of the picture."""
        # Half lowered, wings reach farthest to the side.
        return 1 - 0.22 * min(1, -3 * self.wings) if part == "wings" and self.wings < 0 else 1.0


NEUTRAL = Pose()


class Limb(NamedTuple):
    """One of the limbs that make up a part, as a view shows it.

    Attributes:
        side: 1 = drawn to the right, as its painter gives it; -1 = mirrored, to the left.
        apart: from the middle of the body to its root, toward that side, in half widths of the body.
        near: drawn in front of the body.
        swing: the direction in which a pose turns it: `side`, unless it differs.
    """

    side: int
    apart: float
    near: bool = False
    swing: int = 0


def pair(apart: float, near: bool = False) -> tuple[Limb, Limb]:
    """Two limbs, one on each side; the right one comes last."""
    return Limb(-1, apart, near), Limb(1, apart, near)


# From behind, wings and tail grow toward us; from the side, the far limbs are behind the body.
LIMBS: dict[str, dict[str, tuple[Limb, ...]]] = {
    FRONT: {
        "wings": pair(0.72), "ears": pair(0.78), "horns": pair(0.34), "arms": pair(0.95, near=True),
        "legs": pair(0.52), "tail": (Limb(1, 0.62),),
    },
    SIDE: {
        "wings": (Limb(-1, -0.3), Limb(-1, 0.1, near=True)),
        "ears": (Limb(-1, -0.2), Limb(-1, 0.25, near=True)),
        "horns": (Limb(-1, -0.75), Limb(-1, -0.3)),
        "arms": (Limb(1, 0.62), Limb(1, 0.0, near=True)),
        "legs": (Limb(1, 0.42, swing=-1), Limb(1, -0.42)),
        "tail": (Limb(-1, 0.62),),
    },
    BACK: {
        "wings": pair(0.25, near=True), "ears": pair(0.78), "horns": pair(0.34), "arms": pair(0.95),
        "legs": pair(0.52), "tail": (Limb(-1, 0.0, near=True),),
    },
}


def sample_pose(rng: random.Random, view: str | None = None) -> Pose:
    """A random pose; of the views, the front comes as often as both others together, unless one is given."""
    view = view or rng.choice((FRONT, FRONT, SIDE, BACK))
    arms, wings, legs = (round(rng.uniform(-1, 1), 3) for _ in range(3))
    lean = round(rng.uniform(-1, 1), 3) if rng.random() < 0.5 else 0.0
    return Pose(arms, wings, legs, lean, rng.random() < 0.5, view)


def pose_words(pose: Pose, parts: list[str]) -> list[str]:
    """What is clear about a pose of a creature with these parts, in phrases without the neutral ones.

    "seen from behind", "facing left", "with its arms raised"
    """
    words = []
    if pose.view == BACK:
        words.append("seen from behind")
    elif pose.view == SIDE:
        words.append(f"seen from the side facing {'left' if pose.mirrored else 'right'}")
    for part, low, high in (
        ("arms", "lowered", "raised"), ("wings", "folded", "raised"), ("legs", "together", "apart"),
    ):
        amount = getattr(pose, part)
        if part in parts and abs(amount) > CLEARLY:
            words.append(f"with its {part} {high if amount > 0 else low}")
    if abs(pose.lean) > CLEARLY:
        words.append(f"leaning {'right' if pose.lean > 0 else 'left'}")
    return words
