"""A tiny token cache, and a tiny prior to train on it."""
from __future__ import annotations

import pytest
import torch

from pit.checkpoints import PriorConfig
from pit.training.cache import TokenCache
from pit.training.start import build_prior
from tests.training.tiny import WIDTH, write_cache


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> TokenCache:
    return write_cache(tmp_path_factory.mktemp("tokens") / "cache")


@pytest.fixture(scope="session")
def config() -> PriorConfig:
    return PriorConfig(WIDTH, 32, 2, 2, 256)


@pytest.fixture
def prior(config):
    torch.manual_seed(0)
    return build_prior(config)
