"""The picture of a direction: where pictures of both classes lie along it when they are left out."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from .directions import Separation

WIDTH, ROW, MARGIN = 720, 150, 24
INK, PALE, FIRST, SECOND = "#333333", "#d8d8d8", "#5b8fc7", "#d1495b"
DOT = 5


def separation_chart(found: Mapping[str, Separation]) -> Image.Image:
    """A row for each space (RGB): every left-out picture as a dot, and the middle between the classes."""
    image = Image.new("RGB", (WIDTH, ROW * len(found)), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(15)
    for number, (name, separation) in enumerate(found.items()):
        top = number * ROW
        text = f"{name}: {separation.accuracy:.0%} of the left-out pictures on their side"
        draw.text((MARGIN, top + 12), text, INK, font)
        widest = max(separation.first.abs().max().item(), separation.second.abs().max().item()) or 1.0
        draw.line((WIDTH / 2, top + 42, WIDTH / 2, top + ROW - 12), PALE, 2)
        for places, colour, line in ((separation.first, FIRST, 62), (separation.second, SECOND, 102)):
            draw_dots(draw, [place / widest for place in places.tolist()], top + line, colour)
        for label, x, anchor, colour in (
            ("first", MARGIN, "la", FIRST), ("second", WIDTH - MARGIN, "ra", SECOND),
        ):
            draw.text((x, top + ROW - 22), label, colour, font, anchor=anchor)
    return image


def draw_dots(draw: ImageDraw.ImageDraw, places: Sequence[float], top: float, colour: str) -> None:
    """Places from -1 to 1 as dots, moved up and down so that few hide each other."""
    for index, place in enumerate(places):
        x = WIDTH / 2 + place * (WIDTH / 2 - MARGIN - DOT)
        y = top + (index % 5 - 2) * 6
        draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), colour)
