"""The published models at the tiny size of the golden data."""
from __future__ import annotations

from typing import Any

import pytest
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from pit.object_insertion.embedding_optimizer import AnyOptimizer
from pit.object_insertion.files import load_embedding_optimizer


@pytest.fixture
def optimizer(golden) -> AnyOptimizer:
    return load_embedding_optimizer(golden.path("object_insertion_tiny_emb_opt.pt"))


@pytest.fixture
def optimizer_state(golden) -> dict[str, Tensor]:
    return golden.below("object_insertion_tiny_state", "embedding_optimizer.")


@pytest.fixture
def legacy_state(golden) -> dict[str, Tensor]:
    return golden.below("object_insertion_tiny_state", "legacy_embedding_optimizer.")


@pytest.fixture(scope="session")
def unet(golden) -> UNet2DConditionModel:
    return golden_module(golden, UNet2DConditionModel, "unet")


@pytest.fixture(scope="session")
def vae(golden) -> AutoencoderKL:
    return golden_module(golden, AutoencoderKL, "vae")


def golden_module(golden, kind: Any, name: str) -> nn.Module:
    module = kind(**golden.facts("object_insertion_tiny_config")[name])
    module.load_state_dict(golden.below("object_insertion_tiny_state", f"{name}."))
    return module.eval().requires_grad_(False)
