"""The published tiny model as a folder of published layout, and as loaded from it."""
from __future__ import annotations

from pathlib import Path

import pytest

from pit.parts2whole.files import Parts2Whole
from pit.parts2whole.unets import Denoiser
from tests.parts2whole.cases import load_wide, write_published


@pytest.fixture(scope="session")
def published_folder(golden, tmp_path_factory) -> Path:
    return write_published(golden, tmp_path_factory.mktemp("parts2whole") / "published")


@pytest.fixture(scope="session")
def published(published_folder) -> Parts2Whole:
    return load_wide(published_folder)


@pytest.fixture(scope="session")
def denoiser(published) -> Denoiser:
    return Denoiser(published.unet, published.decoupled).eval()
