"""Two thousand damaged files for each loader, in a process of its own with little memory."""

import os
import random
import re
import subprocess
import sys

import pytest

from dev import ROOT
from dev.fuzz import Fault, Loader, damaged, fuzz

FILES = 2000


def test_no_damaged_file_escapes_or_costs_much():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dev.fuzz", "--files", str(FILES)], cwd=ROOT, text=True,
        capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = re.findall(rf"^(\S+): {FILES} files, (\d+) refused, (\d+) read", result.stdout, re.MULTILINE)
    assert [name for name, _, _ in lines] == [
        "weights", "prior", "cfg.yaml", "adapter", "optimizer", "bias", "lora", "decoupled", "pose_guider",
        "reference_unet", "tokens", "direction", "cache", "run", "samples", "pictures", "part_words",
        "part_clusters", "operator", "base", "config.json", "base-adapter", "embedding",
        "masks", "box.json", "words",
    ]
    # Some of the changes are harmless, most are not.
    assert all(int(refused) > FILES / 10 and int(read) > 10 for _, refused, read in lines)


def raising(error: Exception):
    def read(path):
        raise error
    return read


@pytest.mark.parametrize("read, message", [
    (raising(KeyError("a")), "file 0 of seed 1: KeyError: 'a'"),
    (raising(MemoryError()), "file 0 of seed 1: MemoryError"),
    (raising(ValueError("x" * 1001)), "a message of 1001 characters"),
])
def test_a_fault_is_found(tmp_path, read, message):
    with pytest.raises(Fault, match=message):
        fuzz(Loader({"a/x.bin": b"abc"}, read, (ValueError,)), 5, 1, tmp_path)


def test_the_same_seed_damages_in_the_same_way():
    content = bytes(range(256)) * 20
    first, again, other = (
        [damaged(content, random.Random(seed + n)) for n in range(50)] for seed in (1, 1, 99)
    )
    assert first == again != other and len(set(first)) > 25
