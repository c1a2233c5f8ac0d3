"""Tiny operators with random weights, in the layouts of the published ones."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.pops.files import OperatorConfig
from pit.pops.prior import PriorTransformer

WIDTH, HEADS, LAYERS = 24, 4, 3
CONFIG = OperatorConfig(WIDTH, 32, LAYERS, HEADS, 128, 77)
STATISTICS = ("clip_mean", "clip_std")


def random_operator(
    seed: int = 0, width: int = WIDTH, layers: int = LAYERS, heads: int = HEADS
) -> PriorTransformer:
    """An operator whose answer depends on all that it is given."""
    generator = torch.Generator().manual_seed(seed)
    operator = PriorTransformer(width, 8 * heads, layers, heads)
    for name, weight in operator.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if name == "clip_std":
            weight.data.copy_(noise.abs() + 0.5)
        elif weight.ndim == 2 and name not in STATISTICS:
            weight.data.copy_(1.3 * noise / weight.shape[1] ** 0.5)
        else:
            weight.data.copy_(0.3 * noise + ("norm" in name and name.endswith("weight")))
    return operator.eval().requires_grad_(False)


def without_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key not in STATISTICS}


def write_operator(path: Path, seed: int = 0, **sizes: int) -> Path:
    """An operator as published: a pickle without the statistics."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(without_statistics(random_operator(seed, **sizes).state_dict()), path)
    return path


def write_base(folder: Path, seed: int = 1, heads: int = HEADS, **sizes: int) -> Path:
    """A prior in diffusers' folder; other weights than those of the operators, and the head count."""
    (folder / "prior").mkdir(parents=True, exist_ok=True)
    state = random_operator(seed, heads=heads, **sizes).state_dict()
    save_file(state, folder / "prior" / "diffusion_pytorch_model.safetensors")
    config = f'{{"_class_name": "PriorTransformer", "num_attention_heads": {heads}}}'
    (folder / "prior" / "config.json").write_text(config)
    return folder
