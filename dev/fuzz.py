"""Damaged files for every loader: each must be read or refused in a sentence, at little cost.

    python -m dev.fuzz              10,000 files a loader
    python -m dev.fuzz --files 500 --loader adapter --seed 3

The process limits its own memory, and ends with a line for each loader, or at the first fault.
"""

from __future__ import annotations

import argparse
import random
import resource
import struct
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

LONGEST_MESSAGE, MOST_SECONDS, MOST_BYTES = 1000, 2.0, 500_000_000
# Bytes that mean something to some parser: numbers at the ends of their ranges, brackets, opcodes, markers.
TELLING = (
    b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff" * 4, b"\xff" * 8, b"\x00" * 8, b"{", b"}", b"[", b"]",
    b'"', b",", b":", b"&a",
    b"*a", b"<<: ", b"!!", b"\n", b".", b"-", b"9" * 30, b"1e999", b"NaN", b"null", b"\xff\xda",
    b"PK\x01\x02", b"R", b"b", b"Q", b"c", b"\x8a\xff", b"X\xff\xff\xff\x7f", b"0" * 40, b"\xed\xa0\x80",
)


@dataclass(frozen=True)
class Loader:
    """What reads files of a kind.

    Attributes:
        samples: good files, by the path below a folder at which they are damaged.
        whole: files that stand beside, undamaged.
        read: reads them from the folder.
        refusals: errors that are sentences for a person.
    """

    samples: Mapping[str, bytes]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...]
    whole: Mapping[str, bytes] | None = None


class Fault(Exception):
    """A file that was not refused as it should be."""


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A few changes: cut off, flipped bits, bytes that mean something, pieces doubled or taken out."""
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        # Most of what is looked at stands at the beginning, or at the end of an archive.
        place = draw.choice((draw.randrange(len(content) + 1), draw.randrange(min(len(content), 400) + 1),
                             max(0, len(content) - draw.randrange(400))))
        length = draw.choice((1, 2, 8, 64, draw.randrange(1, 4096)))
        kind = draw.randrange(7)
        if kind == 0:
            content = content[:place]
        elif kind == 1 and place < len(content):
            content = content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1:]
        elif kind == 2:
            telling = draw.choice(TELLING)
            content = content[:place] + telling + content[place + len(telling):]
        elif kind == 3:
            content = content[:place] + draw.choice(TELLING) * draw.choice((1, 1, 50, 5000)) + content[place:]
        elif kind == 4:
            content = content[:place] + content[place + length:]
        elif kind == 5:
            piece = content[place:place + length]
            content = content[:place] + piece * draw.choice((2, 3, 20)) + content[place:]
        else:
            number = struct.pack("<q", draw.choice((0, 1, 2**31, 2**62, -1)))
            content = content[:place] + number + content[place + 8:]
    return content[:1_000_000]


def rewrite(path: Path, content: bytes) -> None:
    # A new file: to truncate an old one waits for the disk.
    path.unlink()
    path.write_bytes(content)


def write_whole(loader: Loader, folder: Path) -> None:
    for name, content in {**(loader.whole or {}), **loader.samples}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def read_whole(loader: Loader, folder: Path) -> None:
    """Read every file before it is damaged, which also imports what the loader needs. Raises Fault."""
    write_whole(loader, folder)
    for name in loader.samples:
        try:
            loader.read(folder / name)
        except loader.refusals as error:
            raise Fault(f"{name} is refused before it is damaged: {error}"[:300]) from error


def fuzz(loader: Loader, files: int, seed: int, folder: Path) -> tuple[int, float]:
    """Read damaged files; how many were refused, and the longest time that one took. Raises Fault."""
    draw, refused, longest = random.Random(seed), 0, 0.0
    names = list(loader.samples)
    write_whole(loader, folder)
    for number in range(files):
        chosen = draw.choice(names)
        rewrite(folder / chosen, damaged(loader.samples[chosen], draw))
        started = time.process_time()
        try:
            loader.read(folder / chosen)
        except loader.refusals as error:
            refused += 1
            if len(str(error)) > LONGEST_MESSAGE:
                length = len(str(error))
                raise Fault(f"file {number} of seed {seed}: a message of {length} characters") from error
        except Exception as error:
            raise Fault(f"file {number} of seed {seed}: {type(error).__name__}: {error}"[:300]) from error
        seconds = time.process_time() - started
        if seconds > MOST_SECONDS:
            raise Fault(f"file {number} of seed {seed}: {seconds:.1f} s")
        longest = max(longest, seconds)
        rewrite(folder / chosen, loader.samples[chosen])
    return refused, longest


def limit_memory() -> None:
    """No more memory than what is taken already and what a small file may cost."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_BYTES, resource.RLIM_INFINITY))


def main() -> None:
    from dev.fuzz_loaders import loaders

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000, help="damaged files for each loader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader", action="append", help="only this one; may be given several times")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = loaders()
        limit_memory()
        for name in options.loader or known:
            read_whole(known[name], Path(folder) / f"fuzz {name}")
            started = time.monotonic()
            refused, longest = fuzz(known[name], options.files, options.seed, Path(folder) / f"fuzz {name}")
            print(
                f"{name}: {options.files} files, {refused} refused, {options.files - refused} read, at most "
                f"{longest:.2f} s each, {time.monotonic() - started:.0f} s", flush=True,
            )


if __name__ == "__main__":
    main()
