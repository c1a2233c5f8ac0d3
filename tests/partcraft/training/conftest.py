"""Encoded pictures with parts."""
from __future__ import annotations

import pytest

from pit.partcraft.training.cache import PartCache
from tests.partcraft.training.small import encoded


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> PartCache:
    """Six of them, in two versions each."""
    return encoded(tmp_path_factory.mktemp("parts"))
