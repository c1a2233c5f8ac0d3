"""The parts of pictures, as masks and in words."""
from __future__ import annotations

import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ...pit.encoders.dino import middle_box
from ...pit.images import on_white, to_pil, to_tensor
from ...pit.partcraft.discovery import PartClusters, caption, codes_of, find_parts, words_in
from ...pit.partcraft.previews import colored_parts, masks_over
from ..bridge.feedback import progress_bar, say
from .dino import check_width, middle_features, whole_features
from .types import CATEGORY, CLIP_VISION_TOOLTIP, CLUSTERS_TOOLTIP, PartClustersType

WHOLE, MIDDLE = "whole picture", "middle, as published"


def chosen_parts(clusters: PartClusters, names: str) -> list[int]:
    """The numbers of the parts with these names, of all if none is given. Raises ShortError if unknown."""
    given = [name.strip() for name in names.split(",") if name.strip()]
    known = clusters.vocabulary
    return [known.part_number(name) for name in given] or list(range(len(known.parts)))


def labelled(
    clip_vision, clusters: PartClusters, picture: Image.Image, view: str
) -> tuple[Tensor, Image.Image, list[int]]:
    """The masks of all parts `[M,H,W]`, the picture with its parts in colors, and the code of each part."""
    middle = view == MIDDLE
    features = middle_features(clip_vision, [picture]) if middle else whole_features(clip_vision, picture)
    box = middle_box(*picture.size) if middle else (0, 0, *picture.size)
    found, colored = find_parts(features, clusters), on_white(picture)
    seen = colored_parts(colored.crop(box), found.labels[0], clusters.background_part)
    colored.paste(seen, box[:2])
    masks = masks_over(found.masks()[0], picture.size, box)
    return masks, colored, codes_of(found, clusters)[0].tolist()


class LabelParts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_LabelParts",
            display_name="Label Parts",
            category=CATEGORY,
            description="Finds the parts of pictures: a mask of each, and the part words that describe them.",
            search_aliases=["part segmentation", "part masks", "part codes"],
            has_intermediate_output=True,
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                PartClustersType.Input("clusters", tooltip=CLUSTERS_TOOLTIP),
                io.Image.Input("image", tooltip="Pictures of the kind that the parts were found on."),
                io.String.Input(
                    "parts", default="",
                    tooltip="Names of the parts to give masks of, with commas between them; empty for all.",
                ),
                io.Combo.Input(
                    "view", options=[WHOLE, MIDDLE], default=WHOLE, optional=True, advanced=True,
                    tooltip="What DINOv2 is shown: all of a picture, or its middle, as when the parts were "
                            "found.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks", tooltip="A mask of each part: all of the first picture first.",
                ),
                io.Image.Output(display_name="preview", tooltip="The pictures with their parts in colors."),
                io.String.Output(
                    display_name="words", tooltip="The part words of each picture, a line each.",
                ),
                io.String.Output(
                    display_name="codes", tooltip="The same as published captions write them, 0:65 2:246.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, clip_vision, clusters: PartClusters, image: Tensor, parts: str, view: str = WHOLE
    ) -> io.NodeOutput:
        check_width("Label Parts", clip_vision, clusters.coarse.shape[1])
        chosen, pictures, done = chosen_parts(clusters, parts), to_pil(image), progress_bar()
        masks, previews, words, codes = [], [], [], []
        for number, picture in enumerate(pictures):
            own, colored, found = labelled(clip_vision, clusters, picture, view)
            masks.append(own[chosen])
            previews.append(colored)
            words.append(" ".join(map(clusters.vocabulary.text, words_in(found, clusters.absent))))
            codes.append(caption(found, clusters.absent))
            done(number + 1, len(pictures), colored)
        say(cls, "\n".join(words))
        shown = to_tensor(previews)
        return io.NodeOutput(
            torch.cat(masks), shown, "\n".join(words), "\n".join(codes), ui=ui.PreviewImage(shown, cls=cls)
        )
