"""Lets `pytest --golden DIR` be written with a space, as other options are.

pytest looks for its settings and for conftest.py beside the paths that it is given, before it knows the
options that conftest.py adds, and so takes DIR for such a path. This plugin is loaded earlier, and starts
pytest once more with --golden=DIR, which cannot be mistaken.
"""

import os
import sys

OPTION = "--golden"


def pytest_addoption() -> None:
    command = sys.orig_argv
    if OPTION in command[:-1]:
        place = command.index(OPTION)
        os.execv(sys.executable, [*command[:place], f"{OPTION}={command[place + 1]}", *command[place + 2:]])
