"""The texts that the published IP-LoRAs were trained on: a fixed one for sheets, a form of words for scenes.

Source: Piece it Together (github.com/eladrich/PiT), its IP-LoRA trainer and inference script.
"""
from __future__ import annotations

import re

CHARACTER_SHEET = (
    "a character sheet displaying a creature, from several angles with 1 large front view in the middle, "
    "clean white background. In the background we can see half-completed, partially colored, sketches of "
    "different parts of the object"
)
CREATURE_IN = "an imaginary fantasy creature in"
ARTICLE = re.compile(r"an?\s+", re.IGNORECASE)
IN_A = re.compile(r"\bin an?\b", re.IGNORECASE)


def scene_prompt(scene: str, style: str = "") -> str:
    """The published form of a scene: style, then the words for the creature, then the scene without article.

    Raises:
        ValueError: the scene is empty.
    """
    scene = ARTICLE.sub("", scene.strip(), count=1) if ARTICLE.match(scene.strip()) else scene.strip()
    if not scene:
        raise ValueError("The scene is empty. Say where the creature is to be, such as: a snowy forest.")
    return " ".join(filter(None, (style.strip(), CREATURE_IN, scene)))


def scene_caption(text: str) -> str:
    """The caption of a target, such as "studio photo, a dragon in a dark forest", in the published form.

    What stands before the first comma is the style, what follows the first "in a" behind it the scene, up to
    the next "in a". Mended: "in an" does not leave an n behind, and "within a" is no "in a".

    Raises:
        ValueError: no comma, or no "in a" behind it.
    """
    style, comma, rest = text.strip().partition(",")
    scenes = IN_A.split(rest)
    if not comma or len(scenes) < 2:
        raise ValueError(
            f'The caption {text.strip()!r} has no "STYLE, ... in a SCENE". Write it so, or use captions as '
            "they are."
        )
    return scene_prompt(scenes[1], style)
