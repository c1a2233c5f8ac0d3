"""A ComfyUI process of our own: started headless on a free port, and never left behind."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dev import Failure
from dev.client import ComfyClient

GUARD = Path(__file__).with_name("guard.py")
PORT_ATTEMPTS = 3
BOOT_SECONDS = 180
GRACE_SECONDS = 3.0  # between the request to end and the end
COLOURS = re.compile("\x1b\\[[0-9;]*m")


class ComfyServer(ComfyClient):
    """A running ComfyUI with everything that a client can ask of it; use it in a `with` statement.

    comfyui: the folder with main.py. base: models, input, output and custom_nodes. log: gets all output.
    port: a certain port; without it, any free one. front_end: web files to serve in place of ComfyUI's own.
    options: more options of ComfyUI's command line.
    """

    def __init__(
        self, comfyui: Path, base: Path, log: Path, port: int | None = None, front_end: Path | None = None,
        options: Sequence[str] = (),
    ):
        super().__init__(port or 0, log)
        self.comfyui = comfyui
        self.base = base
        self.front_end = front_end
        self.options = options
        self._fixed_port = port
        self._guard: subprocess.Popen | None = None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and return when the server answers. Raises Failure when it does not come up."""
        if self._fixed_port:
            check_port(self._fixed_port)
        for _ in range(PORT_ATTEMPTS):
            self.port = self._fixed_port or free_port()
            self._launch()
            try:
                if self._comes_up():
                    return
            except BaseException:
                self.stop()
                raise
            self.stop()
            if self._fixed_port or "already in use" not in self.log_text():
                break
        raise Failure(f"ComfyUI ended while starting on port {self.port}: {self._last_error()}", self.log)

    def stop(self) -> None:
        """End the process and all that it started; returns when they are gone."""
        if self._guard is not None:
            self._guard.stdin.close()
            self._guard.wait(GRACE_SECONDS + 10)
            self._guard = None

    def is_running(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def log_text(self) -> str:
        """Everything that ComfyUI has printed since the start, without its colours."""
        return COLOURS.sub("", self.log.read_text(errors="replace"))

    def _launch(self) -> None:
        command = [
            sys.executable, self.comfyui / "main.py", "--listen", "127.0.0.1", "--port", self.port,
            "--base-directory", self.base, "--database-url", "sqlite:///:memory:",
            "--disable-api-nodes", "--disable-auto-launch", "--use-pytorch-cross-attention",
        ] + ([] if has_accelerator() else ["--cpu"])
        if self.front_end:
            command += ["--front-end-root", self.front_end]
        command += self.options
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as sink:
            # A session of its own: Ctrl-C in the terminal reaches us only, and we end the server in order.
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(GRACE_SECONDS), *map(str, command)],
                stdin=subprocess.PIPE, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            )

    def _comes_up(self) -> bool:
        """Wait until the server answers; False when its process ends instead."""
        deadline = time.monotonic() + BOOT_SECONDS
        while self.is_running():
            if answers(self.port):
                return True
            if time.monotonic() > deadline:
                raise Failure(f"ComfyUI did not start within {BOOT_SECONDS} s.", self.log)
            time.sleep(0.1)
        return False

    def _last_error(self) -> str:
        lines = [line.strip() for line in self.log_text().splitlines() if line.strip()]
        return next((line for line in reversed(lines) if "rror" in line), "without an error message.")


def has_accelerator() -> bool:
    """True where torch finds a GPU of any make."""
    import torch

    return torch.accelerator.is_available()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_port(port: int) -> None:
    """Raise Failure unless a server can listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise Failure(f"Port {port} of 127.0.0.1 cannot be used: {error}.") from error


def answers(port: int) -> bool:
    """True once a ComfyUI on this port serves requests."""
    try:
        return ComfyClient(port).request("/system_stats")[0] == 200
    except Failure:
        return False
