"""Golden data from any folder; a tiny token cache, and a tiny prior to train on it."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pit.piece_it_together.prior_files import PriorConfig
from pit.piece_it_together.training.cache import TokenCache
from tests.golden import BUNDLED, Golden
from tests.training.tiny import WIDTH, write_cache


def pytest_addoption(parser):
    described = "take golden data from this folder instead of tests/golden"
    parser.addoption("--golden", metavar="DIR", type=Path, default=BUNDLED, help=described)


def golden_folder(config) -> Golden:
    return Golden(config.invocation_params.dir / config.getoption("golden"))


def pytest_configure(config):
    folder = golden_folder(config).folder
    if not any(folder.glob("*.safetensors")):
        raise pytest.UsageError(f"Expected a folder of golden data for --golden, got {folder}.")


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("golden_keys")
    if marker is None:
        return
    golden, (file, pattern) = golden_folder(metafunc.config), marker.args
    keys = golden.keys(file, pattern)
    lack = f"{golden.folder} has no {file}.safetensors, or no {pattern} in it"
    if not keys and golden.folder == BUNDLED:
        raise LookupError(lack)
    metafunc.parametrize("key", keys or [pytest.param("", marks=pytest.mark.skip(reason=lack), id="none")])


def pytest_collection_modifyitems(items):
    for item in items:
        if "golden" in getattr(item, "fixturenames", ()):
            item.add_marker("golden")


@pytest.fixture(scope="session")
def golden(request) -> Golden:
    """The golden data; whoever takes it compares with the published implementation."""
    return golden_folder(request.config)


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> TokenCache:
    return write_cache(tmp_path_factory.mktemp("tokens") / "cache")


@pytest.fixture(scope="session")
def config() -> PriorConfig:
    return PriorConfig(WIDTH, 32, 2, 2, 256)


@pytest.fixture
def prior(config):
    from pit.piece_it_together.training.start import build_prior  # with packages that take seconds

    torch.manual_seed(0)
    return build_prior(config)
