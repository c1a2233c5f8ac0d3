"""The texts that the published IP-LoRAs were trained on: a fixed one for sheets, a pattern for scenes.

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
    """The published form of a scene: style, the words for the creature, the scene without its article.

    Raises:
        ValueError: the scene is empty.
    """
    # The published captions cut the article off together with "in a", so the LoRA has never seen one there.
    scene = ARTICLE.sub("", scene.strip(), count=1) if ARTICLE.match(scene.strip()) else scene.strip()
    if not scene:
        raise ValueError("Expected a scene, got none. Say where the creature is, such as: a snowy forest.")
    return " ".join(filter(None, (style.strip(), CREATURE_IN, scene)))


def scene_caption(text: str) -> str:
    """The caption of a target, such as "studio photo, a dragon in a dark forest", in the published form.

    The text before the first comma is the style; what follows the first "in a" after it is the scene, up to
    the next "in a". Fixed: "in an" does not leave an n behind, and "within a" does not count as "in a".

    Raises:
        ValueError: no comma, or no "in a" after it.
    """
    style, comma, rest = text.strip().partition(",")
    scenes = IN_A.split(rest)
    if not comma or len(scenes) < 2:
        raise ValueError(
            f'Expected a caption of the form "STYLE, ... in a SCENE", got {text.strip()!r}. Rewrite it, or '
            "use captions as they are."
        )
    return scene_prompt(scenes[1], style)
