"""What is to do, what runs where, and what is done: a SQLite file, from which everything resumes."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from . import Problem

TABLES = """
CREATE TABLE IF NOT EXISTS work (fingerprint TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS prompts (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    run INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'done', 'failed')),
    prompt_id TEXT,
    server TEXT,
    tried TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '',
    UNIQUE (name, run)
);
CREATE INDEX IF NOT EXISTS by_state ON prompts (state, number);
"""
MARK = "|{}|"  # around each server that has tried a prompt


class Prompt(NamedTuple):
    """One prompt: the `run`-th of a set, counted from 0."""

    number: int
    name: str
    run: int
    prompt_id: str


class Journal:
    """The journal in a file, for this client alone; several threads may use it at once.

    Raises Problem if another client has it open, or if it belongs to other work.
    """

    def __init__(self, path: Path, fingerprint: str):
        self._lock = threading.RLock()
        self._database = sqlite3.connect(path, timeout=0.5, check_same_thread=False, isolation_level=None)
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")  # held until it is closed
            self._database.execute("COMMIT")
            self._database.executescript(TABLES)
            self._check(path, fingerprint)
        except sqlite3.OperationalError as error:
            self._database.close()
            raise Problem(
                f"Expected a journal that no other client has open, got {path} ({error}). Wait for the other "
                "one, or choose another --output."
            ) from error
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise Problem(
                f"Expected a journal in {path}, got something else ({error}). Remove it."
            ) from error
        except BaseException:
            self._database.close()
            raise

    def _check(self, path: Path, fingerprint: str) -> None:
        found = self._rows("SELECT fingerprint FROM work")
        if not found:
            self._rows("INSERT INTO work VALUES (?)", fingerprint)
        elif found[0][0] != fingerprint:
            raise Problem(
                f"Expected the journal of this workflow and these settings in {path}, got one of others. "
                "Choose another --output, or remove it to begin anew."
            )

    def _rows(self, statement: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def close(self) -> None:
        """Let others have it."""
        with self._lock:
            self._database.close()

    def plan(self, names: Iterable[str], count: int) -> None:
        """Add what is not there yet: `count` runs of each name, all names of a run before the next run."""
        names = list(names)
        with self._lock:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR IGNORE INTO prompts (name, run) VALUES (?, ?)",
                ((name, run) for run in range(count) for name in names),
            )
            self._database.execute("COMMIT")

    def unfinished_names(self) -> list[str]:
        """The names with something left to do."""
        return [name for name, in self._rows(
            "SELECT DISTINCT name FROM prompts WHERE state IN ('waiting', 'sent')")]

    def take(self, server: str) -> Prompt | None:
        """The next prompt that this server has not tried, noted as sent to it; None if there is none."""
        with self._lock:
            found = self._rows(
                "SELECT number, name, run FROM prompts WHERE state = 'waiting' AND instr(tried, ?) = 0 "
                "ORDER BY number LIMIT 1", MARK.format(server),
            )
            if not found:
                return None
            # Noted before it is sent: after a break between the two, the server is asked for this id.
            prompt = Prompt(*found[0], str(uuid.uuid4()))
            self._rows(
                "UPDATE prompts SET state = 'sent', server = ?, prompt_id = ? WHERE number = ?", server,
                prompt.prompt_id, prompt.number,
            )
            return prompt

    def sent_to(self, server: str) -> list[Prompt]:
        """What this server has got, as far as anybody knows."""
        return [Prompt(*row) for row in self._rows(
            "SELECT number, name, run, prompt_id FROM prompts WHERE state = 'sent' AND server = ?", server)]

    def give_back(self, prompt: Prompt) -> None:
        """Somebody else may do it."""
        self._end(prompt, "waiting", "")

    def give_back_of_others(self, servers: Sequence[str]) -> None:
        """The same for all that other servers have got than these."""
        marks = ", ".join("?" * len(servers))
        self._rows(
            f"UPDATE prompts SET state = 'waiting', prompt_id = NULL WHERE state = 'sent' AND server NOT IN "
            f"({marks})", *servers,
        )

    def done(self, prompt: Prompt) -> None:
        """Its files are here."""
        self._end(prompt, "done", "")

    def _end(self, prompt: Prompt, state: str, note: str) -> None:
        # Only while it is still with the one who had it: a lost server may come back with old news.
        self._rows(
            "UPDATE prompts SET state = ?, note = ? WHERE number = ? AND prompt_id = ? AND state = 'sent'",
            state, note, prompt.number, prompt.prompt_id,
        )

    def failed(self, prompt: Prompt, server: str, why: str, tries: int) -> bool:
        """It went wrong on this server; up to `tries` servers may try. Returns whether that was the last."""
        with self._lock:
            self._rows(
                "UPDATE prompts SET tried = tried || ? WHERE number = ? AND prompt_id = ?",
                MARK.format(server), prompt.number, prompt.prompt_id,
            )
            tried = self._rows("SELECT tried FROM prompts WHERE number = ?", prompt.number)[0][0]
            final = tried.count("|") // 2 >= tries
            self._end(prompt, "failed" if final else "waiting", why)
            return final

    def fail_what_all_tried(self, servers: Sequence[str]) -> None:
        """Give up what each of these servers has tried."""
        tried = " AND ".join("instr(tried, ?) > 0" for _ in servers)
        self._rows(
            f"UPDATE prompts SET state = 'failed' WHERE state = 'waiting' AND {tried}",
            *map(MARK.format, servers),
        )

    def try_failed_again(self) -> None:
        """What has failed waits again, as if it had never been tried."""
        self._rows("UPDATE prompts SET state = 'waiting', tried = '', note = '' WHERE state = 'failed'")

    def counts(self) -> dict[str, int]:
        """How many prompts are in each state."""
        found = dict(self._rows("SELECT state, count(*) FROM prompts GROUP BY state"))
        return {state: found.get(state, 0) for state in ("waiting", "sent", "done", "failed")}

    def done_by(self) -> dict[str, int]:
        """How many prompts each server has done."""
        return dict(self._rows(
            "SELECT server, count(*) FROM prompts WHERE state = 'done' GROUP BY server ORDER BY server"))

    def failures(self) -> list[tuple[str, int, str]]:
        """Name, run and reason of what has failed."""
        return self._rows("SELECT name, run, note FROM prompts WHERE state = 'failed' ORDER BY number")
