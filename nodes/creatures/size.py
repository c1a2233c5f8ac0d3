"""A warning where the creature models are asked for pictures of a size that they have not learned."""
from __future__ import annotations

import logging
from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...pit.demo.models.sizes import PICTURE_SIZE
from ..bridge.feedback import say_where_it_runs

KEY = "creature_size"
SHEET_SIZE = 2 * PICTURE_SIZE  # of the character sheets, which an IP-LoRA has taught


def tell_other_sizes(model: ModelPatcher) -> None:
    """Have the node that samples a creature MODEL say so if its latents have another size."""
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, check_size_first)


def check_size_first(
    executor: Callable[..., Tensor], noise: Tensor, *given: object, **named: object
) -> Tensor:
    """A wrapper of `CFGGuider.outer_sample`, whose first argument is the noise `[B, C, H, W]`."""
    model = executor.class_obj.model_patcher
    height, width = (side * model.model.latent_format.spacial_downscale_ratio for side in noise.shape[-2:])
    learned = {PICTURE_SIZE, SHEET_SIZE} if model.patches else {PICTURE_SIZE}
    if width != height or width not in learned:
        text = (
            f"The creature models have learned {PICTURE_SIZE} x {PICTURE_SIZE} pixels; at {width} x {height} "
            "they draw a mosaic. Use Empty Latent for Tokens at 100 percent, which knows their size."
        )
        logging.warning(text)
        say_where_it_runs(text)
    return executor(noise, *given, **named)
