"""The archive that would be published, rebuilt by comfy-cli's rules and scanned for what gets flagged."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dev import ROOT
from dev.archive import git_files, published_files, write_archive
from dev.comfyui import PACK_NAME, RELEASE

LARGEST_ARCHIVE = 90_000_000
LONGEST_NAME = 120  # on Windows, with the folders around it, a path has 260 characters
TEXT = {".py", ".js", ".md", ".json", ".toml", ".txt", ""}
PICTURES = {".png", ".jpg"}
WEIGHTS = {".safetensors"}
NAMED_BY_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
# In files of every kind: deletions and downloads by a shell, hosts that are listed as suspect, names and
# passwords in addresses, and runs of letters that hide something.
SUSPECT = {
    "deletion by shell": r"\brm\s+-\w*r",
    "code from the network": r"\b(curl|wget)\b[^\n]*\|\s*(ba|z|da)?sh\b",
    "a suspect host": r"raw\.githubusercontent\.com|pastebin\.com|bit\.ly|discord\.com/api|ngrok",
    "a password in an address": r"https?://[^/@\s\"'`]+:[^/@\s\"'`]+@",
    "hidden text": r"[A-Za-z0-9+/]{200,}|(\\x[0-9a-fA-F]{2}){12,}",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("published") / "node.zip"
    write_archive(path)
    return path


@pytest.fixture(scope="module")
def unpacked(archive) -> Path:
    folder = archive.parent / PACK_NAME
    with zipfile.ZipFile(archive) as members:
        members.extractall(folder)
    return folder


def suspect(text: str) -> list[str]:
    return [what for what, pattern in SUSPECT.items() if re.search(pattern, text)]


def test_it_stays_below_the_largest_size(archive):
    with zipfile.ZipFile(archive) as members:
        assert members.testzip() is None
        assert sum(member.file_size for member in members.infolist()) < LARGEST_ARCHIVE


def test_it_holds_texts_pictures_and_plain_weights_and_nothing_that_runs_by_itself(archive):
    with zipfile.ZipFile(archive) as members:
        kinds = {Path(name).suffix for name in members.namelist()}
        assert kinds <= TEXT | PICTURES | WEIGHTS
        assert [name for name in members.namelist() if Path(name).suffix == ""] == ["LICENSE"]
        executable = [each.filename for each in members.infolist() if each.external_attr >> 16 & 0o111]
    assert executable == []
    command = ["git", "-c", "safe.directory=*", "ls-files", "-s"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modes = {line.partition("\t")[2]: line.partition(" ")[0] for line in listing.splitlines()}
    assert {modes[name] for name in published_files()} == {"100644"}  # no links


def test_its_names_are_names_on_every_system():
    names = published_files()
    assert [name for name in names if not re.fullmatch(r"[\w.,\- ()/]+", name, re.ASCII)] == []
    assert [name for name in names if len(name) > LONGEST_NAME] == []
    assert [name for name in names if any(map(NAMED_BY_WINDOWS.fullmatch, name.split("/")))] == []
    assert len({name.lower() for name in names}) == len(names)


def test_its_texts_are_texts_that_windows_shows(unpacked):
    for path in unpacked.rglob("*"):
        if path.is_file() and path.suffix in TEXT:
            text = path.read_text(encoding="utf-8")
            assert "\0" not in text, path
            if path.suffix == ".py":
                text.encode("cp1252")


def test_nothing_in_it_is_suspect(unpacked):
    found = {
        str(path.relative_to(unpacked)): suspect(path.read_text(encoding="utf-8"))
        for path in unpacked.rglob("*") if path.is_file() and path.suffix in TEXT
    }
    assert {name: what for name, what in found.items() if what} == {}


@pytest.mark.parametrize("text", [
    "rm -rf /x", "curl https://x.y/z | sh", "https://raw.githubusercontent.com/x", "https://me:secret@x.y",
    "QUJD" * 60, r"\x41" * 20,
])
def test_what_is_suspect_is_found(text):
    assert len(suspect(text)) == 1


@pytest.mark.parametrize(("rules", "why"), [
    (["S102", "S307", "E702"], "what `comfy node validate` selects"),
    (["S", "--ignore", "S311"], "all rules on security; drawings and datasets are random, and no secrets"),
])
def test_ruff_has_nothing_to_say(unpacked, rules, why):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", *rules, "."]
    checked = subprocess.run(command, cwd=unpacked, capture_output=True, text=True)
    assert checked.returncode == 0, why + checked.stdout


def test_the_client_of_the_queue_stays_out_and_the_command_says_where_it_is(unpacked):
    """It talks to the network and keeps a database, each of which the registry reports."""
    assert not (unpacked / "queue_client").exists() and (ROOT / "queue_client").is_dir()
    command = [sys.executable, "-m", "pit", "queue", "some.json", "--count", "2"]
    told = subprocess.run(command, cwd=unpacked, capture_output=True, text=True)
    assert told.returncode == 1 and told.stdout == ""
    assert told.stderr.startswith("error: Expected the folder queue_client beside the folder pit, got none")
    assert "https://github.com/piece-it-together/piece-it-together" in told.stderr


def test_git_and_the_publisher_agree_on_what_is_ignored():
    """`.comfyignore` holds nothing that the two would read in other ways."""
    lines = (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in patterns if not re.fullmatch(r"[\w.]+/?", line)] == []
    left_out = {line.rstrip("/") for line in patterns}
    kept = {name.partition("/")[0] for name in git_files("--cached")} - left_out
    assert kept == {name.partition("/")[0] for name in published_files()}


def test_it_claims_the_comfyui_that_the_tests_run():
    """Nobody has looked at older ones; a newer one has to be tried before it is claimed."""
    claim = f'requires-comfyui = ">={RELEASE}"'
    assert claim in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    short = RELEASE.removesuffix(".0")
    assert f"ComfyUI ({short} or later)" in (ROOT / "README.md").read_text(encoding="utf-8")
