"""The six masks of a person: by a segmenter of clothes, or from masks of parts by their names."""
from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import torch
from comfy_api.latest import io, ui
from torch import Tensor, nn

from ...pit.images import labelled_sheet, on_white, to_pil, to_tensor
from ...pit.messages import ShortError
from ...pit.parts2whole.parts import LABELS
from ..bridge.feedback import progress_bar
from ..bridge.folders import ModelFiles, file_stamp
from .loading import managed_whole
from .types import CATEGORY

FILES = ModelFiles("clothes_segmenter")
BY_NAME = "masks by name"
COLUMNS = 3  # of the preview


def segmented(model: nn.Module, pictures: Tensor) -> dict[str, Tensor]:
    """Masks `[B, H, W]` by the names of the segmenter, on the CPU."""
    from ...pit.parts2whole.clothes import segment

    patcher, done = managed_whole(model, torch.float32), progress_bar()
    comfy.model_management.load_models_gpu([patcher])
    found = []
    # One by one: a segmenter takes pictures in their own size, and Cancel comes in between.
    for picture in pictures.split(1):
        masks = segment(model, picture.to(patcher.load_device))
        found.append({name: mask.cpu() for name, mask in masks.items()})
        done(len(found), len(pictures))
    return {name: torch.cat([each[name] for each in found]) for name in found[0]}


def named_masks(masks: Mapping[str, Tensor], names: str, pictures: int) -> dict[str, Tensor]:
    """Masks `[B, H, W]` by the lines of `names`; of a single picture, a batch is united.

    Raises:
        ValueError: there are not as many names as masks, or not as many masks as pictures.
    """
    lines = [line.strip() for line in names.splitlines() if line.strip()]
    if len(lines) != len(masks) or not masks:
        raise ShortError(
            f"Clothes Parser expected a name for each of {len(masks)} masks, got {len(lines)}. Connect masks "
            "and write a line for each of them, or choose a segmenter."
        )
    found: dict[str, Tensor] = {}
    for name, mask in zip(lines, masks.values(), strict=True):
        each = mask.reshape(-1, *mask.shape[-2:])
        # A segmenter that is asked for shoes gives a mask of each shoe.
        each = each.amax(0, keepdim=True) if pictures == 1 else each
        if len(each) != pictures:
            raise ShortError(
                f"Clothes Parser expected {pictures} masks called {name}, one for each picture, got "
                f"{len(each)}. Connect a batch of as many masks as pictures."
            )
        found[name] = torch.maximum(found[name], each) if name in found else each
    return found


def check_masks(named: Mapping[str, Tensor], size: tuple[int, int]) -> None:
    """Raise ValueError unless masks are finite and have the size (height, width) of the pictures."""
    for name, mask in named.items():
        if tuple(mask.shape[-2:]) != size or not mask.isfinite().all():
            raise ShortError(
                f"Clothes Parser expected a mask called {name} of the size of the picture, {size[1]}x"
                f"{size[0]}, without NaN, got {mask.shape[-1]}x{mask.shape[-2]}. Connect the masks that "
                "belong to this picture."
            )


def preview(masks: Mapping[str, Tensor]) -> Tensor:
    """A picture for each picture: its six masks below their labels."""
    batches = [to_pil(mask[..., None]) for mask in masks.values()]
    sheets = [labelled_sheet(each, list(masks), COLUMNS) for each in zip(*batches, strict=True)]
    return to_tensor([on_white(sheet) for sheet in sheets])


class ClothesParser(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        mask = io.Mask.Input("mask", tooltip="A mask of one part, white on it.")
        return io.Schema(
            node_id="PiT_ClothesParser",
            display_name="Clothes Parser",
            category=CATEGORY,
            description="Makes the masks of the six labels from a picture of a person, and shows them.",
            search_aliases=[
                "segformer", "clothes segmentation", "human parsing", "parts2whole", "clothes", "outfit",
                "segment person", "face mask", "hair mask",
            ],
            # Its masks are kept like those of an output node, but the node only runs if another needs it.
            has_intermediate_output=True,
            inputs=[
                io.Image.Input("image", tooltip="Pictures of persons."),
                io.Combo.Input(
                    "file", options=[BY_NAME, *FILES.listed()],
                    tooltip="The weights of a SegFormer in models/clothes_segmenter, with their config.json; "
                            "or the masks below by their names.",
                ),
                io.Autogrow.Input(
                    "masks", template=io.Autogrow.TemplatePrefix(mask, prefix="mask", min=0, max=32),
                    tooltip="For masks by name: masks that another node has made, such as SAM3 Detect.",
                ),
                io.String.Input(
                    "names", multiline=True, default="", optional=True,
                    tooltip="For masks by name: a line for each mask, in their order. A label, such as face, "
                            "or what the published segmenter calls parts, such as hair or left-shoe.",
                ),
            ],
            outputs=[
                io.Mask.Output(
                    id=label, display_name=label,
                    tooltip=f"White on the {label}, for Reference Part; black if there is nothing of it.",
                )
                for label in LABELS
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None, masks: object = None) -> bool | str:
        # ComfyUI gives inputs that grow to any check, whether it takes them or not.
        return (None if file == BY_NAME else FILES.why_missing(file)) or True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **_: object) -> object:
        if file in (None, BY_NAME):
            return None
        return FILES.stamp(file), file_stamp(FILES.path(file).with_name("config.json"))

    @classmethod
    def execute(
        cls, image: Tensor, file: str, masks: Mapping[str, Tensor] | None = None, names: str = "",
    ) -> io.NodeOutput:
        from ...pit.parts2whole.clothes import load_segmenter, masks_by_name

        if file == BY_NAME:
            named = named_masks(masks or {}, names, len(image))
            check_masks(named, tuple(image.shape[1:3]))
        else:
            model = load_segmenter(FILES.path(file).parent)
            named = segmented(model, to_tensor(to_pil(image)))
        found = masks_by_name(named)
        return io.NodeOutput(*found.values(), ui=ui.PreviewImage(preview(found), cls=cls))
