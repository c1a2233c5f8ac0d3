"""Whether a processor multiplies in bfloat16 natively: where it does not, float32 is far faster."""
from __future__ import annotations

import torch


def cpu_has_bf16() -> bool:
    """Whether this machine's CPU does, as far as torch can tell."""
    # Older versions of torch do not have the function; there the answer is no, and float32 is always right.
    found = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
