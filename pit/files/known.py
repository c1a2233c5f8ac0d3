"""Other people's weight files, recognised by their keys, so that an error can say what a file is."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

PLUS_WANTED = "The -plus file is wanted: ip-adapter-plus_sdxl_vit-h, in models/ipadapter."
LOAD_CHECKPOINT = "It goes into models/checkpoints, for Load Checkpoint."

# (pattern of a key, what the file is, what to do with it); the first row that matches any key counts.
KNOWN = (
    (r"^ip_adapter\..*_lora\.|^image_proj\.perceiver_resampler\.", "a FaceID IP-Adapter", PLUS_WANTED),
    (r"^image_proj\.proj\.\d", "an IP-Adapter with a two-layer projection, for faces", PLUS_WANTED),
    (r"^image_proj\.proj\.weight", "a basic IP-Adapter: 4 tokens from a linear projection", PLUS_WANTED),
    (r"^uncond$", "tokens of Save IP+ Tokens", "It goes into models/ip_tokens, for Load IP+ Tokens."),
    (r"^ip_adapter\.", "an IP-Adapter", "It goes into models/ipadapter, for Load IP-Adapter+."),
    (r"[._]lora[._](up|down|A|B)\.|\.(hada|lokr)_w", "a LoRA", "It goes into models/loras."),
    (r"(^|\.)x_embedder\.weight", "an IP-Prior", "It goes into models/ip_prior, for Load IP-Prior."),
    (r"(^|\.)control_model\.|controlnet_", "a ControlNet", "It goes into models/controlnet."),
    (r"(^|\.)conditioner\.embedders\.", "an SDXL checkpoint", LOAD_CHECKPOINT),
    (r"(^|\.)cond_stage_model\.", "a Stable Diffusion checkpoint", LOAD_CHECKPOINT),
    (r"(^|\.)decoder\.conv_in\.", "a VAE", "It goes into models/vae, for Load VAE."),
    (r"(^|\.)(input|down|double|joint|transformer)_blocks\.", "a diffusion model without its text encoder",
     "It goes into models/diffusion_models, for Load Diffusion Model."),
    (r"(^|\.)(vision_model|visual)\.", "a CLIP vision encoder",
     "It goes into models/clip_vision, for Load CLIP Vision."),
    (r"(^|\.)(text_model|transformer\.resblocks|encoder\.block)\.|\.self_attn\.q_proj\.", "a text encoder",
     "It goes into models/text_encoders, for Load CLIP."),
)
DIRECTION_LENGTHS = (16, 257)


def what_is(state: Mapping[str, Tensor]) -> tuple[str, str]:
    """What a file holds and what to do with it: the end of a sentence, and a sentence."""
    if len(state) == 1:
        shape = next(iter(state.values())).shape
        if len(shape) in (2, 3) and shape[-2] in DIRECTION_LENGTHS:
            return f"an edit direction (one tensor, {list(shape)})", "It goes into models/ip_directions."
    for pattern, what, advice in KNOWN:
        if any(re.search(pattern, key) for key in state):
            return what, advice
    return f"a file of another kind, with {first_of(list(state))}", "Take the published file."


def first_of(names: Sequence[str], shown: int = 4) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
