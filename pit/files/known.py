"""Weight files recognized by their keys, so that an error can say what a file is and where it belongs."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..messages import shortened
from .published import file_kinds

LONGEST_NAME = 120  # in a message
LOAD_CHECKPOINT = "It goes into models/checkpoints, for Load Checkpoint."

# Files that ComfyUI itself loads: (pattern of a key, what the file is, what to do with it). The first row
# that matches any key wins, so a complete model comes before the parts that it contains. Names are matched
# after any dot, because complete models put `model.diffusion_model.` or `first_stage_model.` before them.
COMFYUI_FILES = (
    (r"(^|\.)control_model\.|controlnet_", "a ControlNet", "It goes into models/controlnet."),
    (r"(^|\.)conditioner\.embedders\.", "a complete SDXL model", LOAD_CHECKPOINT),
    (r"(^|\.)cond_stage_model\.", "a complete Stable Diffusion model", LOAD_CHECKPOINT),
    (r"(^|\.)decoder\.conv_in\.", "a VAE", "It goes into models/vae, for Load VAE."),
    (r"(^|\.)(input|down|double|joint|transformer)_blocks\.", "a diffusion model without its text encoder",
     "It goes into models/diffusion_models, for Load Diffusion Model."),
    (r"(^|\.)(vision_model|visual)\.", "a CLIP vision encoder",
     "It goes into models/clip_vision, for Load CLIP Vision."),
    (r"(^|\.)(text_model|transformer\.resblocks|encoder\.block)\.|\.self_attn\.q_proj\.", "a text encoder",
     "It goes into models/text_encoders, for Load CLIP."),
)


def what_is(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """What a file is (the end of a sentence) and what to do with it (a sentence)."""
    kinds = list(file_kinds())
    # Lookalikes first: they share keys with our kinds, whose own tests would take them for ours.
    for lookalike in (each for kind in kinds for each in kind.lookalikes):
        if lookalike.is_one(state):
            return lookalike.what, lookalike.advice
    for kind in kinds:
        if kind.is_one(state):
            return kind.what, kind.place
    for pattern, what, advice in COMFYUI_FILES:
        if any(re.search(pattern, key) for key in state):
            return what, advice
    return f"a file of another kind, with the keys {first_of(list(state))}", "Take the published file."


def first_of(names: Sequence[str], shown: int = 4) -> str:
    """The first few names, and how many more there are: messages stay short even for thousands of keys."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(shortened(name, LONGEST_NAME) for name in names[:shown]) + more
