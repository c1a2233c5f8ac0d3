"""How exactly pictures show the part words that they were asked for."""
from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...pit.images import to_pil
from ...pit.messages import ShortError
from ...pit.partcraft.discovery import PartClusters, find_parts
from ...pit.partcraft.files import PartWords
from ...pit.partcraft.prompt import PartWord, Vocabulary, read_prompt, words_of
from ...pit.partcraft.scores import Scores, measure_words
from ..bridge.dino import PICTURES_AT_ONCE
from ..bridge.feedback import progress_bar, told
from .dino import check_width, middle_features
from .types import CATEGORY, CLIP_VISION_TOOLTIP, PartClustersType, PartWordsType


def asked_words(prompts: str, vocabulary: Vocabulary, count: int) -> list[list[PartWord]]:
    """The part words of each picture. Raises ShortError unless there is one line, or one for each."""
    lines = [line for line in prompts.splitlines() if line.strip()]
    if len(lines) not in (1, count):
        raise ShortError(
            f"Measure Part Words expected one prompt for all pictures or one line for each of {count}, got "
            f"{len(lines)}. Write as many lines as there are pictures."
        )
    found = [words_of(read_prompt(line, vocabulary)) for line in lines]
    return found * count if len(lines) == 1 else found


def all_features(clip_vision, image: Tensor) -> Tensor:
    """What DINOv2 sees of all pictures, `[B,d,h,w]`."""
    pictures, done, found = to_pil(image), progress_bar(), []
    for start in range(0, len(pictures), PICTURES_AT_ONCE):
        found.append(middle_features(clip_vision, pictures[start:start + PICTURES_AT_ONCE]))
        done(min(start + PICTURES_AT_ONCE, len(pictures)), len(pictures))
    return torch.cat(found)


def described(scores: Scores) -> str:
    """The scores, in lines."""
    return (
        f"EMR {scores.exact:.1%}: share of {scores.count} part words that the pictures show exactly\n"
        f"CoSim {scores.similarity:.3f}: how near the parts shown are to those asked for\n"
        f"found {scores.found:.1%}: share of the parts that are in the pictures at all"
    )


class MeasurePartWords(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_MeasurePartWords",
            display_name="Measure Part Words",
            category=CATEGORY,
            description=(
                "Measures how exactly pictures show the part words of their prompts, by the published scores "
                "EMR and CoSim."
            ),
            search_aliases=["emr", "cosim", "exact matching rate", "evaluate parts"],
            is_output_node=True,
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip=CLIP_VISION_TOOLTIP),
                PartClustersType.Input(
                    "clusters", tooltip="The clusters whose codes the words were trained with.",
                ),
                io.Image.Input("image", tooltip="The pictures that were drawn."),
                io.String.Input(
                    "prompts", multiline=True, default="",
                    tooltip="The prompt of all pictures, or a line for each of them.",
                ),
                PartWordsType.Input(
                    "part_words", optional=True,
                    tooltip="Whose names the prompts use; without them, those of the clusters.",
                ),
                io.Boolean.Input(
                    "background", default=False, optional=True, advanced=True,
                    tooltip="Count words for the background as well, which the paper leaves out.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="exact", tooltip="EMR: the share of words that are shown exactly, 0 to 1.",
                ),
                io.Float.Output(
                    display_name="similarity",
                    tooltip="CoSim: how near the parts shown are to those asked for, up to 1.",
                ),
                io.Float.Output(
                    display_name="found", tooltip="The share of parts that are in the pictures at all.",
                ),
                io.String.Output(display_name="report", tooltip="The scores, in words."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, clip_vision, clusters: PartClusters, image: Tensor, prompts: str,
        part_words: PartWords | None = None, background: bool = False,
    ) -> io.NodeOutput:
        check_width("Measure Part Words", clip_vision, clusters.coarse.shape[1])
        vocabulary = clusters.vocabulary if part_words is None else part_words.vocabulary
        asked = asked_words(prompts, vocabulary, len(image))
        scores = measure_words(
            find_parts(all_features(clip_vision, image), clusters), clusters, asked, background
        )
        report = described(scores)
        return io.NodeOutput(
            scores.exact, scores.similarity, scores.found, report, ui=told(cls, report)
        )
