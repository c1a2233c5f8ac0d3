"""Clusters of parts as files, and the names that people give to parts."""
from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ...pit.messages import ShortError
from ...pit.partcraft.cluster_files import read_part_clusters, save_part_clusters
from ...pit.partcraft.discovery import PartClusters
from ...pit.partcraft.naming import named
from ..bridge.feedback import as_lines, told
from ..bridge.folders import ModelFiles, own_file
from ..bridge.loaders import FileNode
from .find import FRONTS
from .types import CATEGORY, PartClustersType

FILES = ModelFiles("part_clusters")
AS_FILE = "as the file says"
CHOICES = {AS_FILE: None, **{name: front for name, front in FRONTS.items() if front is not None}}


def facts(clusters: PartClusters) -> dict[str, object]:
    """What there is to know about clusters."""
    names = [part.name for part in clusters.vocabulary.parts]
    codes = sorted({part.count for part in clusters.vocabulary.parts})
    return {
        "parts": ", ".join(names), "background": names[clusters.background_part],
        "codes of a part": f"{codes[0]} to {codes[-1]}" if len(codes) > 1 else codes[0],
        "width of the DINOv2": clusters.coarse.shape[1],
    }


class SaveClusters(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_SavePartClusters",
            display_name="Save Part Clusters",
            category=CATEGORY,
            description="Names the parts that were found, and saves them for Load Part Clusters.",
            search_aliases=["save k-means", "save parts", "name parts"],
            is_output_node=True,
            inputs=[
                PartClustersType.Input("clusters", tooltip="What to name and save, from Find Parts."),
                io.String.Input(
                    "name", default="my_parts",
                    tooltip="The file is models/part_clusters/NAME.safetensors; one of that name is "
                            "overwritten.",
                ),
                io.String.Input(
                    "part_names", default="",
                    tooltip="What the parts are called, in their order, with commas between them, such as "
                            "head, , wing. Those left empty keep their names.",
                ),
                io.String.Input(
                    "code_names", default="", multiline=True, optional=True, advanced=True,
                    tooltip="What the codes of all parts but the background are called, one a line, where "
                            "they are classes that you know.",
                ),
            ],
            outputs=[PartClustersType.Output(
                display_name="clusters", tooltip="The same with their names.",
            )],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, clusters: PartClusters, name: str, part_names: str, code_names: str = ""
    ) -> io.NodeOutput:
        names = [each.strip() for each in part_names.split(",")] if part_names.strip() else []
        classes = [line.strip() for line in code_names.splitlines() if line.strip()]
        if names or classes:
            clusters = replace(clusters, names=named(clusters, names, classes))
        path = own_file(FILES.folder_to_write(), name)
        save_part_clusters(path, clusters)
        return io.NodeOutput(clusters, ui=told(cls, as_lines({"written": path.name, **facts(clusters)})))


class LoadClusters(FileNode):
    files = FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LoadPartClusters",
            display_name="Load Part Clusters",
            category=CATEGORY,
            description="Loads clusters of parts: saved ones, or the centroids of a published file.",
            search_aliases=["load k-means", "pretrained_kmeans", "load parts"],
            inputs=[
                io.Combo.Input(
                    "file", options=FILES.options(),
                    tooltip="The file from models/part_clusters: a saved one, or a published "
                            "pretrained_kmeans.pth, of which no code is run.",
                ),
                io.Combo.Input(
                    "foreground", options=list(CHOICES), default=AS_FILE, optional=True, advanced=True,
                    tooltip="Which cluster is the thing before the background, where a published file does "
                            "not say it: there it is the first, unless it was chosen otherwise.",
                ),
            ],
            outputs=[PartClustersType.Output(
                display_name="clusters", tooltip="For Label Parts, Measure Part Words and Train PartCraft.",
            )],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str, foreground: str = AS_FILE) -> io.NodeOutput:
        chosen = CHOICES[foreground]
        clusters = read_part_clusters(FILES.path(file), chosen)
        if chosen is not None and clusters.foreground != chosen:
            raise ShortError(
                f"Load Part Clusters expected a file that does not tell its foreground, got {file}, which "
                f"does. Choose '{AS_FILE}', or find the parts again."
            )
        return io.NodeOutput(clusters, ui=told(cls, as_lines({file: "clusters of parts", **facts(clusters)})))


