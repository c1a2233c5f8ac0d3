"""`python -m pit queue` with real servers: one is killed in the middle, and Ctrl-C leaves nothing behind."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import ExitStack

import pytest
from PIL import Image

from dev import ROOT
from dev.server import ComfyServer
from pit.__main__ import main
from queue_client import command
from tests.waiting import wait_until

PROMPTS, KILLED_AFTER = 60, 20


@pytest.fixture(scope="module")
def servers(comfyui_folder, tmp_path_factory):
    """Three of them, each with folders of its own."""
    with ExitStack() as stack:
        started = []
        for number in range(3):
            folder = tmp_path_factory.mktemp(f"server{number}")
            (folder / "base" / "custom_nodes").mkdir(parents=True)
            server = ComfyServer(comfyui_folder, folder / "base", folder / "server.log")
            started.append(stack.enter_context(server))
        yield started


@pytest.fixture
def workflow(tmp_path):
    """A picture of a color that counts up."""
    graph = {
        "1": {"class_type": "EmptyImage",
              "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 100}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "same"}},
    }
    path = tmp_path / "trivial.json"
    path.write_text(json.dumps(graph))
    return path


def arguments(workflow, output, servers, count) -> list[str]:
    names = [f"127.0.0.1:{server.port}" for server in servers]
    return [str(workflow), "--vary", "EmptyImage.color", "--count", str(count), "--output", str(output),
            "--server", *names]


def colours(output) -> list[int]:
    """The blue of every picture that has come."""
    return sorted(Image.open(path).getpixel((0, 0))[2] for path in output.glob("*.png"))


def so_far(output) -> list:
    return list(output.glob("*.png"))


def assert_all_once(output, count: int):
    assert colours(output) == list(range(100, 100 + count))
    with sqlite3.connect(output / "journal.sqlite") as journal:
        states = journal.execute("SELECT state, count(*) FROM prompts GROUP BY state").fetchall()
    assert states == [("done", count)]


def kill(server) -> None:
    """At once, with all that it has started; it does not get to say goodbye."""
    os.killpg(server._guard.pid, signal.SIGKILL)


def test_one_of_three_servers_is_killed_in_the_middle_of_sixty(
    servers, workflow, tmp_path, monkeypatch, capsys
):
    def kill_one(progress, journal):
        if servers[1].is_running() and journal.counts()["done"] >= KILLED_AFTER:
            kill(servers[1])

    monkeypatch.setattr(command.Progress, "draw", kill_one)
    assert main(["queue", *arguments(workflow, tmp_path / "results", servers, PROMPTS)]) == 0
    assert_all_once(tmp_path / "results", PROMPTS)
    said = capsys.readouterr()
    dead = f"127.0.0.1:{servers[1].port}"
    assert f"{dead} is lost" in said.err and f"{dead}: lost" in said.out and "60 of 60 done" in said.out
    for server in (servers[0], servers[2]):
        assert f"127.0.0.1:{server.port}: " in said.out
        assert server.get("/queue")["queue_pending"] == []


def test_ctrl_c_cancels_what_is_queued_and_the_same_command_resumes(servers, workflow, tmp_path):
    alive = [servers[0], servers[2]]
    given = arguments(workflow, tmp_path / "results", alive, 100)
    client = subprocess.Popen(
        [sys.executable, "-m", "queue_client", *given], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: len(so_far(tmp_path / "results")) > 5)
    client.send_signal(signal.SIGINT)
    said, _ = client.communicate()
    assert client.returncode == 130 and "are left to do: the same command resumes" in said
    for server in alive:
        assert server.get("/queue")["queue_pending"] == []
    assert 5 < len(so_far(tmp_path / "results")) < 100
    assert main(["queue", *given]) == 0
    assert_all_once(tmp_path / "results", 100)


def test_after_a_kill_of_the_client_it_resumes(servers, workflow, tmp_path):
    alive = [servers[0], servers[2]]
    given = arguments(workflow, tmp_path / "results", alive, 80)
    client = subprocess.Popen(
        [sys.executable, "-m", "queue_client", *given], cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_until(lambda: len(so_far(tmp_path / "results")) > 5)
    client.kill()
    client.wait()
    assert main(["queue", *given]) == 0
    assert_all_once(tmp_path / "results", 80)


def test_a_prompt_that_a_server_refuses_is_noted_with_its_reason(servers, workflow, tmp_path, capsys):
    given = arguments(workflow, tmp_path / "results", servers[:1], 2)
    assert main(["queue", *given, "--set", "1.width=0"]) == 1
    assert "node 1 (EmptyImage): Value 0 smaller than min" in capsys.readouterr().out
