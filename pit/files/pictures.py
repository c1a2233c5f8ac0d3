"""Pictures in folders: which can be used, how they are opened, and how files are named."""
from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageOps

from ..images import on_white
from ..messages import ShortError
from .whole import check_ordinary, write_whole

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_MOST_PIXELS = 80_000_000  # just below the size at which Pillow warns of a decompression bomb
# A white picture of 80 megapixels takes 0.1 MB in a file and gigabytes until it is encoded.
_FEW_PIXELS, _PIXELS_PER_BYTE = 24_000_000, 24
_MOST_SCANS, _SCAN = 40, b"\xff\xda"  # an encoder makes about ten, and thumbnails have some of their own
# Not whatever Pillow can open: for some formats it starts other programs, or expands without a bound.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


class PictureError(ShortError):
    """A picture that cannot be used; the message names the file."""


@dataclass(frozen=True)
class Skipped:
    """A file or folder that is not used."""

    path: Path
    why: str


@dataclass(frozen=True, eq=False)
class PackedPicture:
    """A picture in an archive, which takes the place of the path of a picture.

    Attributes:
        name: what its file would be called.
        place: where it is, for messages.
    """

    name: str
    place: Path
    content: bytes = field(repr=False)
    sha256: str


def describe_skipped(skipped: Iterable[Skipped], folder: Path) -> list[str]:
    """One line per reason: how many files it applies to, and the first three by their path in `folder`."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for each in skipped:
        inside = each.path.is_relative_to(folder)
        by_reason[each.why].append((each.path.relative_to(folder) if inside else each.path).as_posix())
    lines = []
    for why, names in sorted(by_reason.items()):
        more = ", ..." if len(names) > 3 else ""
        lines.append(f"skipped: {len(names)}, {why} ({', '.join(names[:3])}{more})")
    return lines


def open_picture(path: Path | PackedPicture) -> Image.Image:
    """The picture as RGB on white, fully decoded and upright.

    Raises PictureError if it is missing, corrupt, truncated or larger than 80 megapixels.
    """
    if isinstance(path, PackedPicture):
        return on_white(decode_bytes(path.content, str(path.place)))
    return on_white(decode_picture(path))


def decode_picture(path: Path) -> Image.Image:
    """The picture in its own mode, fully decoded and turned upright; errors as in `open_picture`."""
    try:
        check_ordinary(path)
        length = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    return _decoded(path, path, length)


def decode_bytes(content: bytes, name: str) -> Image.Image:
    """The same for the content of a file that messages call `name`."""
    return _decoded(io.BytesIO(content), name, len(content))


def _decoded(file: Path | io.BytesIO, name: Path | str, length: int) -> Image.Image:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            # Opening reads only the header: the size is known before anything is decoded, so that a small
            # file cannot expand into gigabytes.
            size, pixels = f"{image.width}x{image.height}", image.width * image.height
            if pixels <= min(_MOST_PIXELS, max(_FEW_PIXELS, length * _PIXELS_PER_BYTE)):
                _check_scans(file, image)
                return ImageOps.exif_transpose(_eight_bits(image))
    except Exception as error:  # decoders meet corrupt files with errors of every kind
        raise _unreadable(name, error) from error
    if pixels > _MOST_PIXELS:
        raise PictureError(f"Expected at most 80 megapixels, got {size} in {name}. Make it smaller.")
    raise PictureError(
        f"Expected a picture, got {size} pixels of next to nothing in the {length} bytes of {name}. Make it "
        "smaller."
    )


def _unreadable(name: Path | str, error: Exception) -> PictureError:
    return PictureError(f"Expected a picture, but {name} cannot be read ({error}). Replace or remove it.")


def _check_scans(file: Path | io.BytesIO, image: Image.Image) -> None:
    # A progressive JPEG of a megabyte can have ten thousand scans, each of which goes over all pixels.
    if image.format not in ("JPEG", "MPO"):
        return
    content = file.getvalue() if isinstance(file, io.BytesIO) else file.read_bytes()
    if content.count(_SCAN) > _MOST_SCANS:
        raise ValueError(f"expected at most {_MOST_SCANS} scans, got more")


def save_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture in the format of its ending; it appears only once it is complete. Raises OSError."""
    encoded = io.BytesIO()
    picture.save(encoded, Image.registered_extensions()[path.suffix.lower()])
    write_whole(path, encoded.getvalue())


def list_pictures(folder: Path) -> tuple[list[Path], list[Skipped]]:
    """The pictures in a folder, one per name, 2 before 10; and what else is in it, except hidden files."""
    pictures, skipped, seen = [], [], {}
    for path in listing(folder):
        if path.is_dir():
            skipped.append(Skipped(path, "a folder nested too deep"))
        elif path.suffix.lower() not in PICTURE_ENDINGS:
            skipped.append(Skipped(path, f"not one of {', '.join(PICTURE_ENDINGS)}"))
        elif not path.is_file():
            skipped.append(Skipped(path, "not an ordinary file"))
        elif seen.setdefault(same_name(path.stem), path) is not path:
            skipped.append(Skipped(path, "the same name as another"))
        else:
            pictures.append(path)
    return pictures, skipped


def file_inside(folder: Path, path: Path) -> Path | None:
    """The path, if it is that of a file in the folder or below; else None."""
    # Lists are written by other people: no path in them may lead out of the folder.
    try:
        found = path.is_file() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):  # such as a name that is too long, or with a null byte
        found = False
    return path if found else None


def same_name(name: str) -> str:
    """Equal for names that differ only in case or Unicode form: some file systems cannot tell them apart."""
    # Normalized again after case folding, which can take a composed letter apart.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def listing(folder: Path) -> list[Path]:
    """What is in a folder, except hidden files, in the order in which people count: 2 before 10."""
    visible = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(visible, key=lambda path: (counting_order(path.stem), path.name))


def counting_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts names in the order in which people count."""
    # Pairs, because a list that mixes numbers and texts cannot be compared.
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"([0-9]+)", name)]


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit gray pictures reduced to 8 bits; Pillow's own conversion clips nearly everything to white."""
    if image.mode.startswith("I"):  # "I" in older Pillow, "I;16" in newer
        return image.point(lambda value: value / 256).convert("L")
    image.load()
    return image


_MOST_BYTES = 100  # in a file name without its ending; file systems allow at least 143
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices on Windows
# What Windows does not allow in names; it also drops spaces and dots at the ends, silently.
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
_MOST_LETTERS = 1000  # that are looked at: to normalize and to search a text of a megabyte can take minutes


def picture_name(image: Image.Image) -> str:
    """A name for a picture that has none: the same for the same pixels."""
    # The size too: a picture of 2x8 and one of 4x4 can have the same bytes.
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()[:12]


def file_name(name: str) -> str:
    """`name` as a file name (without ending) that Linux, macOS and Windows accept, at most 100 bytes long.

    A name that must be changed ends in eight digits of its SHA-256, so that different names stay different.
    Raises ValueError for names that lead to another folder: empty, "." and "..", slashes, drive letters.
    """
    if name.strip() in ("", ".", "..") or re.search(r"[/\\]|^[A-Za-z]:", name):
        raise ShortError(
            f'Expected a plain name, got "{name}", which leads to another folder. Use a name without '
            "slashes and drive letters."
        )
    plain = unicodedata.normalize("NFC", name[:_MOST_LETTERS])
    safe = _without_ends(_NOT_IN_NAMES.sub("_", plain.encode("utf-8", "replace").decode("utf-8")))
    if _RESERVED.fullmatch(safe):
        safe = f"_{safe}"
    if safe == plain and len(safe.encode()) <= _MOST_BYTES and len(name) <= _MOST_LETTERS:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    # Nine bytes for the dash and the digits; "ignore" drops a letter that the cut has split.
    cut = safe.encode()[: _MOST_BYTES - 9].decode("utf-8", "ignore")
    return f"{cut}-{digest}"


def _without_ends(name: str) -> str:
    """A name whose spaces and dots at either end have become one `_`."""
    inner = name.strip(". ")
    ends = (name.startswith((".", " ")), name.endswith((".", " ")) and inner != "")
    return "_" * ends[0] + inner + "_" * ends[1]


def pictures_below(folder: Path) -> tuple[list[Path], list[str]]:
    """The pictures in a folder and in the folders directly in it, and what in them is left out."""
    places = [folder, *(
        each for each in sorted(folder.iterdir()) if each.is_dir() and not each.name.startswith(".")
    )]
    found, problems = [], []
    for place in places:
        paths, skipped = list_pictures(place)
        found += paths
        problems += [
            f"{each.path.relative_to(folder)}: {each.why}" for each in skipped if each.path not in places
        ]
    return found, problems
