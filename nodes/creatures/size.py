"""A warning where the creature models are asked for pictures of a size that they have not learned."""
from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...pit.demo.models.sizes import PICTURE_SIZE
from ..bridge.feedback import say_where_it_runs

KEY = "creature_size"
SHEET_SIZE = 2 * PICTURE_SIZE  # of the character sheets, which an IP-LoRA has taught


def tell_other_sizes(model: ModelPatcher, sheets: bool = False) -> None:
    """Have the node that samples a creature MODEL say so if its latents have another size.

    Args:
        sheets: whether an IP-LoRA may have taught this model to draw character sheets.
    """
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, partial(check_size_first, sheets))


def check_size_first(
    sheets: bool, executor: Callable[..., Tensor], noise: Tensor, *given: object, **named: object
) -> Tensor:
    """A wrapper of `CFGGuider.outer_sample`, whose first argument is the noise `[B, C, H, W]`."""
    model = executor.class_obj.model_patcher
    height, width = (side * model.model.latent_format.spacial_downscale_ratio for side in noise.shape[-2:])
    learned = {PICTURE_SIZE, SHEET_SIZE} if sheets and model.patches else {PICTURE_SIZE}
    if width != height or width not in learned:
        text = (
            f"The creature models have learned {PICTURE_SIZE} x {PICTURE_SIZE} pixels; at {width} x {height} "
            f"they draw a mosaic. Set the size of the latents to {PICTURE_SIZE}, in Insert Object by its "
            "working_size."
        )
        logging.warning(text)
        say_where_it_runs(text)
    return executor(noise, *given, **named)
