"""Draw the pictures that come with the pack, but for its part sets. Run in the folder of the pack:

    python -m dev.make_examples
"""

from __future__ import annotations

import random
from dataclasses import replace

from PIL import Image

from pit.demo.drawing.composition import compose, draw_composition
from pit.demo.drawing.creature import PARTS, Creature, creature_from_seed, with_parts
from pit.demo.drawing.draw import draw_parts, draw_shape
from pit.demo.drawing.things import sample_thing, thing_shape
from pit.demo.examples import PICTURES

PIXELS = 512
WHOLE = ("horns", "wings", "tail")


def creature(seed: int) -> Creature:
    return with_parts(creature_from_seed(seed, 0.0), WHOLE, seed)


def on_its_own(shape: Image.Image) -> Image.Image:
    """A shape in the middle of a transparent square."""
    square, box = Image.new("RGBA", (PIXELS, PIXELS)), shape.getbbox()
    crop = shape.crop(box)
    scale = 0.9 * PIXELS / max(crop.size)
    crop = crop.resize([round(side * scale) for side in crop.size], Image.Resampling.LANCZOS)
    square.paste(crop, tuple((PIXELS - side) // 2 for side in crop.size))
    return square


def thing(kind: str, color: str) -> Image.Image:
    return thing_shape(sample_thing(random.Random(f"example/{kind}"), kind, color), PIXELS)


def spots() -> Image.Image:
    """A patch of a spotted body, without any ground."""
    one = creature_from_seed(2, 0.0)
    one = replace(one, attributes=one.attributes | {"pattern": "spots", "body": "boxy"})
    body = draw_shape(one, 3 * PIXELS, only="body")
    left, top, right, bottom = body.getbbox()
    middle, side = ((left + right) // 2, (top + bottom) // 2), round(0.4 * min(right - left, bottom - top))
    patch = body.crop((middle[0] - side, middle[1] - side, middle[0] + side, middle[1] + side))
    return patch.resize((PIXELS, PIXELS), Image.Resampling.LANCZOS).convert("RGB")


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    pictures = {
        "creature": on_its_own(draw_parts(creature(4), PARTS, PIXELS)),
        "another_creature": on_its_own(draw_parts(creature(7), PARTS, PIXELS)),
        "lantern": thing("lantern", "red"), "mushroom": thing("mushroom", "blue"),
        "balloon": thing("balloon", "yellow"), "spots": spots(),
        "meadow": draw_composition(compose(None, scene="meadow"), PIXELS),
        "meadow_with_a_creature": draw_composition(compose(creature(4), scene="meadow"), PIXELS),
    }
    for name, picture in pictures.items():
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
