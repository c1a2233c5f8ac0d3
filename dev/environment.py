"""The virtual environment .venv with the pinned packages of dev/requirements.txt."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from dev import LOGS, ROOT, Failure

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = ROOT / "dev" / "requirements.txt"
STAMP = VENV / "installed.txt"
UV = "uv==0.13.9"
PLUGINS = ROOT / "dev" / "pytest_plugins"

# uv does not read pip's configuration; these are the settings without which it may not reach the registry.
UV_NAMES = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}

UNREACHABLE = (
    "Connection refused", "Network is unreachable", "No route to host", "timed out", "dns error",
    "Name or service not known", "name resolution",
)


def enter_environment(arguments: list[str]) -> None:
    """Make .venv complete, and go on inside it; returns only in the process that already runs there."""
    if os.name != "posix":
        raise Failure("dev.py runs on Linux and macOS; on Windows use it inside WSL.")
    ensure_environment()
    add_plugins()
    if Path(sys.prefix).resolve() != VENV.resolve():
        sys.stdout.flush()
        os.execv(PYTHON, [str(PYTHON), str(ROOT / "dev.py"), *arguments])


def ensure_environment() -> None:
    """Make .venv and install the pinned packages, unless the stamp says that exactly this was done."""
    wanted = stamp()
    if PYTHON.exists() and STAMP.is_file() and STAMP.read_text() == wanted:
        return
    log = new_log("install.log")
    if not is_usable(PYTHON):
        create_environment(log)
    print("Installing the pinned packages into .venv (about 6 GB the first time) ...", flush=True)
    pip = [PYTHON, "-m", "pip"]
    run_logged([*pip, "install", "--quiet", UV], log, "uv could not be installed with pip")
    install = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, "--requirements", LOCK]
    settings = {**registry_settings(pip), **os.environ}
    run_logged(install, log, "The pinned packages could not be installed", settings)
    STAMP.write_text(wanted)


def add_plugins() -> None:
    """Have every Python of .venv find the pack's own plugins of pytest."""
    for packages in VENV.glob("lib/python*/site-packages"):
        (packages / "pytest_plugins_of_the_pack.pth").write_text(f"{PLUGINS}\n")


def stamp() -> str:
    """What a finished installation of the present lock file leaves behind."""
    return f"{UV}\n{hashlib.sha256(LOCK.read_bytes()).hexdigest()}\n"


def is_usable(python: Path) -> bool:
    """True for an interpreter that starts, is new enough, and has pip."""
    check = "import sys, pip; sys.exit(sys.version_info < (3, 10))"
    return python.exists() and subprocess.run([python, "-c", check], capture_output=True).returncode == 0


def create_environment(log: Path) -> None:
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise Failure(
            f"This Python {version} has no venv module; on Debian and Ubuntu install it with "
            f"'apt-get install python{version}-venv', then run this command again."
        )
    print(f"Making {VENV} ...", flush=True)
    run_logged([sys.executable, "-m", "venv", "--clear", VENV], log, f"{VENV} could not be made")


def registry_settings(pip: list) -> dict[str, str]:
    """pip's package registry and certificates, where they are configured, under uv's names."""
    listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True).stdout
    settings = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        name = UV_NAMES.get(key.rpartition(".")[2])
        if name is not None:
            settings.setdefault(name, str(ast.literal_eval(value)))
    return settings


def new_log(name: str) -> Path:
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / name
    log.write_bytes(b"")
    return log


def run_logged(command: list, log: Path, complaint: str, env: dict[str, str] | None = None) -> None:
    """Run a tool with its output in the log and, without package lists, on the terminal.

    Raises Failure with the complaint and the tool's own last error line.
    """
    with log.open("a") as sink, subprocess.Popen(
        list(map(str, command)), env=env, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:
        try:
            for line in process.stdout:
                sink.write(line)
                if not line.startswith((" + ", " - ", " ~ ")):
                    print("  " + line, end="", flush=True)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise Failure(f"{complaint}: {reason(log.read_text(errors='replace'))}", log)


def reason(output: str) -> str:
    """The one line of a failed tool's output that says most, for a person."""
    if "No space left on device" in output:
        return "the disk is full (the environment takes about 6 GB)."
    if any(sign in output for sign in UNREACHABLE):
        return "the package registry cannot be reached."
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["it ended without a word."])[-1]
