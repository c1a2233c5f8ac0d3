"""A models folder to download into, and a guard that keeps tests from reaching further than this machine."""
from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants


@pytest.fixture
def only_loopback(monkeypatch):
    """Fails a test whose code tries to reach another machine, even where the attempt is swallowed."""
    strangers = []
    look_up = socket.getaddrinfo

    def look_up_loopback(host, *arguments, **options):
        if host != "127.0.0.1":
            strangers.append(host)
            raise OSError(f"the test reached out to {host}")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up_loopback)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    assert strangers == []


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder
