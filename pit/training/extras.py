"""What goes along with a training and must never end it: figures, charts and samples."""
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Extras:
    """Tries what a training can do without. What fails once is told in the log and then given up."""

    def __init__(self) -> None:
        self.given_up: set[str] = set()

    def attempt(self, what: str, do: Callable[[], T]) -> T | None:
        """The result of `do`, or None if that fails, or has failed before under the same name."""
        if what in self.given_up:
            return None
        # Every error, since hours of training are worth more than any picture of them. What cancels a
        # training is no Exception, and passes.
        try:
            return do()
        except Exception as error:
            self.given_up.add(what)
            logging.warning("The training goes on without %s: %s", what, error or type(error).__name__)
            return None
