"""All that must pass: ruff, then the tests of the engine and those in ComfyUI, side by side."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading

from dev import ROOT

# What each pytest is given; both take about as long.
HALVES = {"engine": ("tests", "--ignore=tests/comfyui"), "ComfyUI": ("tests/comfyui",)}
SLOWEST = 30
GRACE_SECONDS = 60.0  # tests end their servers and browsers in order
HEADING = re.compile("=+ (.+?) =+")
DURATION = re.compile(r"[\d.]+s (setup|call|teardown) ")


def compute_frugally() -> None:
    """Have all processes under test compute on one thread, unless the environment says something else.

    Where more threads than cores wait for each other by spinning, tiny steps of training take a hundred times
    as long; those of a test that asks for several threads sleep while they wait.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run_suite(halves: dict[str, tuple[str, ...]] = HALVES) -> int:
    """Run ruff, then each half in a pytest of its own; returns the exit code, 0 only if all pass."""
    if subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT).returncode != 0:
        return 1
    lock, running = threading.Lock(), []
    try:
        for name, arguments in halves.items():
            running.append(Half(name, arguments, lock))
        codes = [half.wait() for half in running]
    finally:
        for half in running:
            half.stop()
    lines = [line for half in running for line in half.durations]
    print(heading(f"the slowest {SLOWEST} of both"), *slowest(lines, SLOWEST), sep="\n", flush=True)
    return 1 if any(codes) else 0


class Half:
    """A running pytest: its progress is printed line by line, what it reports at its end as a whole.

    Attributes:
        durations: its lines of the slowest tests, which are left out of the report.
    """

    def __init__(self, name: str, arguments: tuple[str, ...], lock: threading.Lock):
        self.name, self.lock = name, lock
        self.durations: list[str] = []
        # A session of its own: Ctrl-C in the terminal reaches us only, and we end it in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", f"--durations={SLOWEST}", *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def wait(self) -> int:
        """Until it has ended and everything is printed; returns its exit code."""
        self.reader.join()
        return self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C would, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
            self.reader.join()

    def _read(self) -> None:
        section, report = "", [heading(self.name)]
        for line in map(str.rstrip, self.process.stdout):
            found = HEADING.fullmatch(line)
            section = found[1] if found else section
            if section.startswith("slowest "):
                self.durations += [line] if DURATION.match(line) else []
            elif section in ("", "test session starts"):
                self._print([f"{self.name:<8}| {line}"])
            else:
                report.append(line)
        self._print(report)

    def _print(self, lines: list[str]) -> None:
        with self.lock:
            print(*lines, sep="\n", flush=True)


def heading(text: str) -> str:
    return f"\n{f' {text} ':#^80}"


def slowest(lines: list[str], count: int) -> list[str]:
    """The `count` lines of pytest's durations with the most seconds, the longest first."""
    return sorted(lines, key=lambda line: -float(line.partition("s")[0]))[:count]
