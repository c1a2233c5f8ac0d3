"""Recipes as a device can run them."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pit.flow.precision import cpu_has_bf16
from pit.piece_it_together.ip_lora.recipes import PUBLISHED
from pit.training import launch
from pit.training.launch import for_device

BF16 = replace(PUBLISHED, precision="bf16")


def test_this_cpu_is_looked_at():
    assert cpu_has_bf16() in (True, False)
    assert for_device(BF16, torch.device("cpu")).precision == ("bf16" if cpu_has_bf16() else "fp32")


@pytest.mark.parametrize("has", [True, False])
def test_only_a_cpu_without_bfloat16_changes_a_recipe(monkeypatch, caplog, has):
    monkeypatch.setattr(launch, "cpu_has_bf16", lambda: has)
    found = for_device(BF16, torch.device("cpu"))
    assert found == (BF16 if has else PUBLISHED)
    assert ("training in fp32" in caplog.text) is not has
    assert for_device(BF16, torch.device("cuda")) == BF16
    assert for_device(PUBLISHED, torch.device("cpu")) == PUBLISHED
