"""The nodes, in ComfyUI's V3 schema. Each is a shell around one call into the engine, `pit`."""
from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import creatures, object_insertion, partcraft, parts2whole, piece_it_together, pops
from .bridge.errors import for_people
from .bridge.folders import register_model_folders

SYSTEMS = (
    piece_it_together,
    object_insertion,
    creatures,
    pops,
    partcraft,
    parts2whole,
)


class PieceItTogether(ComfyExtension):
    async def on_load(self) -> None:
        # ComfyUI calls this before it asks for the nodes, whose loaders list the files of these folders.
        register_model_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [for_people(node) for system in SYSTEMS for node in system.NODES]
