"""One tensor of the published UNet is fetched, and not the rest of it."""
from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save

from pit.__main__ import main
from pit.object_insertion.published import BIAS_TARGET, REPO, UNET_PATH
from tests.commands.hub_server import HubServer
from tests.commands.test_download import error_of

pytestmark = pytest.mark.usefixtures("only_loopback")
BIAS = torch.linspace(-0.1, 0.1, 320)
UNET = {"conv_in.weight": torch.ones(320, 8, 3, 3), "conv_in.bias": BIAS, "zzz": torch.ones(5000)}


@pytest.fixture
def hub():
    with HubServer({REPO: {UNET_PATH: save(UNET)}}) as server:
        yield server


def fetch(hub, models):
    return main(["download-insertion-bias", "--models", str(models), "--endpoint", hub.endpoint])


def test_only_the_bytes_of_the_bias_are_sent(hub, models):
    assert fetch(hub, models) == 0
    written = load_file(models / BIAS_TARGET)
    assert list(written) == ["conv_in.bias"] and torch.equal(written["conv_in.bias"], BIAS)
    assert sum(answer.sent for answer in hub.transfers()) < 2000 < len(save(UNET)) / 10
    assert [path.name for path in (models / BIAS_TARGET).parent.iterdir()] == ["conv_in_bias.safetensors"]


def test_a_bias_that_is_there_is_kept(hub, models, capsys):
    assert fetch(hub, models) == 0
    before = (models / BIAS_TARGET).stat().st_mtime_ns
    assert fetch(hub, models) == 1
    assert "is there already" in error_of(capsys)
    assert (models / BIAS_TARGET).stat().st_mtime_ns == before


def with_header(header: object) -> bytes:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return len(text).to_bytes(8, "little") + text + bytes(5000)


def listed(**facts) -> bytes:
    return with_header({"conv_in.bias": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | facts})


@pytest.mark.parametrize("content, message", [
    (bytes(5000), "Expected a safetensors file"),
    (b"\xff" * 5000, "Expected a safetensors file"),
    (with_header({"other": {}}), "a list of tensors with conv_in.bias"),
    (with_header(b"[" * 3000), "a list of tensors with conv_in.bias"),
    (with_header([1]), "a list of tensors with conv_in.bias"),
    (listed(data_offsets=[0, 10**9]), "from byte 0 to 1000000000"),
    (listed(data_offsets=[-8, 8]), "from byte -8 to 8"),
    (listed(data_offsets="x"), "a list of tensors with conv_in.bias"),
    (listed(shape=[5]), "expected a complete safetensors file"),
    (listed(shape=[2, 2]), "conv_in.bias of shape [4]"),
    (save({"conv_in.bias": BIAS / 0, "zzz": torch.ones(5000)}), "finite numbers in conv_in.bias"),
])
def test_a_file_that_is_none_leaves_nothing_behind(hub, models, capsys, content, message):
    hub.repos[REPO][UNET_PATH] = content
    assert fetch(hub, models) == 1
    assert message in error_of(capsys)
    assert [path for path in models.rglob("*") if path.is_file()] == []


def test_a_hub_that_sends_whole_files_is_hung_up_on(hub, models, capsys):
    hub.ignore_ranges = True
    assert fetch(hub, models) == 1
    assert "this hub sends no parts" in error_of(capsys)


def test_a_gated_repository_and_a_missing_folder_are_told(hub, models, capsys):
    hub.status[REPO] = 401
    assert fetch(hub, models) == 1 and "HTTP 401" in error_of(capsys)
    assert fetch(hub, models / "none") == 1 and "which is not a folder" in error_of(capsys)
