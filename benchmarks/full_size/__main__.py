"""Piece it Together at its true sizes: random files of every published size and layout, in a real ComfyUI.

Runs the three SDXL graphs, small, and prints how far each stage is from transformers (CLIP), diffusers
(resampler, UNet, sampler), PEFT (IP-LoRA) and the published IP-Prior, which is computed here straight from
its weights. It takes 13 GB of disk, 20 GB of memory, and a quarter of an hour on two CPU cores. Run in the
folder of the pack:

    python -m benchmarks.full_size
"""
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.full_size import graphs
from benchmarks.full_size.files import PRIOR, WRITERS, Files
from benchmarks.full_size.watch import Cost, StageWatch, give_back, this_process

if TYPE_CHECKING:
    from benchmarks.full_size.references import Chain, Renderer

FILES, GRAPHS, REFERENCES = "files", "graphs", "references"
LORAS = {"concept_in_a_scene_sdxl": "background_generation", "character_sheet_sdxl": "character_sheet"}
AGAINST = {
    "features": "transformers", "tokens": "diffusers", "concepts": "published code",
    "concepts as the node chooses": "published code", "UNet": "diffusers", "latents": "diffusers",
}
GB = 1e9


def make_files(files: Files) -> None:
    """Write all files, and print what that took."""
    graphs.write_shapes(files)
    with StageWatch(this_process) as watch:
        for name, write in WRITERS.items():
            watch.enter(name)
            write(files)
            give_back()
    print_costs("files", watch.costs)


def run_graphs(files: Files, names: Iterable[str]) -> None:
    """Run the graphs, each in a ComfyUI of its own, and print what their stages took."""
    for name in names:
        print_costs(name, graphs.run_graph(files, name))


def inputs_of(name: str, kind: str) -> dict:
    """The inputs of the only node of a kind in a graph as it was run."""
    graph = graphs.small(graphs.published(name))
    (node,) = (node for node in graph.values() if node["class_type"] == kind)
    return node["inputs"]


@torch.no_grad()
def compare(files: Files, names: Iterable[str]) -> None:
    """Compute all again with the references, one model at a time, and print errors and costs."""
    # Only here: diffusers and transformers take memory that the graphs need.
    from benchmarks.full_size import references

    chains = [references.Chain(name, files.captured / name) for name in names]
    with StageWatch(this_process) as watch:
        watch.enter("features, transformers")
        references.compare_features(chains, files.vision)
        give_back()
        watch.enter("tokens, diffusers")
        references.compare_tokens(chains, files.adapter)
        for chain in chains:
            if chain.stage("parts"):
                watch.enter("concepts, published code")
                inputs = inputs_of(chain.name, "PiT_SamplePrior")
                references.compare_concepts(chain, files.prior, PRIOR["num_attention_heads"], inputs)
        give_back()
        watch.enter("load UNet, diffusers")
        renderer = references.Renderer(files.checkpoint, files.adapter)
        compare_pictures(chains, files, renderer, watch.enter)
    print_costs(REFERENCES, watch.costs)
    print_errors(chains)


def compare_pictures(
    chains: Iterable[Chain], files: Files, renderer: Renderer, enter: Callable[[str], None]
) -> None:
    """UNet and latents of every graph; `enter` is told of each stage."""
    for chain in chains:
        lora = LORAS.get(chain.name)
        with renderer.lora(files.loras[lora] if lora else None):
            kind = "with IP-LoRA, PEFT" if lora else "with tokens, diffusers"
            negative = inputs_of(chain.name, "PiT_ApplyTokens")["negative"]
            enter(f"UNet {kind}")
            renderer.compare_unet(chain, same_tokens=negative == "same tokens")
            enter(f"latents {kind}")
            renderer.compare_latents(chain, inputs_of(chain.name, "KSampler"))


def print_costs(title: str, costs: Mapping[str, Cost]) -> None:
    """Seconds and memory of each stage, as a table in Markdown."""
    print(f"\n| {title} | seconds | peak memory, GB |\n| --- | --- | --- |")
    for name, cost in costs.items():
        print(f"| {name} | {cost.seconds:.1f} | {cost.memory / GB:.2f} |", flush=True)


def print_errors(chains: Iterable[Chain]) -> None:
    """The errors of each stage in each graph, as a table in Markdown."""
    chains = list(chains)
    print(f"\n| error | against | {' | '.join(chain.name for chain in chains)} |")
    print(f"| --- | --- |{' --- |' * len(chains)}")
    for stage, against in AGAINST.items():
        cells = (f"{chain.errors[stage]:.1e}" if stage in chain.errors else "" for chain in chains)
        print(f"| {stage} | {against} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="keep all files here, and use those that are here")
    parser.add_argument(
        "--stages", nargs="+", choices=(FILES, GRAPHS, REFERENCES), default=(FILES, GRAPHS, REFERENCES),
        help="what to do; each needs what the ones before it left in --folder (default: all)",
    )
    parser.add_argument("--graphs", nargs="+", choices=graphs.GRAPHS, default=graphs.GRAPHS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        files = Files((options.folder or Path(temporary)).resolve())
        files.base.mkdir(parents=True, exist_ok=True)
        if FILES in options.stages:
            make_files(files)
        if GRAPHS in options.stages:
            run_graphs(files, options.graphs)
        if REFERENCES in options.stages:
            compare(files, options.graphs)


if __name__ == "__main__":
    main()
