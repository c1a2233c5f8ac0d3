"""dev.py and what it is made of, without a network and without ComfyUI."""

import ast
import hashlib
import importlib.util
import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from dev import ROOT, Failure, comfyui, demo, environment, server
from tests.waiting import STUCK_SECONDS, wait_until

SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: -1, signal.SIGKILL: -9}

FAKE_COMFYUI = """
import http.server, os, pathlib, signal, sys
port, base = (sys.argv[sys.argv.index(name) + 1] for name in ("--port", "--base-directory"))
{stubborn}
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
pathlib.Path(base, "pid").write_text(str(os.getpid()))
http.server.HTTPServer(("127.0.0.1", int(port)), Answer).serve_forever()
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"

# dev.py in a process of its own, but with the packages and the state that the test gives it.
DRIVER = """
import importlib.util, pathlib, sys
import dev.server
root, state, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location("dev_script", root + "/dev.py")
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
script.enter_environment = lambda arguments: None
script.STATE = script.LOGS = pathlib.Path(state)
dev.server.has_accelerator = lambda: False
dev.server.GRACE_SECONDS = 0.1
sys.exit(script.main(arguments))
"""


@pytest.fixture
def fake_comfyui(tmp_path):
    return make_fake(tmp_path)


def make_fake(folder: Path, code: str = FAKE_COMFYUI.format(stubborn="")) -> Path:
    fake = folder / "fake"
    fake.mkdir()
    (fake / "main.py").write_text(code)
    (fake / "comfyui_version.py").write_text('__version__ = "0"\n')
    return fake


def run_dev(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / "dev.py", *arguments], capture_output=True, text=True)


def start_dev(state: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, ROOT, state, *map(str, arguments)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=heed_signals,
    )


def heed_signals() -> None:
    """For a child: under nohup, or in the background of a shell, it would ignore what a test sends."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def write_tar(path: Path, *members: tarfile.TarInfo, content: bytes = b"text") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            member.size = len(content) if member.isfile() else 0
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


# The command line


def test_old_python_can_read_dev_py_far_enough_to_be_told():
    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 7))


def test_a_folder_that_is_no_comfyui_ends_in_one_sentence(tmp_path):
    result = run_dev("demo", "--comfyui", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.strip() == (
        f"{tmp_path} is not a ComfyUI: it should contain main.py and comfyui_version.py."
    )


@pytest.mark.parametrize("arguments", [[], ["paint"], ["demo", "--port", "1"], ["serve", "--port", "many"]])
def test_wrong_arguments_show_the_usage(arguments):
    result = run_dev(*arguments)
    assert result.returncode == 2
    assert "usage: dev.py" in result.stderr


@pytest.fixture
def script():
    """dev.py as a module."""
    spec = importlib.util.spec_from_file_location("dev_script", ROOT / "dev.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_all_that_dev_py_does_not_know_goes_to_pytest_in_order(script):
    options = script.parse(["test", "-k", "flow", "--comfyui", "there", "tests/pit", "-x"])
    assert (options.further, options.comfyui) == (["-k", "flow", "tests/pit", "-x"], "there")


def test_without_arguments_the_whole_suite_runs_else_pytest_alone(script, monkeypatch):
    called = []
    for name in ("ensure_comfyui", "ensure_newest_front_end", "compute_frugally"):
        monkeypatch.setattr(script, name, lambda: None)
    monkeypatch.setattr(script, "run_suite", lambda: called.append("suite"))
    monkeypatch.setattr(script.os, "execv", lambda program, command: called.append(command[1:]))
    for arguments in ([], ["-k", "flow"]):
        script.test(script.parse(["test", *arguments]))
    assert called == ["suite", ["-m", "pytest", "-k", "flow"]]


# The server process


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_no_signal_leaves_a_server_behind(number, fake_comfyui, tmp_path):
    process = start_dev(tmp_path, "serve", "--comfyui", fake_comfyui)
    assert process.stdout.readline() == "Starting ComfyUI ...\n"
    assert "http://127.0.0.1:" in process.stdout.readline()
    pid = int((tmp_path / "base" / "pid").read_text())
    assert is_alive(pid)
    process.send_signal(number)
    process.communicate(timeout=STUCK_SECONDS)
    assert process.returncode == SIGNALS[number]
    wait_until(lambda: not is_alive(pid))


def test_a_server_that_ignores_the_request_to_end_is_killed(tmp_path):
    fake = make_fake(tmp_path, FAKE_COMFYUI.format(stubborn=STUBBORN))
    process = start_dev(tmp_path, "serve", "--comfyui", fake)
    process.stdout.readline()
    process.stdout.readline()
    pid = int((tmp_path / "base" / "pid").read_text())
    process.terminate()
    process.communicate(timeout=STUCK_SECONDS)
    assert not is_alive(pid)


def test_a_server_that_ends_by_itself_is_reported(tmp_path):
    fake = make_fake(tmp_path, "print('Error: no memory of that size')\n")
    process = start_dev(tmp_path, "serve", "--comfyui", fake)
    _, complaint = process.communicate(timeout=STUCK_SECONDS)
    assert process.returncode == 1
    sentence, log = complaint.strip().splitlines()
    assert sentence.startswith("ComfyUI ended while starting on port ")
    assert sentence.endswith(": Error: no memory of that size")
    assert log == f"Log: {tmp_path / 'serve.log'}"


def test_a_port_that_another_program_took_meanwhile_is_replaced(tmp_path, monkeypatch):
    counted = "import pathlib\nruns = pathlib.Path(__file__).with_name('runs')\nruns.open('a').write('x')\n"
    taken = "if len(runs.read_text()) < 3: raise SystemExit('Port 1 is already in use')\n"
    fake = make_fake(tmp_path, counted + taken + FAKE_COMFYUI.format(stubborn=""))
    monkeypatch.setattr(server, "has_accelerator", lambda: False)
    with server.ComfyServer(fake, comfyui.make_base(tmp_path / "base"), tmp_path / "log") as running:
        assert running.is_running()
        assert (fake / "runs").read_text() == "xxx"


def test_a_given_port_that_is_taken_is_refused(fake_comfyui, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Failure, match=f"Port {port} of 127.0.0.1 cannot be used: .*in use"):
            server.ComfyServer(fake_comfyui, tmp_path, tmp_path / "log", port).start()


def test_free_ports_can_be_listened_on():
    for _ in range(20):
        with socket.create_server(("127.0.0.1", server.free_port())):
            pass


# Getting ComfyUI


def test_an_archive_with_another_hash_is_refused(tmp_path):
    archive = tmp_path / "some.tar.gz"
    archive.write_bytes(b"something else")
    comfyui.verify(archive, hashlib.sha256(b"something else").hexdigest())
    with pytest.raises(Failure, match="some.tar.gz is not the expected file"):
        comfyui.verify(archive, comfyui.SHA256)


def test_only_the_wanted_folder_is_unpacked(tmp_path):
    names = ("a/in/main.py", "a/in/x/y.py", "a/out.py")
    archive = write_tar(tmp_path / "a.tar.gz", *map(member, names))
    comfyui.unpack(archive, "a/in", tmp_path / "target")
    files = [path for path in (tmp_path / "target").rglob("*") if path.is_file()]
    assert sorted(path.relative_to(tmp_path / "target").as_posix() for path in files) == ["main.py", "x/y.py"]


@pytest.mark.parametrize(
    "unsafe",
    [
        member("a/in/../../../stray"),
        member("/stray"),
        member("a/in/link", tarfile.SYMTYPE, "/etc"),
        member("a/in/link", tarfile.LNKTYPE, "a/in/main.py"),
        member("a/in/pipe", tarfile.FIFOTYPE),
    ],
    ids=["climbing", "absolute", "symbolic link", "hard link", "pipe"],
)
def test_unsafe_archives_leave_nothing(unsafe, tmp_path):
    (tmp_path / "below").mkdir()
    archive = write_tar(tmp_path / "a.tar.gz", member("a/in/main.py"), unsafe)
    with pytest.raises(Failure, match="unsafe to unpack"):
        comfyui.unpack(archive, "a/in", tmp_path / "below" / "target")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "below"]


def test_an_archive_without_the_folder_is_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", member("b/main.py"))
    with pytest.raises(Failure, match="does not contain a/in"):
        comfyui.unpack(archive, "a/in", tmp_path / "target")


def test_the_base_directory_links_to_this_pack_and_mends_an_old_link(tmp_path):
    link = tmp_path / "custom_nodes" / comfyui.PACK_NAME
    link.parent.mkdir()
    link.symlink_to(tmp_path / "moved away")
    for _ in range(2):
        comfyui.make_base(tmp_path)
        assert link.resolve() == ROOT


# The environment


def test_a_finished_environment_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(environment, "STAMP", tmp_path / "installed.txt")
    monkeypatch.setattr(environment, "new_log", lambda name: tmp_path / name)
    commands = []
    monkeypatch.setattr(environment, "run_logged", lambda command, *_: commands.append(command))
    environment.ensure_environment()
    assert [("uv" in command, "install" in command) for command in commands] == [(False, True), (True, True)]
    environment.ensure_environment()
    assert len(commands) == 2
    (tmp_path / "installed.txt").write_text("an older lock file")
    environment.ensure_environment()
    assert len(commands) == 4


def test_a_python_without_venv_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Failure, match=r"apt-get install python3\.\d+-venv"):
        environment.create_environment(tmp_path / "log")


def test_uv_gets_the_registry_that_pip_is_configured_with(tmp_path):
    listing = "global.index-url='https://packages.example/simple'\n:env:.cert='/certs/a.pem'\nglobal.quiet='1'\n"
    assert environment.registry_settings([sys.executable, "-c", f"print({listing!r})"]) == {
        "UV_DEFAULT_INDEX": "https://packages.example/simple",
        "SSL_CERT_FILE": "/certs/a.pem",
    }


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("error: failed to write\n  Caused by: No space left on device (os error 28)", "the disk is full"),
        ("  x Request failed\n  dns error: failed to lookup", "the package registry cannot be reached"),
        ("WARNING: a\nERROR: No matching distribution found for uv\nbye", "No matching distribution found"),
        ("", "it ended without a word"),
    ],
)
def test_a_failing_tool_ends_in_one_sentence_and_its_log(printed, told, tmp_path, capsys):
    log = tmp_path / "log"
    command = [sys.executable, "-c", f"print({printed!r}); raise SystemExit(3)"]
    with pytest.raises(Failure, match=f"That failed: .*{told}") as failure:
        environment.run_logged(command, log, "That failed")
    assert "\n" not in str(failure.value)
    assert failure.value.log == log
    assert log.read_text().strip() == printed.strip()


# The demo's pictures


def test_the_contact_sheet_shows_parts_on_the_left_and_concepts_on_the_right():
    parts = [Image.new("RGB", (30, 60), "red")] * 3
    concepts = [Image.new("RGB", (512, 512), "blue")] * 8
    sheet = demo.contact_sheet(parts, concepts)
    columns = {
        colour: [x for x in range(sheet.width) if colour in column_colours(sheet, x)]
        for colour in ((255, 0, 0), (0, 0, 255))
    }
    assert max(columns[255, 0, 0]) < min(columns[0, 0, 255])
    counts = dict((colour, count) for count, colour in sheet.getcolors(sheet.width * sheet.height))
    assert counts[255, 0, 0] == 3 * demo.CELL * demo.CELL // 2
    assert counts[0, 0, 255] == 8 * demo.CELL * demo.CELL


def column_colours(sheet: Image.Image, x: int) -> set:
    column = sheet.crop((x, 0, x + 1, sheet.height))
    return {colour for _, colour in column.getcolors(sheet.height)}


def test_progress_is_a_bar_on_a_terminal_and_a_line_per_node_elsewhere():
    graph = {"1": {"class_type": "A", "_meta": {"title": "Parts"}}, "2": {"class_type": "B"}}
    node = {"display_node_id": "2", "value": 5, "max": 10, "state": "running"}
    events = [
        {"type": "execution_cached", "data": {"nodes": ["1"]}},
        {"type": "progress_state", "data": {"nodes": {"2": node}}},
        {"type": "execution_success", "data": {}},
    ]
    terminal, pipe = io.StringIO(), io.StringIO()
    terminal.isatty = lambda: True
    for stream in (terminal, pipe):
        progress = demo.Progress(graph, stream)
        for event in events:
            progress(event)
    assert f"[{'#' * 22}{'.' * 8}]  75%  B 5/10" in terminal.getvalue()
    assert pipe.getvalue() == "   75%  B\n  100%  done\n"
