"""Runs graphs in a ComfyUI, and hands back what they show."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dev import Failure
from dev.help_pictures.graph import Graph
from dev.server import ComfyServer

TIMEOUT_SECONDS = 3600.0  # of a graph; the one that trains takes minutes


@dataclass(frozen=True)
class Shown:
    """What a graph has shown: lists of pictures (RGB), and texts, by what `show` and `tell` gave back."""

    pictures: Mapping[str, list[Image.Image]]
    texts: Mapping[str, str]

    def __getitem__(self, key: str) -> list[Image.Image]:
        return self.pictures[key]


class Studio:
    """A ComfyUI with the pack. What a recipe needs beside graphs is in here, too: folders with pictures."""

    def __init__(self, server: ComfyServer):
        self.server, self.definitions = server, server.object_info()

    def graph(self) -> Graph:
        return Graph(self.definitions)

    def run(self, graph: Graph) -> Shown:
        """Run a graph.

        Raises:
            Failure: it did not run, or shows another number of pictures than was asked for.
        """
        result = self.server.queue(graph.nodes, timeout=TIMEOUT_SECONDS)
        if result.status != "success" or result.error:
            raise Failure(f"ComfyUI made no pictures: {result.error or result.status}.", self.server.log)
        pictures = {
            key: [self.opened(each) for each in result.outputs.get(key, {}).get("images", [])]
            for key in graph.shown
        }
        for key, count in graph.shown.items():
            if len(pictures[key]) != (count or max(1, len(pictures[key]))):
                raise Failure(f"Expected {count or 'some'} pictures of node {key}, got {len(pictures[key])}.")
        texts = {key: "\n".join(result.outputs.get(key, {}).get("text", [])) for key in graph.told}
        return Shown(pictures, texts)

    def pictures(self, graph: Graph, *keys: str) -> list[list[Image.Image]]:
        """Run a graph; what it has shown by these keys, in their order. Errors as in `run`."""
        shown = self.run(graph)
        return [shown[key] for key in keys]

    def opened(self, image: dict[str, str]) -> Image.Image:
        """A picture that ComfyUI has made (RGB)."""
        return Image.open(io.BytesIO(self.server.view(image))).convert("RGB")

    def input_folder(self, name: str, write: Callable[[Path], None]) -> str:
        """A folder in ComfyUI's input, filled by `write` unless it is there; returns its name."""
        folder = self.server.base / "input" / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            write(folder)
            self.definitions = self.server.object_info()  # lists of folders have changed
        return name


Recipe = Callable[[Studio], Image.Image]
"""Makes the picture of one node."""
