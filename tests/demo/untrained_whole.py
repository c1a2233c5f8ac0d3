"""A Parts2Whole of the creatures as it is before any training, beside the shipped models."""
from __future__ import annotations

from pathlib import Path

import torch

from tests.demo.shipped import link_bases


def write_untrained(folder: Path) -> Path:
    """A folder in place of that of the shipped weights, with models that listen to all they are given."""
    from pit.demo.models.whole import new_whole
    from pit.demo.training.parts2whole import write_whole
    from pit.parts2whole.training.step import WholeModel

    link_bases(folder)
    torch.manual_seed(0)
    model = WholeModel(new_whole(0))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".up") or "conv_out" in name and "guider" in name or "to_v" in name:
                parameter.normal_(0, 0.1)
    write_whole(folder, model)
    return folder
