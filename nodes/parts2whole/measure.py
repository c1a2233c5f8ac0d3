"""How close pictures are to references and targets."""
from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ...pit.files.published import file_kind
from ...pit.images import clip_pixel_values, on_white, to_pil, to_tensor
from ...pit.messages import ShortError
from ...pit.parts2whole.scores import (
    SMALLEST_SIDE,
    clip_similarity,
    dino_pixel_values,
    dino_similarity,
    load_lpips,
)
from ..bridge.dino import PICTURES_AT_ONCE, check_dino
from ..bridge.feedback import progress_bar, told
from ..bridge.folders import ModelFiles
from .loading import managed_whole
from .types import CATEGORY

FILES = ModelFiles("lpips")
NONE = "none"
Step = Callable[[], None]


def paired(name: str, pictures: Tensor, others: Tensor) -> Tensor:
    """One of `others` for each picture. Raises ValueError if their numbers do not go together."""
    if len(others) not in (1, len(pictures)):
        raise ShortError(
            f"Measure Pictures expected one {name}, or one for each of {len(pictures)} pictures, got "
            f"{len(others)}. Connect as many as pictures."
        )
    return others.expand(len(pictures), *others.shape[1:]) if len(others) == 1 else others


def seen_by(clip_vision, pixels: Tensor, place: int, done: Step) -> Tensor:
    """What an image encoder gives at a place of its outputs, on the CPU."""
    comfy.model_management.load_models_gpu([clip_vision.patcher])
    found = []
    for chunk in pixels.split(PICTURES_AT_ONCE):
        found.append(clip_vision.model(pixel_values=chunk.to(clip_vision.load_device))[place].float().cpu())
        done()
    return torch.cat(found)


def clip_scores(clip_vision, pictures: Tensor, references: Tensor, done: Step) -> Tensor:
    """Raises ValueError for an encoder that is no CLIP."""
    if clip_vision.model_type != "clip_vision_model":
        raise ValueError(
            f"Measure Pictures expected a CLIP as clip_vision, got a {clip_vision.model_type}. Connect "
            "DINOv2 to dino."
        )
    size = clip_vision.image_size
    return clip_similarity(*(
        seen_by(clip_vision, clip_pixel_values([on_white(each) for each in to_pil(batch)], size), 2, done)
        for batch in (pictures, references)
    ))


def dino_scores(dino, pictures: Tensor, references: Tensor, done: Step) -> Tensor:
    """Raises ValueError for an encoder that is no DINOv2."""
    check_dino("Measure Pictures", dino, "dino")
    return dino_similarity(*(
        seen_by(dino, dino_pixel_values(to_pil(batch), dino.image_size), 0, done)
        for batch in (pictures, references)
    ))


def lpips_scores(alexnet: str, linear: str, pictures: Tensor, target: Tensor | None, done: Step) -> Tensor:
    """Raises ValueError without a target, or for one of another size."""
    if target is None:
        raise ValueError("Measure Pictures expected a target for LPIPS, got none. Connect one.")
    size = pictures.shape[1:3]
    if target.shape[1:3] != size or min(size) < SMALLEST_SIDE:
        raise ShortError(
            f"Measure Pictures expected targets of the size of the pictures, {size[1]}x{size[0]}, and of at "
            f"least {SMALLEST_SIDE} pixels, got {target.shape[2]}x{target.shape[1]}. LPIPS compares pixel by "
            "pixel: make both the same size."
        )
    lpips = managed_whole(load_lpips(FILES.path(alexnet), FILES.path(linear)), torch.float32)
    comfy.model_management.load_models_gpu([lpips])
    network = lpips.model.network
    weight = next(network.parameters())
    both = [to_tensor(to_pil(batch)).movedim(-1, 1)
            for batch in (pictures, paired("target", pictures, target))]
    found = []
    with torch.inference_mode():
        for chunk in zip(*(each.split(PICTURES_AT_ONCE) for each in both), strict=True):
            found.append(network(*(each.to(weight) for each in chunk)).float().cpu())
            done()
    return torch.cat(found)


def summary(scores: dict[str, Tensor]) -> str:
    """A line for each measure, and for each picture if there are several."""
    lines = [f"{name}: {values.mean():.4f} (mean of {len(values)})" for name, values in scores.items()]
    count = len(next(iter(scores.values())))
    for number in range(count) if count > 1 else ():
        each = ", ".join(f"{name} {values[number]:.4f}" for name, values in scores.items())
        lines.append(f"picture {number + 1}: {each}")
    return "\n".join(lines)


class MeasurePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_MeasurePictures",
            display_name="Measure Pictures",
            category=CATEGORY,
            description=(
                "Measures how close pictures are to their references (CLIP, DINO) and to a target (LPIPS), "
                "each picture to its own."
            ),
            search_aliases=["clip score", "dino score", "lpips", "evaluate", "metrics", "similarity"],
            is_output_node=True,
            inputs=[
                io.Image.Input("pictures", tooltip="The pictures to measure."),
                io.Image.Input(
                    "references", tooltip="What they should look like: one for all, or one for each.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True,
                    tooltip="A CLIP with its projection, for the CLIP similarity; figures of different ones "
                            "cannot be compared.",
                ),
                io.ClipVision.Input(
                    "dino", optional=True,
                    tooltip="A DINOv2 from Load DINOv2, for the DINO similarity; the base one as published.",
                ),
                io.Image.Input(
                    "target", optional=True,
                    tooltip="For LPIPS: the true pictures, of the same size.",
                ),
                io.Combo.Input(
                    "alexnet", options=[NONE, *FILES.listed()], default=NONE, optional=True, advanced=True,
                    tooltip="For LPIPS: torchvision's AlexNet in models/lpips "
                            "(alexnet-owt-7be5be79.pth).",
                ),
                io.Combo.Input(
                    "lpips", options=[NONE, *FILES.listed()], default=NONE, optional=True, advanced=True,
                    tooltip="For LPIPS: its linear layers in models/lpips (alex.pth of the package lpips).",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="report", tooltip="The mean of every measure, and those of each picture.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, alexnet: str | None = NONE, lpips: str | None = NONE) -> bool | str:
        chosen = [name for name in (alexnet, lpips) if name != NONE]
        return next(filter(None, map(FILES.why_missing, chosen)), None) or True

    @classmethod
    def execute(
        cls, pictures: Tensor, references: Tensor, clip_vision=None, dino=None, target: Tensor | None = None,
        alexnet: str = NONE, lpips: str = NONE,
    ) -> io.NodeOutput:
        with_lpips = NONE not in (alexnet, lpips)
        if clip_vision is None and dino is None and not with_lpips:
            raise ValueError(
                "Measure Pictures expected something to measure with, got nothing. Connect a CLIP vision "
                f"model ({file_kind('clip_vision_l').where_to_get}), a DINOv2, or choose both files of LPIPS."
            )
        chunks, bar, steps = -(-len(pictures) // PICTURES_AT_ONCE), progress_bar(), iter(range(1, 1 << 30))
        total = chunks * (2 * (clip_vision is not None) + 2 * (dino is not None) + with_lpips)
        scores, others = {}, paired("reference", pictures, references)

        def done() -> None:
            bar(next(steps), total)

        if clip_vision is not None:
            scores["CLIP"] = clip_scores(clip_vision, pictures, others, done)
        if dino is not None:
            scores["DINO"] = dino_scores(dino, pictures, others, done)
        if with_lpips:
            scores["LPIPS"] = lpips_scores(alexnet, lpips, pictures, target, done)
        return io.NodeOutput(summary(scores), ui=told(cls, summary(scores)))
