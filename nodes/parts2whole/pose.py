"""The pose that the whole takes."""
from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ...pit.parts2whole.pose import pose_picture
from .types import CATEGORY, ManagedParts2Whole, Parts2WholeType, Pose, PoseType


class PoseMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_PoseMap",
            display_name="Pose Map",
            category=CATEGORY,
            description="A drawn pose for Apply Parts2Whole; shows it as the network sees it.",
            search_aliases=["densepose", "pose guider", "parts2whole", "pose", "openpose", "skeleton"],
            # Its picture is kept like that of an output node, but the node only runs if another needs it.
            has_intermediate_output=True,
            inputs=[
                Parts2WholeType.Input("parts2whole", tooltip="From Load Parts2Whole."),
                io.Image.Input(
                    "image",
                    tooltip="A map of the pose, of the aspect of the picture: DensePose for the published "
                            "model. A batch has a pose for each picture of the latent batch.",
                ),
                io.Latent.Input("latent", tooltip="The latents to sample, for their size."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=3.0, step=0.05,
                    tooltip="How much the pose counts; 1 as trained.",
                ),
            ],
            outputs=[PoseType.Output(display_name="pose", tooltip="For Apply Parts2Whole.")],
        )

    @classmethod
    def execute(
        cls, parts2whole: ManagedParts2Whole, image: Tensor, latent: dict[str, Tensor], strength: float,
    ) -> io.NodeOutput:
        size = parts2whole.picture_size(latent)
        seen = torch.cat([pose_picture(each[None], *size) for each in image])
        # The features follow in the sampling, whose latents may have another size by then.
        pose = Pose(image, strength, parts2whole.pose_guider)
        return io.NodeOutput(pose, ui=ui.PreviewImage(seen.movedim(1, -1), cls=cls))
