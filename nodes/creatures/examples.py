"""Pictures that come with the pack, to start from without any of one's own."""
from __future__ import annotations

import torch
from comfy_api.latest import io

from ...pit.demo.examples import EXAMPLES
from ...pit.files.pictures import decode_picture
from ...pit.images import on_white, to_tensor
from ..piece_it_together.types import CATEGORY

FIRST = next(iter(EXAMPLES))


class ExamplePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_ExamplePictures",
            display_name="Example Pictures",
            category=CATEGORY,
            description=(
                "Gives pictures that come with the pack: parts, creatures, things, a scene, a texture."
            ),
            search_aliases=["demo pictures", "sample images", "test image", "example parts"],
            inputs=[
                io.Combo.Input(
                    "pictures", options=list(EXAMPLES), default=FIRST,
                    tooltip="What is shown; several pictures come as a batch.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image", tooltip="The pictures; parts, creatures and things are on white.",
                ),
                io.Mask.Output(
                    display_name="mask", tooltip="What each picture shows, without its ground.",
                ),
            ],
        )

    @classmethod
    def execute(cls, pictures: str) -> io.NodeOutput:
        if pictures not in EXAMPLES:  # a list that comes over a link has not been compared with ours
            raise ValueError(
                f"Example Pictures expected one of {', '.join(EXAMPLES)}, got {pictures[:80]!r}. Choose one "
                "from the list, or use Load Image for a picture of your own."
            )
        opened = [decode_picture(path).convert("RGBA") for path in EXAMPLES[pictures]]
        masks = to_tensor([each.getchannel("A").convert("RGB") for each in opened])[..., 0]
        return io.NodeOutput(to_tensor([on_white(each) for each in opened]), torch.clone(masks))
