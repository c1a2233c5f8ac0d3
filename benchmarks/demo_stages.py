"""How long each stage of the demo graph takes in a real ComfyUI, from the messages of its websocket.

The baseline is the first run of a fresh server. The second run has other seeds, so nothing that matters is
cached but the models. Run in the folder of the pack:

    python -m benchmarks.demo_stages
"""

import argparse
import json
import time
from pathlib import Path

import torch

from dev import LOGS, STATE, Failure
from dev.client import ComfyClient
from dev.comfyui import ensure_comfyui, make_base
from dev.demo import WORKFLOW
from dev.server import ComfyServer

STAGES = {
    "PiT_LoadCreatureModels": "load models",
    "PiT_CreatureParts": "draw parts",
    "PiT_EncodeParts": "encode parts",
    "PiT_SamplePrior": "sample prior",
    "PiT_ApplyTokens": "apply tokens",
    "CLIPTextEncode": "encode prompts",
    "KSampler": "render",
    "VAEDecode": "decode",
    "SaveImage": "save pictures",
}
CPU_INFO = Path("/proc/cpuinfo")


class StageTimes:
    """Adds up the seconds of each stage from a run's messages: a node works until the next one starts."""

    def __init__(self, graph: dict):
        self.graph = graph
        self.seconds: dict[str, float] = {}
        self.stage: str | None = None
        self.since = 0.0

    def __call__(self, event: dict) -> None:
        if event["type"] != "executing":
            return
        now = time.perf_counter()
        if self.stage is not None:
            self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.since
        node = event["data"]["node"]
        self.stage = None if node is None else STAGES.get(self.graph[node]["class_type"], "other nodes")
        self.since = now


def timed_run(client: ComfyClient, graph: dict) -> dict[str, float]:
    """The seconds of each stage in one run; cached nodes do not appear."""
    times = StageTimes(graph)
    result = client.queue(graph, times)
    if result.status != "success":
        raise Failure(f"ComfyUI could not run the graph: {result.error or result.status}.", client.log)
    return times.seconds


def with_other_seeds(graph: dict) -> dict:
    """A copy of the graph, with every seed higher by one."""
    graph = json.loads(json.dumps(graph))
    for node in graph.values():
        if "seed" in node["inputs"]:
            node["inputs"]["seed"] += 1
    return graph


def machine(client: ComfyClient) -> str:
    """The processor, how many threads torch uses on it, and what ComfyUI computes on."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    stats = client.get("/system_stats")
    return (
        f"{names[0] if names else 'unknown processor'}, {torch.get_num_threads()} threads, "
        f"ComfyUI {stats['system']['comfyui_version']} on {stats['devices'][0]['name']}, "
        f"torch {torch.__version__}"
    )


def print_table(first: dict[str, float], second: dict[str, float]) -> None:
    """The seconds of each stage in both runs."""
    print(f"{'seconds':<20}{'first run (baseline)':>22}{'second run':>14}")
    for stage in [*STAGES.values(), "other nodes"]:
        cells = [f"{run[stage]:.2f}" if stage in run else "cached" for run in (first, second)]
        if stage in first or stage in second:
            print(f"{stage:<20}{cells[0]:>22}{cells[1]:>14}")
    print(f"{'all':<20}{sum(first.values()):>22.2f}{sum(second.values()):>14.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="a graph in ComfyUI's API format")
    options = parser.parse_args()
    graph = json.loads(options.workflow.read_text())
    server = ComfyServer(ensure_comfyui(), make_base(STATE / "base"), LOGS / "demo_stages.log")
    start = time.perf_counter()
    with server:
        boot = time.perf_counter() - start
        print(f"{options.workflow.name}: {machine(server)}; start of ComfyUI {boot:.1f} s\n")
        print_table(timed_run(server, graph), timed_run(server, with_other_seeds(graph)))


if __name__ == "__main__":
    main()
