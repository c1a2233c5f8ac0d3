"""`accelerate launch -m pit encode-dataset`: two processes encode folders and tar archives as one does."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dev import ROOT
from pit.__main__ import main
from pit.piece_it_together.training.cache import open_cache
from tests.piece_it_together.training.test_encode import HALF, make_concepts
from tests.piece_it_together.training.test_tar_shards import packed

OPTIONS = ("--creatures", "--device", "cpu", "--variants", "2")


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Folders of pictures and, beside them, archives of more."""
    make_concepts(tmp_path / "more", range(10, 14))
    make_concepts(tmp_path / "set", range(3))
    packed(tmp_path / "more", tmp_path / "set" / "a.tar", ["c10", "c11", "c12"])
    packed(tmp_path / "more", tmp_path / "set" / "b.tar", ["c13"])
    return tmp_path / "set"


def launch(*arguments: object) -> subprocess.CompletedProcess:
    # For CPUs alone accelerate starts one process; this flag means several, --device keeps them off any GPU.
    flags = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
             "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--main_process_port", "0"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, "-m", "pit", "encode-dataset"]
    return subprocess.run([*command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_two_processes_encode_as_one_and_a_second_run_keeps_all(dataset, tmp_path, capsys):
    done = launch(dataset, tmp_path / "two", *OPTIONS)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("7 concepts encoded, 0 were there already") == 1
    assert "2 tar archives" in done.stdout and "3 concepts (target/ and parts/)" in done.stdout
    two = open_cache(tmp_path / "two", verify=True)
    assert not (tmp_path / "two" / "parts").exists()
    assert main(["encode-dataset", str(dataset), str(tmp_path / "one"), *OPTIONS]) == 0
    one = open_cache(tmp_path / "one")
    assert one.names == two.names == sorted([
        "a/c10", "a/c11", "a/c12", "b/c13", "target/c00", "target/c01", "target/c02",
    ])
    for rows in ("target_rows", "part_rows"):
        first, second = (cache.rows(getattr(cache, rows)) for cache in (one, two))
        torch.testing.assert_close(first, second, **HALF)
    capsys.readouterr()
    assert main(["encode-dataset", str(dataset), str(tmp_path / "two"), *OPTIONS]) == 0
    assert "0 concepts encoded, 7 were there already" in capsys.readouterr().out


def test_one_archive_by_itself_is_a_dataset(dataset, tmp_path, capsys):
    assert main(["encode-dataset", str(dataset / "a.tar"), str(tmp_path / "cache"), *OPTIONS]) == 0
    assert "3 concepts encoded" in capsys.readouterr().out
    assert main(["encode-dataset", str(dataset / "a.tar"), str(tmp_path / "x"), *OPTIONS,
                 "--references", "1"]) == 1
    assert "no references for concepts in tar archives" in capsys.readouterr().err
