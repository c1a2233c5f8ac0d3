"""The archives in which torch saves: a pickle, and a record for each storage."""
from __future__ import annotations

import zipfile
from io import BytesIO

LONGEST_PICKLE = 16_000_000  # bytes without the tensors' values; that of a complete SDXL has 0.4 million
MOST_EXPANSION = 16  # of a compressed archive; trained weights shrink by less than a half


class UnsoundPickle(ValueError):
    """What was expected of a pickle and what it holds instead, to follow "expected"."""


def is_compressed(archive: zipfile.ZipFile) -> bool:
    """Whether any record of an archive is compressed."""
    return any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist())


def pickle_in(archive: zipfile.ZipFile, size: int) -> tuple[BytesIO, dict[str, int]]:
    """The pickle in an archive of `size` bytes by torch, and the bytes of its storages by their keys.

    Raises:
        UnsoundPickle: it claims more than the file has, or is too long.
        Exception: of any kind, for a damaged file.
    """
    records = archive.infolist()
    # torch finds a record whatever the case of its name: two that differ in it alone could be confused.
    if len({record.filename.lower() for record in records}) != len(records):
        raise UnsoundPickle("records with different names in an archive, got two with one name.")
    total = sum(record.file_size for record in records)
    if total > size * (MOST_EXPANSION if is_compressed(archive) else 1):
        raise UnsoundPickle(
            f"an archive whose records lie in its {size} bytes, got records of {total} bytes. Unpack it, "
            "and save it again with torch.save."
        )
    root = root_of(archive)
    with archive.open(f"{root}/data.pkl") as stream:
        content = stream.read(LONGEST_PICKLE + 1)
    sizes = {record.filename.removeprefix(f"{root}/data/"): record.file_size for record in records}
    return bounded(content), sizes


def root_of(archive: zipfile.ZipFile) -> str:
    """The folder in which the records of an archive by torch lie."""
    return archive.infolist()[0].filename.partition("/")[0]


def bounded(content: bytes) -> BytesIO:
    """A pickle to read. Raises UnsoundPickle for one that is too long."""
    if len(content) > LONGEST_PICKLE:
        raise UnsoundPickle(
            f"at most {LONGEST_PICKLE} bytes beside the tensors' values, got more. Save only the tensors."
        )
    return BytesIO(content)
