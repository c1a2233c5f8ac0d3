"""The files of the pack, as the registry's scanners and a reader meet them."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import ROOT
from dev.archive import git_files, published_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LONGEST_FUNCTION, LONGEST_FILE = 60, 400

# What scanners of custom nodes report, found as they find it: in the text, with comments and strings. For one
# finding the registry marks a version as flagged, and the Manager does not offer it. The last two are what
# comfy-test forbids.
TRIPWIRES = {
    "another process": r"\bsubprocess\b|\bos\.(system|popen|fork|exec\w*|spawn\w*)\b",
    "code from text": r"(?<![\w.])(eval|exec)\(|\.eval\((?!\))",
    "import by text": r"\bimportlib\b|\b__import__\b|\bsys\.modules\b",
    "byte code": r"(?<![\w.])compile\(|\b(marshal|types\.CodeType)\b",
    "hidden text": r"\bbase64\b|\bb(16|32|64|85)decode\b|\bcodecs\.decode\b",
    "machine code": r"\b(ctypes|cffi|kernel32)\b",
    "a connection": r"\.(connect|bind)\(",
    "a database": r"^\s*(import|from)\s+(sqlite3|psycopg2?|pymysql|sqlalchemy)\b",
    "a temporary folder": r"\b(gettempdir|tempfile)\b",
    "deletion by shell": r"\brm\s+-\w*r",
    "an unsafe YAML": r"\byaml\.(unsafe_|full_)?load(_all)?\(",
    "environment variables": r"\bos\.(environ|getenv|putenv)\b",
    "network": r"^\s*(import|from)\s+(urllib|requests|socket|http|httpx|aiohttp|websocket|huggingface_hub)\b",
    "pickle": r"^\s*(import|from)\s+(pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib)\b",
    "a fixed device": r"\.cuda\s*\(|\.to\s*\(\s*(torch\.device\s*\(\s*)?[\"']cuda",
    "a path of one machine": r"[\"'](/(home|root|tmp|opt|usr|mnt|work|Users)/|[A-Za-z]:[\\/])",
    "autocast": r"\btorch(\.cuda)?(\.amp)?\.autocast\s*\(",
    "layers that ComfyUI cannot cast": (
        r"(?<![\w.])(torch\.)?nn\.(Linear|Conv(Transpose)?[123]d|LayerNorm|GroupNorm|Embedding)\s*\("
    ),
}
ALLOWED = {"pit/commands/download.py": r"^\s*(import|from)\s+huggingface_hub\b"}

# The same for the page, by comfy-test's rules for scripts.
COLLISIONS = {
    "a global name": r"\b(window|globalThis)\.\w+\s*=(?!=)",
    "an element of the page": r"\bdocument\.[\w.]*\.(append|appendChild|prepend|insert\w+|replaceChildren)\(",
    "a listener of the page": r"\b(document|window)\.addEventListener\(",
    "another's class": r"\b(LiteGraph|LGraph\w*|ComfyWidgets|Object|Array|String)\.prototype\.\w+\s*=(?!=)",
    "code from text": r"(?<![\w.])eval\(|\bnew Function\(",
    "hidden text": r"\batob\(",
    "network": r"\bfetch\(|\bXMLHttpRequest\b|\bWebSocket\b|\.(bind|connect)\(",
}

COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "node_helpers"}
COMFYUI_ONLY_THERE = COMFYUI | {"nodes", "server", "execution", "latent_preview"}
IN_NODES = COMFYUI | {"torch", "PIL", "server", "yaml"} | sys.stdlib_module_names


NEW = ("--others", "--exclude-standard")
TRACKED = git_files("--cached", *NEW)
PUBLISHED = published_files(NEW)
PUBLISHED_PYTHON = [name for name in PUBLISHED if name.endswith(".py")]
ALL_PYTHON = sorted(name for name in TRACKED if name.endswith(".py"))


def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), name)


def imports(name: str) -> Iterator[tuple[str, int]]:
    """The first name of every imported module, and how many dots stand before it."""
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0], node.level


def tripwires(text: str, allowed: str | None = None) -> list[str]:
    """What a scanner would report of this source text."""
    if allowed is not None:
        text = re.sub(allowed, "", text, flags=re.MULTILINE)
    return [what for what, pattern in TRIPWIRES.items() if re.search(pattern, text, re.MULTILINE)]


def unsafe_loads(tree: ast.Module) -> list[int]:
    """The lines with a torch.load that does not say weights_only=True."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        and "weights_only=True" not in map(ast.unparse, node.keywords)
    ]


def test_the_published_archive_holds_the_pack_and_no_tools():
    places = {name.partition("/")[0] for name in PUBLISHED}
    expected = {"__init__.py", "nodes", "pit", "web", "locales", "pyproject.toml", "LICENSE", "README.md"}
    assert expected <= places
    assert places.isdisjoint({
        "dev.py", "dev", "tests", "benchmarks", "queue_client", ".ci", ".venv", ".comfyui", "output",
    })


def test_javascript_is_one_short_readable_script_and_nothing_is_bundled():
    scripts = [name for name in PUBLISHED if name.endswith((".js", ".mjs", ".ts"))]
    assert scripts == ["web/appearance.js"]
    lines = (ROOT / scripts[0]).read_text(encoding="utf-8").splitlines()
    assert len(lines) < 40 and max(map(len, lines)) <= 110


def collisions(script: str) -> list[str]:
    """What of a script can reach the page of others, or looks to a scanner like a connection."""
    return [what for what, pattern in COLLISIONS.items() if re.search(pattern, script)]


def test_the_script_keeps_to_itself_in_the_page_that_all_packs_share():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    script = (ROOT / "web" / "appearance.js").read_text(encoding="utf-8")
    assert collisions(script) == []
    name = settings["tool"]["comfy"]["DisplayName"].lower().replace(" ", "")
    assert re.findall(r"registerExtension\(\{ name: \"(\w+)\.", script) == [name]


@pytest.mark.parametrize("line", [
    "window.x = 1", "document.head.appendChild(x)", "document.body.append(x)", "x.bind(this)", "eval(x)",
    "fetch('https://x.y')", "document.addEventListener('x', y)", "LGraphCanvas.prototype.x = y", "atob(x)",
])
def test_what_reaches_the_page_of_others_is_found(line):
    assert len(collisions(line)) == 1


def test_no_published_file_trips_a_scanner():
    offenders = [
        f"{name}: {what}" for name in PUBLISHED_PYTHON
        for what in tripwires((ROOT / name).read_text(encoding="utf-8"), ALLOWED.get(name))
    ]
    offenders += [
        f"{name}:{line}: torch.load" for name in PUBLISHED_PYTHON for line in unsafe_loads(parsed(name))
    ]
    assert offenders == []


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess", "os.system('ls')", "eval('1')", "x = exec(code)", "os.environ['A']",
        "from urllib.request import urlopen", "    import requests", "import pickle", "model.cuda()",
        "model.to('cuda:0')", "open('/home/me/a')", "open('C:\\\\a')", "from huggingface_hub import x",
        "mx.eval(x)", "importlib.import_module(x)", "__import__(x)", "sys.modules[x]", "compile(x, y, z)",
        "from base64 import b64decode", "import ctypes", "server.bind(x)", "x.connect(y)", "import sqlite3",
        "tempfile.mkdtemp()", "# rm -rf x", "yaml.load(x)", "x.to(torch.device('cuda'))",
        "with torch.autocast(x):", "torch.cuda.amp.autocast()", "self.a = nn.Linear(1, 2)",
        "torch.nn.Conv2d(1, 2, 3)",
    ],
)
def test_the_tripwires_are_sharp(line):
    assert len(tripwires(line)) == 1


@pytest.mark.parametrize("line", [
    "model.eval()", "retrieval(x)", "from .sockets import Tokens", "a / 'b/c'", "re.compile(x)",
    "operations.Linear(1, 2)", "yaml.safe_load(x)", "autocast(x)", "def connected(x)",
])
def test_the_tripwires_leave_honest_lines_alone(line):
    assert tripwires(line) == []


def test_an_unsafe_load_is_found():
    code = "torch.load(a)\ntorch.load(a, weights_only=True)\ntorch.load(a, weights_only=False)\nload(a)"
    assert unsafe_loads(ast.parse(code)) == [1, 3]


def strangers_in_the_engine(name: str) -> list[str]:
    """What a file of pit/ imports although it runs without ComfyUI, or outside of pit/."""
    found = []
    for module, dots in imports(name):
        if dots > name.count("/"):
            found.append(f"{name}: {'.' * dots}{module} leaves pit/")
        elif dots == 0 and module in COMFYUI_ONLY_THERE | {"pit"}:
            found.append(f"{name}: {module}")
    return found


def test_the_engine_knows_nothing_of_comfyui():
    files = [name for name in PUBLISHED_PYTHON if name.startswith("pit/")]
    assert [found for name in files for found in strangers_in_the_engine(name)] == []


def test_nodes_import_only_the_engine_and_comfyui():
    files = [name for name in PUBLISHED_PYTHON if name.startswith("nodes/")]
    strangers = [(name, module) for name in files for module, dots in imports(name) if dots == 0]
    assert [(name, module) for name, module in strangers if module not in IN_NODES] == []


def too_long(name: str, text: str) -> list[str]:
    """A file with more lines, and functions with as many lines, as are too many."""
    found = [name] if len(text.splitlines()) > LONGEST_FILE else []
    return found + [
        f"{name}: {node.name}" for node in ast.walk(ast.parse(text, name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno >= LONGEST_FUNCTION
    ]


def test_files_and_functions_are_short():
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ALL_PYTHON}
    assert [found for name, text in texts.items() for found in too_long(name, text)] == []


def test_what_is_too_long_is_found():
    function = "def f():\n" + "    x = 1\n" * LONGEST_FUNCTION
    assert too_long("a.py", function) == ["a.py: f"]
    assert too_long("a.py", "x = 1\n" * (LONGEST_FILE + 1)) == ["a.py"]
    assert too_long("a.py", function.replace("    x = 1\n", "", 1)) == []


def test_pyproject_has_what_the_registry_asks_for():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, comfy = settings["project"], settings["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == {"file": "LICENSE"}
    assert project["description"] and project["requires-python"] == ">=3.10"
    assert {"Repository", "Documentation", "Bug Tracker"} <= set(project["urls"])
    assert comfy["PublisherId"] and comfy["DisplayName"] and comfy["requires-comfyui"]


def test_the_pack_asks_for_nothing_that_comfyui_brings_and_for_no_version():
    lines = Path(ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    asked = [line for line in lines if line.strip() and not line.startswith("#")]
    assert asked == ["accelerate", "diffusers", "matplotlib", "peft", "scikit-image"]
