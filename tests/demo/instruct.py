"""An InstructPix2Pix of the creatures as it is before any training, beside the shipped models."""
from __future__ import annotations

from pathlib import Path

import torch

from tests.demo.shipped import link_bases


def write_untrained(folder: Path) -> Path:
    """A folder in place of that of the shipped weights, with a UNet that looks at scenes, too."""
    from pit.demo.models.inserter import FIRST, new_inserter
    from pit.demo.training.object_insertion import write_inserter

    link_bases(folder)
    torch.manual_seed(0)
    model = new_inserter()
    with torch.no_grad():
        model.unet.get_parameter(FIRST).normal_(0, 0.05)
    write_inserter(folder, model)
    return folder
