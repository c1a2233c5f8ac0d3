"""Sharing the work among servers: a thread for each, which takes, sends, follows and collects prompts."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .journal import Journal, Prompt
from .part_sets import PartSet, plain_name
from .server import Lost, Refused, Server, files_of, why_failed
from .workflow import Graph, Place, graph_of

POLL_SECONDS = 0.3
RETRY_SECONDS = 2.0  # between two attempts to reach a server that is away
UPLOADS = "pit_queue"  # the folder in a server's input that part sets are put into
ENDING = re.compile(r"\.[A-Za-z0-9]{1,10}")


@dataclass
class Work:
    """What is to do, and how; shared by all workers.

    Attributes:
        stem: what the names of results without a set begin with.
        tries: how many servers may fail a prompt.
        ahead: how many prompts each server holds at a time.
        patience: seconds after which a server that is away counts as lost.
        tell: shows a line about what has happened.
    """

    graph: Graph
    varied: list[Place]
    sets: Mapping[str, PartSet]
    journal: Journal
    output: Path
    stem: str
    tries: int
    ahead: int
    patience: float
    tell: Callable[[str], None]
    stop: threading.Event = field(default_factory=threading.Event)
    faults: list[BaseException] = field(default_factory=list)

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        counts = self.journal.counts()
        return counts["waiting"] + counts["sent"] == 0

    def called(self, prompt: Prompt) -> str:
        """What results of a prompt are called; no two are called the same."""
        return f"{prompt.name or self.stem}_{prompt.run + 1:04}"


class Worker(threading.Thread):
    """Drives one server until all work is done, or until the work is stopped."""

    def __init__(self, work: Work, server: Server):
        super().__init__(name=server.name, daemon=True)
        self.work, self.server = work, server
        self.held: list[Prompt] = []
        self.given_up: set[str] = set()  # ids that the server may still have, and others do by now
        self.uploaded: set[str] = set()
        self.away_since: float | None = time.monotonic()  # until it has answered once
        self.times_lost = 0

    def is_away(self) -> bool:
        """Whether it has not answered for longer than anybody has patience."""
        if self.away_since is None or not self.times_lost:
            return False
        return time.monotonic() - self.away_since >= self.work.patience

    def run(self) -> None:
        """Until everything is done; what stops this worker stops all."""
        try:
            while not self.work.stop.is_set() and not self.work.is_over():
                self.turn()
        except BaseException as error:  # shown by the main thread
            self.work.faults.append(error)
            self.work.stop.set()
        if self.work.stop.is_set() or self.given_up:
            self.cancel()

    def turn(self) -> None:
        """Reach the server, and work with it until it is lost or nothing is left."""
        try:
            if self.away_since is not None:
                self.come_back()
            self.step()
            self.work.stop.wait(POLL_SECONDS)
        except (Lost, Refused) as error:
            self.lose(error)
            self.work.stop.wait(min(RETRY_SECONDS, max(self.work.patience, POLL_SECONDS)))

    def come_back(self) -> None:
        """After a start or a break: find out what the server still has of ours."""
        self.server.check()
        self.server.cancel(self.given_up)
        self.given_up.clear()
        self.uploaded.clear()
        self.held = self.work.journal.sent_to(self.server.name)
        if self.times_lost:
            self.work.tell(f"{self.server.name} is back")
        self.away_since = None

    def lose(self, error: Lost | Refused) -> None:
        """The server does not answer: its work goes to the others, at once if its queue is gone."""
        if self.away_since is None:
            self.away_since = time.monotonic()
            self.times_lost += 1
            self.work.tell(f"{self.server.name} is lost: {error}")
        elif not self.times_lost:
            self.times_lost += 1
            self.work.tell(f"{self.server.name} cannot be reached: {error}")
        if isinstance(error, Lost) and error.ended or self.is_away():
            for prompt in self.work.journal.sent_to(self.server.name):
                self.given_up.add(prompt.prompt_id)
                self.work.journal.give_back(prompt)
            self.held = []

    def step(self) -> None:
        """Look after what the server has, and give it more."""
        journal = self.work.journal
        for prompt in list(self.held):
            self.look_after(prompt)
        while len(self.held) < self.work.ahead and not self.work.stop.is_set():
            prompt = journal.take(self.server.name)
            if prompt is None:
                break
            self.held.append(prompt)
            self.send(prompt)
        if not self.held:
            self.server.check()

    def send(self, prompt: Prompt) -> None:
        """Put a prompt into the server's queue, after the pictures of its set."""
        try:
            folder = self.upload(self.work.sets[prompt.name]) if prompt.name else None
            graph = graph_of(self.work.graph, self.work.varied, prompt.run, folder)
            self.server.queue(graph, prompt.prompt_id)
        except (Refused, OSError) as error:  # a picture may be gone
            self.fail(prompt, str(error))

    def upload(self, part_set: PartSet) -> str:
        """The folder in input that holds this set and no other."""
        key, files = part_set.contents()
        folder = f"{UPLOADS}/{key}"
        if key not in self.uploaded:
            self.server.upload(files, f"{folder}/{part_set.name}")
            self.uploaded.add(key)
        return folder

    def look_after(self, prompt: Prompt) -> None:
        """Collect a prompt that has ended; give one back that the server does not know."""
        result = self.server.result(prompt.prompt_id)
        if result is None:
            if prompt.prompt_id in self.server.waiting():
                return
            result = self.server.result(prompt.prompt_id)  # it may have ended in between
        if result is None:
            # The server was started anew, or somebody has emptied its queue.
            self.held.remove(prompt)
            self.work.journal.give_back(prompt)
        elif why := why_failed(result):
            self.fail(prompt, why)
        else:
            self.collect(prompt, result)

    def collect(self, prompt: Prompt, result: dict[str, Any]) -> None:
        """Get the files of a prompt; it is done once all of them are here."""
        name = self.work.called(prompt)
        try:
            for number, (node, where) in enumerate(files_of(result), 1):
                # A name of our own: names of several servers may be the same.
                file = f"{name}_{plain_name(node)}_{number:02}{ending(where)}"
                write_whole(self.work.output / file, self.server.file(where))
        except Refused as error:
            self.fail(prompt, f"a file that it has saved cannot be had: {error}")
            return
        self.held.remove(prompt)
        self.work.journal.done(prompt)
        self.work.tell(f"{name} is done on {self.server.name}")

    def fail(self, prompt: Prompt, why: str) -> None:
        """Note what went wrong; another server may try."""
        self.held.remove(prompt)
        final = self.work.journal.failed(prompt, self.server.name, why, self.work.tries)
        more = "" if final else "; another server may try"
        self.work.tell(f"{self.work.called(prompt)} failed on {self.server.name}: {why}{more}")

    def cancel(self) -> None:
        """Take what is queued off the server; all of it is left for another time."""
        held = self.work.journal.sent_to(self.server.name)
        try:
            self.server.cancel([*self.given_up, *(prompt.prompt_id for prompt in held)])
        except (Lost, Refused) as error:
            if held:
                self.work.tell(f"{self.server.name} keeps what is queued there: {error}")
        for prompt in held:
            self.work.journal.give_back(prompt)


def ending(where: Mapping[str, str]) -> str:
    """The ending of a file's name, from a server that is not to be trusted with paths."""
    suffix = os.path.splitext(where["filename"])[1]
    return suffix if ENDING.fullmatch(suffix) else ".bin"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that appears only when it is complete. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as sink:
        sink.write(content)
        sink.flush()
        os.fsync(sink.fileno())
    part.replace(path)


def follow(work: Work, workers: list[Worker], show: Callable[[], None]) -> None:
    """Wait until all is done, a worker has failed, or every server is lost; `show` draws the progress."""
    while not work.stop.is_set() and any(worker.is_alive() for worker in workers):
        present = [worker.name for worker in workers if not worker.is_away()]
        if not present:
            work.stop.set()
        else:
            work.journal.fail_what_all_tried(present)
        show()
        work.stop.wait(POLL_SECONDS)
