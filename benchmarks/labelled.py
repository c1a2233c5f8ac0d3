"""Sheets of pictures with labeled rows and columns, as the README shows them."""
from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

CELL, LABEL, TITLE = 104, 150, 24


def sheet(rows: dict[str, list[Image.Image]], columns: list[str]) -> Image.Image:
    """Pictures in labeled rows below labeled columns (RGB)."""
    image = Image.new("RGB", (LABEL + CELL * len(columns), CELL * len(rows) + TITLE), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)
    for number, name in enumerate(columns):
        name = name.replace("_", " ")
        draw.text((LABEL + CELL * number + CELL // 2, TITLE // 2), name, "#333333", font, anchor="mm")
    for row, (label, pictures) in enumerate(rows.items()):
        draw.text((12, TITLE + CELL * row + CELL // 2), label, "#333333", font, anchor="lm")
        for column, picture in enumerate(pictures):
            image.paste(picture.resize((CELL, CELL)), (LABEL + CELL * column, TITLE + CELL * row))
    return image
