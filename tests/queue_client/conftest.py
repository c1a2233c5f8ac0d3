"""Servers, a workflow, and the command."""

import argparse
import json
from contextlib import ExitStack

import pytest

from queue_client import work
from queue_client.command import add_arguments, run
from tests.queue_client.fake import FakeComfy

GRAPH = {
    "1": {"class_type": "PiT_LoadPartSets", "inputs": {"folder": "examples", "first": 2, "most": 100}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 5, "cfg": 2.0, "steps": 4, "sampler_name": "euler",
                                               "positive": ["1", 0]}, "_meta": {"title": "Sampler v1.5"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": ["1", 1]}},
}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(work, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(work, "RETRY_SECONDS", 0.01)


@pytest.fixture
def servers():
    """Starts as many servers as are asked for."""
    with ExitStack() as stack:
        yield lambda count: [stack.enter_context(FakeComfy()) for _ in range(count)]


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(GRAPH))
    return path


@pytest.fixture
def queue(workflow, tmp_path):
    """Runs the command with the workflow, into the folder results."""
    def call(servers, *arguments, file=workflow) -> int:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        names = [each.name for each in servers]
        given = [file, "--output", tmp_path / "results", "--patience", 0, *arguments, "--server", *names]
        return run(parser.parse_args([str(each) for each in given]))

    return call


@pytest.fixture
def results(tmp_path):
    """What has come, by the names of the files."""
    def found() -> dict[str, dict]:
        files = sorted((tmp_path / "results").glob("*.png"))
        return {path.name: json.loads(path.read_bytes()) for path in files}

    return found


@pytest.fixture
def parts(tmp_path):
    """A folder of two sets."""
    folder = tmp_path / "parts"
    for name in ("ember/1.png", "ember/2.png", "storm/1.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder
