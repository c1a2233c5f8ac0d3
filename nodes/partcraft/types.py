"""The socket types of PartCraft, and what travels through them."""
from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "Piece it Together/PartCraft"

PartWordsType = io.Custom("PIT_PART_WORDS")
"""Carries `pit.partcraft.files.PartWords`."""
PartClustersType = io.Custom("PIT_PART_CLUSTERS")
"""Carries `pit.partcraft.discovery.PartClusters`."""
PartAttentionType = io.Custom("PIT_PART_ATTENTION")
"""Carries a `RecordedMaps`."""

CLIP_VISION_TOOLTIP = (
    "The DINOv2 that the parts were found with: from Load DINOv2, or the large or giant one from Load CLIP "
    "Vision."
)
CLUSTERS_TOOLTIP = "Where the parts lie: from Find Parts or Load Part Clusters."
