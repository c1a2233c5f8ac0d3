"""How a weight file is refused: what every such error must say."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pit.files.weights import WeightFileError


def assert_refused(load: Callable, path: Path, *messages: str, **options) -> None:
    """One WeightFileError that begins with the file, holds the messages, and ends in what to do."""
    with pytest.raises(WeightFileError) as caught:
        load(path, **options)
    text = str(caught.value)
    assert text.startswith(str(path.parent)) and text.endswith(".") and "\n" not in text
    for message in messages:
        assert message in text, text
