"""How the pictures of the help pages look: pictures, words and signs in rows on white, with captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

WIDTH, HEIGHT = 640, 320  # of a whole picture, at most
LARGEST_FILE = 60_000  # bytes
TALLEST, LOWEST = 220, 48  # of the pictures in it
MARGIN, GAP, BETWEEN, SIGN, RADIUS = 12, 12, 3, 26, 8
CAPTION, LINE, TEXT, TEXT_LINE = 17, 22, 16, 20
INK, MUTED, EDGE, PALE, ACCENT = "#333333", "#555555", "#d5d5d5", "#f4f1ea", "#d1495b"
TIMES = 4  # corners and arrows are drawn so much larger, because Pillow draws them with jagged edges
QUALITIES = (82, 74, 66)


@dataclass(frozen=True)
class Cell:
    """Pictures in a grid; the first one decides the shape of all.

    Attributes:
        columns: 0 puts all into one row.
        marked: the places of those that have a colored edge.
    """

    pictures: Sequence[Image.Image]
    caption: str = ""
    columns: int = 0
    marked: Sequence[int] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows."""
        columns = self.columns or len(self.pictures)
        return columns, -(-len(self.pictures) // columns)

    def width(self, height: int) -> int:
        """In pixels, at this height."""
        columns, rows = self.grid
        first = self.pictures[0]
        each = (height - (rows - 1) * BETWEEN) / rows * first.width / first.height
        return round(columns * each + (columns - 1) * BETWEEN)

    def drawn(self, height: int) -> Image.Image:
        """As a block of this height (RGB)."""
        columns, rows = self.grid
        block = Image.new("RGB", (self.width(height), height), "white")
        for number, picture in enumerate(self.pictures):
            left, right = edges(block.width, columns, number % columns)
            top, bottom = edges(height, rows, number // columns)
            fitted = ImageOps.pad(
                picture.convert("RGB"), (right - left, bottom - top), Image.Resampling.LANCZOS, color="white"
            )
            block.paste(rounded(fitted, ACCENT if number in self.marked else EDGE), (left, top))
        return block


@dataclass(frozen=True)
class Words:
    """A card with words, as they stand in a node or a file; its lines are kept, and broken where needed."""

    text: str
    caption: str = ""
    room: int = 150  # its width

    @property
    def lines(self) -> list[str]:
        """The words as they are broken."""
        room = self.room - GAP
        broken = (wrapped(line, room, font(TEXT)) or [""] for line in self.text.splitlines())
        return [part for parts in broken for part in parts]

    def width(self, height: int) -> int:
        """In pixels, at any height: words that are wider than the card make it wider."""
        longest = max(font(TEXT).getlength(line) for line in self.lines)
        return max(self.room, round(longest) + GAP)

    @property
    def least(self) -> int:
        """The least height in which its lines have room."""
        return len(self.lines) * TEXT_LINE + GAP

    def drawn(self, height: int) -> Image.Image:
        """As a block of this height (RGB)."""
        card = rounded(Image.new("RGB", (self.width(height), height), PALE), EDGE)
        lines, pen = self.lines, ImageDraw.Draw(card)
        top = (height - len(lines) * TEXT_LINE) / 2
        for number, line in enumerate(lines):
            place = (card.width / 2, top + (number + 0.5) * TEXT_LINE)
            pen.text(place, line, INK, font(TEXT), anchor="mm")
        return card


Item = Cell | Words | str
"""What stands in a row; a text is one of the signs `+`, `-`, `=` and `->`."""


def sheet(*rows: Sequence[Item]) -> Image.Image:
    """Rows one below the other, as large as they have room (RGB), `WIDTH` wide.

    Raises:
        ValueError: they have no room.
    """
    items = [item for row in rows for item in row]
    cards = [item.least for item in items if isinstance(item, Words)]
    lowest = max([LOWEST, *cards])
    tallest = TALLEST if any(isinstance(item, Cell) for item in items) else lowest
    for height in range(tallest, lowest - 1, -2):
        laid = [Row(row, height) for row in rows]
        whole = sum(row.height for row in laid) + (len(laid) - 1) * GAP + 2 * MARGIN
        if whole <= HEIGHT and all(row.width <= WIDTH - 2 * MARGIN for row in laid):
            return stacked([row.drawn() for row in laid], whole)
    raise ValueError(f"Expected rows that fit into {WIDTH}x{HEIGHT} pixels, got {len(rows)} that do not.")


def stacked(blocks: Sequence[Image.Image], height: int) -> Image.Image:
    """Blocks one below the other, in the middle."""
    picture, top = Image.new("RGB", (WIDTH, height), "white"), MARGIN
    for block in blocks:
        picture.paste(block, ((WIDTH - block.width) // 2, top))
        top += block.height + GAP
    return picture


class Row:
    """Items side by side, with pictures of one height and captions below them."""

    def __init__(self, items: Sequence[Item], height: int):
        self.items, self.inner = items, height
        self.rooms = [SIGN if isinstance(each, str) else room_of(each, height) for each in items]
        self.captions = [
            [] if isinstance(each, str) else wrapped(each.caption, room, font(CAPTION))
            for each, room in zip(items, self.rooms, strict=True)
        ]

    @property
    def width(self) -> int:
        return sum(self.rooms) + (len(self.items) - 1) * GAP

    @property
    def height(self) -> int:
        return self.inner + max(map(len, self.captions)) * LINE

    def drawn(self) -> Image.Image:
        """The row (RGB)."""
        row, left = Image.new("RGB", (self.width, self.height), "white"), 0
        pen = ImageDraw.Draw(row)
        for item, room, lines in zip(self.items, self.rooms, self.captions, strict=True):
            block = sign(item, self.inner) if isinstance(item, str) else item.drawn(self.inner)
            row.paste(block, (left + (room - block.width) // 2, 0))
            for number, line in enumerate(lines):
                place = (left + room / 2, self.inner + (number + 0.5) * LINE)
                pen.text(place, line, MUTED, font(CAPTION), anchor="mm")
            left += room + GAP
        return row


def room_of(item: Cell | Words, height: int) -> int:
    """The width of an item with its caption, of which a single word may be wider than the pictures."""
    longest = max((font(CAPTION).getlength(word) for word in item.caption.split()), default=0)
    return max(item.width(height), round(longest))


def wrapped(text: str, room: float, face: ImageFont.FreeTypeFont) -> list[str]:
    """The lines of a text that has this room in pixels; words are not broken."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def sign(kind: str, height: int) -> Image.Image:
    """A sign of this height: `+`, `-`, `=`, or an arrow for `->`."""
    large = Image.new("RGB", (SIGN * TIMES, height * TIMES), "white")
    pen, middle, end, thick = ImageDraw.Draw(large), large.height // 2, large.width, 3 * TIMES
    if kind == "->":
        pen.line((0, middle, end - 8 * TIMES, middle), INK, thick)
        tip, back = 7 * TIMES, end - 14 * TIMES
        pen.polygon([(end - TIMES, middle), (back, middle - tip), (back, middle + tip)], INK)
    else:
        bars = {"+": (0,), "-": (0,), "=": (-4 * TIMES, 4 * TIMES)}[kind]
        for shift in bars:
            pen.line((5 * TIMES, middle + shift, end - 5 * TIMES, middle + shift), INK, thick)
        if kind == "+":
            half = end // 2 - 5 * TIMES
            pen.line((end // 2, middle - half, end // 2, middle + half), INK, thick)
    return large.resize((SIGN, height), Image.Resampling.LANCZOS)


def rounded(picture: Image.Image, edge: str) -> Image.Image:
    """With round corners on white, and a thin edge."""
    size = tuple(side * TIMES for side in picture.size)
    box, radius = (0, 0, size[0] - 1, size[1] - 1), RADIUS * TIMES
    width = TIMES * (3 if edge == ACCENT else 1)
    inside, line = Image.new("L", size), Image.new("L", size)
    ImageDraw.Draw(inside).rounded_rectangle(box, radius, fill=255)
    ImageDraw.Draw(line).rounded_rectangle(box, radius, outline=255, width=width)
    inside, line = (mask.resize(picture.size, Image.Resampling.LANCZOS) for mask in (inside, line))
    whole = Image.composite(picture, Image.new("RGB", picture.size, "white"), inside)
    whole.paste(edge, mask=line)
    return whole


def tinted(picture: Image.Image, mask: Image.Image, color: str = ACCENT, share: float = 0.55) -> Image.Image:
    """A picture with a color over what a mask of any size covers."""
    where = mask.convert("L").resize(picture.size).point(lambda value: round(share * value))
    picture = picture.convert("RGB")
    return Image.composite(Image.new("RGB", picture.size, color), picture, where)


def difference(first: Image.Image, second: Image.Image) -> Image.Image:
    """How far two pictures of one size differ at each place, dark on white."""
    found = ImageChops.difference(first.convert("RGB"), second.convert("RGB")).convert("L")
    return ImageOps.invert(found.point(lambda value: min(255, 3 * value))).convert("RGB")


def edges(whole: int, count: int, number: int) -> tuple[int, int]:
    """Where one of equal shares of a length begins and ends, with `BETWEEN` between two."""
    each = (whole - (count - 1) * BETWEEN) / count
    start = number * (each + BETWEEN)
    return round(start), round(start + each)


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The one that comes with Pillow, the same everywhere."""
    return ImageFont.load_default(size)


def encoded(picture: Image.Image) -> bytes:
    """As JPEG, of the best quality with which the file stays small.

    Raises:
        ValueError: it does not stay small.
    """
    for quality in QUALITIES:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, optimize=True, subsampling=0)
        if file.tell() <= LARGEST_FILE:
            return file.getvalue()
    raise ValueError(f"Expected a file of at most {LARGEST_FILE} bytes, got {file.tell()}.")
