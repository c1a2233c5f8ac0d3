"""A tiny token cache, and a tiny prior to train on it."""
from __future__ import annotations

import pytest
import torch

from pit.piece_it_together.prior_files import PriorConfig
from pit.piece_it_together.training.cache import TokenCache
from pit.piece_it_together.training.start import build_prior
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
