"""`python -m pit queue` finds the client beside the pack, and says what is missing without it."""

import importlib
import sys

import pytest

from pit.__main__ import main
from pit.commands import queue


def test_the_client_beside_the_pack_is_used(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["queue", "--help"])
    assert ended.value.code == 0 and "--parts DIR" in capsys.readouterr().out
    assert main(["queue", str(tmp_path / "no.json")]) == 1
    assert "error: Expected a workflow in" in capsys.readouterr().err


class WithoutTheClient:
    """Finds no queue_client, as in the published archive."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "queue_client":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_without_the_client_it_says_where_to_get_it(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == "queue_client"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [WithoutTheClient, *sys.meta_path])
    try:
        importlib.reload(queue)
        assert main(["queue", "workflow.json", "--count", "4"]) == 1
        assert "queue_client beside the folder pit, got none" in capsys.readouterr().err
    finally:
        monkeypatch.undo()
        importlib.reload(queue)
