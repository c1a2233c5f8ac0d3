"""What the published part words are called: CUB-200-2011's birds, and Stanford Dogs."""
from __future__ import annotations

import re
from pathlib import Path

from .prompt import Part, Vocabulary

NAMES = Path(__file__).with_name("names")
CLUSTERS = 256  # of the background, which has no classes
# In the order of their numbers; the published captions of the birds never mention parts 3 and 5.
PARTS = {
    "cub": ("body", "tail", "head", "", "wing", "", "leg", "background"),
    "dogs": ("eye", "background", "neck", "ear", "body", "leg", "nose", "forehead"),
}
FOLDERS = {"cub": re.compile(r"(^|[^a-z])cub"), "dogs": re.compile(r"(^|[^a-z])dogs?([^a-z]|$)")}


def published_names(collection: str) -> Vocabulary:
    """The names of the published part words of "cub" or "dogs". Raises KeyError for any other."""
    parts = PARTS[collection]
    classes = tuple((NAMES / f"{collection}.txt").read_text(encoding="utf-8").splitlines())
    counts = {"": 0, "background": CLUSTERS}
    return Vocabulary(
        tuple(Part(name, counts.get(name, len(classes)), name not in counts) for name in parts), classes
    )


def collection_of(path: Path) -> str | None:
    """The collection that the name of a file, or of the two folders around it, speaks of."""
    # The published weights of both have the same sizes, and say nothing of what they were made from.
    names = [path.stem, path.parent.name, path.parent.parent.name]
    found = [key for name in names for key, pattern in FOLDERS.items() if pattern.search(name.lower())]
    return found[0] if found else None
