"""One ComfyUI under hostile texts and through a long night: what escapes, what stops, what piles up.

Hostile texts: every text and file name of every node in the bundled creature graphs is replaced, one at a
time, by texts that lead elsewhere, that no file system takes, or that are very long. Counted are files that
appear, change or vanish outside of ComfyUI's own folders, secrets from there that reach an answer, and how
long the server takes to answer something else meanwhile. A night: one graph with ever new seeds, and the
server's memory on the way. Run in the folder of the pack:

    python -m benchmarks.server_reliability --texts 2000 --prompts 200
"""
from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from dev import ROOT
from dev.comfyui import ensure_comfyui, make_base
from dev.server import ComfyServer

SECRET = "what only the owner of this file may read"
# Nodes that would train or render for long run with these instead of what the graph says.
SHORT = {"steps": 2, "count": 2, "batch_size": 1, "concepts": 1, "variants": 1, "save_every": 2, "batch": 1}
PROBE_SECONDS = 0.1
LONG = ("a", " ", "-", "../", "[", "{", "(", "a=", ", ", "9", "\u00e9", "\U0001f409")
ODD = [
    "", " ", ".", "C:\\Windows\\win.ini", "C:x", "\\\\host\\share", "....//....//b", "%2e%2e%2fb", "\u2025/b",
    "\uff0e\uff0e\uff0fb", "a\0b", "\0", "con", "nul.txt", "a:b", "a\nb", "\x1b[2J", "a|b", "$(touch b)",
    "`touch b`", "{0.__class__}", "%s%n", "$HOME", "<script>", "0-9999999", "out0-9999999=0", "in=1e999",
    "1e400", "nan", "-1", "\ud800",
]


MIXED = 50  # texts put together from pieces, besides those that are written down


def hostile_texts(outside: Path, rng: random.Random) -> list[str]:
    """Texts that a name or a path must not be taken from."""
    away = f"{outside}/secret.safetensors"
    up = ["../" * depth + "secret.safetensors" for depth in (1, 2, 5, 12)]
    elsewhere = [*up, away, f"file://{away}", f"~/{away}", str(outside), "..", "/", "//", "a/../../b"]
    backward = [text.replace("/", "\\") for text in elsewhere]
    pieces = [*elsewhere, *backward, *ODD, "ember", "creature", ".safetensors", " [output]", " [temp]"]
    mixed = ["".join(rng.choices(pieces, k=rng.randint(2, 6))) for _ in range(MIXED)]
    return [*elsewhere, *backward, *ODD, *mixed, *(each * 20_000 for each in LONG)]


def creature_graphs() -> list[dict]:
    """The bundled graphs that run without any file, made short."""
    graphs = []
    for path in sorted((ROOT / "workflows" / "api").glob("*.json")):
        graph = json.loads(path.read_text(encoding="utf-8"))
        kinds = {node["class_type"] for node in graph.values()}
        if kinds & {"PiT_LoadCreatureModels"}:
            for node in graph.values():
                node["inputs"] |= {name: value for name, value in SHORT.items() if name in node["inputs"]}
            graphs.append(graph)
    return graphs


def attacked(graphs: list[dict], texts: list[str]) -> Iterator[dict]:
    """Each graph with one text of one of our nodes replaced, and only what that node needs."""
    for graph in graphs:
        for key, node in graph.items():
            for name, value in node["inputs"].items():
                if node["class_type"].startswith("PiT_") and isinstance(value, str):
                    for text in texts:
                        changed = needed_for(graph, key)
                        changed[key]["inputs"][name] = text
                        yield changed


def needed_for(graph: dict, key: str) -> dict:
    """A node with all that it depends on, and an output to run it for."""
    needed, waiting = {}, [key]
    while waiting:
        each = waiting.pop()
        if each not in needed:
            needed[each] = copy.deepcopy(graph[each])
            waiting += [value[0] for value in graph[each]["inputs"].values() if isinstance(value, list)]
    return needed | {"shown": {"class_type": "PreviewAny", "inputs": {"source": [key, 0]}}}


class Watch(threading.Thread):
    """Asks the server for something small all the time; `slowest` is its longest answer in seconds."""

    def __init__(self, server: ComfyServer):
        super().__init__(daemon=True)
        self.server, self.slowest, self.ended = server, 0.0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(PROBE_SECONDS):
            start = time.monotonic()
            self.server.get("/prompt")
            self.slowest = max(self.slowest, time.monotonic() - start)


def surroundings(outside: Path, base: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file that no prompt may touch."""
    own = [base / name for name in ("output", "input", "temp", "models", "user")]
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for top in (outside, base, ROOT / "pit", ROOT / "nodes", ROOT / "workflows", ROOT / "web")
        for path in top.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not set(own) & set(path.parents)
    }


def attack(server: ComfyServer, outside: Path, count: int, seed: int) -> dict[str, object]:
    """Queue `count` hostile prompts, drawn from all of them; what came of it."""
    rng = random.Random(seed)
    prompts = list(attacked(creature_graphs(), hostile_texts(outside, rng)))
    # In their own order: neighbors need the same models, which ComfyUI then keeps loaded.
    drawn = [prompts[place] for place in sorted(rng.sample(range(len(prompts)), min(count, len(prompts))))]
    before, watch, told, longest = surroundings(outside, server.base), Watch(server), Counter(), ""
    watch.start()
    leaked = 0
    for prompt in drawn:
        result = server.queue(prompt)
        told[result.status] += 1
        leaked += SECRET in result.error or SECRET in json.dumps(result.outputs)
        # ComfyUI repeats what is not in a list, in words of its own.
        longest = max(longest, "" if "Value not in list" in result.error else result.error, key=len)
    watch.ended.set()
    watch.join()
    after = surroundings(outside, server.base)
    changed = sorted(set(before.items()) ^ set(after.items()))
    return {
        "hostile prompts": f"{len(drawn)} of {len(prompts)}", **told, "files touched elsewhere": len(changed),
        "secrets told": leaked, "longest message of ours": len(longest), "it begins": longest[:200],
        "slowest answer meanwhile, s": round(watch.slowest, 3),
        **({"touched": changed[:5]} if changed else {}),
    }


def memory(server: ComfyServer) -> float:
    """Resident memory of the server in MiB."""
    guard = psutil.Process(server._guard.pid)
    return sum(process.memory_info().rss for process in guard.children(recursive=True)) / 2**20


def night(server: ComfyServer, count: int) -> dict[str, object]:
    """Queue the demo again and again with new seeds; failures, and the memory on the way."""
    graph = json.loads((ROOT / "workflows/api/piece_it_together.json").read_text(encoding="utf-8"))
    seen, failed, start = {}, 0, time.monotonic()
    for number in range(1, count + 1):
        for node in graph.values():
            node["inputs"] |= {name: value for name, value in SHORT.items() if name in node["inputs"]}
            node["inputs"] |= {"seed": number} if "seed" in node["inputs"] else {}
        failed += server.queue(graph).status != "success"
        if number in (1, 20, count // 2, count):
            seen[f"MiB after {number}"] = round(memory(server))
    return {"prompts": count, "failed": failed, "seconds": round(time.monotonic() - start), **seen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--texts", type=int, default=2000, help="how many hostile prompts")
    parser.add_argument("--prompts", type=int, default=200, help="how many prompts in one night")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder) / "outside"
        outside.mkdir()
        for name in ("secret.safetensors", "secret.txt", "secret.png"):
            (outside / name).write_text(SECRET, encoding="utf-8")
        base, log = make_base(Path(folder) / "base"), Path(folder) / "server.log"
        with ComfyServer(ensure_comfyui(), base, log) as server:
            print(json.dumps(night(server, options.prompts), indent=2), flush=True)
            print(json.dumps(attack(server, outside, options.texts, options.seed), indent=2), flush=True)


if __name__ == "__main__":
    main()
