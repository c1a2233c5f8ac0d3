"""The peak memory of training an IP-LoRA on SDXL, for each preset: counted, and measured if there is a GPU.

It is counted as `benchmarks.peak_memory` does for a prior. The encoders are left out: by the time the
training begins they are no longer in memory. Run in the folder of the pack:

    python -m benchmarks.lora_memory
"""
from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from benchmarks.peak_memory import DISTINCT_BATCHES, LiveBytes, Memory, size_of
from pit.ip_adapter.attention import ImageCrossAttention
from pit.ip_adapter.resampler import TOKENS_PER_PICTURE
from pit.piece_it_together.ip_lora.image_prompt import ImagePromptUNet, crossing_widths
from pit.piece_it_together.ip_lora.recipes import PRESETS, LoraRecipe
from pit.piece_it_together.ip_lora.task import add_lora
from pit.training.stable_diffusion import CONFIGS
from pit.training.state import build_optimizer, trained

TOKEN_DIM, TEXT, POOLED = 2048, 77, 1280
GB = 1e9


class LoraStep:
    """What the trainer does in one step, on random samples.

    Args:
        model: from `renderer_with_lora`; it gets memory on the device.
        size: of the pictures, in pixels.
    """

    def __init__(self, model: nn.Module, recipe: LoraRecipe, size: int, device: torch.device):
        self.recipe, self.device, self.side = recipe, device, size // 8
        self.model = with_memory(model, device)
        self.trained = list(trained(self.model).values())
        self.optimizer = build_optimizer(self.model, recipe, 1e-4, device)

    def run(self) -> None:
        """Forward and backward passes, then the optimizer."""
        for _ in range(min(DISTINCT_BATCHES, self.recipe.accumulation)):
            inputs = self.random_inputs()
            bf16 = self.recipe.precision == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                predicted = self.model(*inputs)
            (predicted.float() - torch.randn_like(inputs[0])).square().mean().backward()
        nn.utils.clip_grad_norm_(self.trained, self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def random_inputs(self) -> list[Tensor]:
        """Latents, timesteps, text context, pooled text, sizes and image tokens."""
        rows = self.recipe.batch
        shapes = (
            (4, self.side, self.side), (), (TEXT, TOKEN_DIM), (POOLED,), (6,),
            (TOKENS_PER_PICTURE, TOKEN_DIM),
        )
        return [torch.rand(rows, *shape, device=self.device) for shape in shapes]


def renderer_with_lora(recipe: LoraRecipe) -> nn.Module:
    """SDXL's UNet with an IP-Adapter and the IP-LoRA, on the meta device, where it takes no memory."""
    settings = json.loads((CONFIGS / "unet" / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(settings)
        image = ImageCrossAttention(TOKEN_DIM, crossing_widths(unet))
        return add_lora(ImagePromptUNet(unet, image), recipe, seed=0).train()


def with_memory(model: nn.Module, device: torch.device) -> nn.Module:
    """Give a model from the meta device weights on a device, without filling them."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device=device)
            module._parameters[name] = nn.Parameter(empty, requires_grad=weight.requires_grad)
    return model


@contextmanager
def norms_as_on_a_gpu() -> Iterator[None]:
    """Let norms compute in float32 under autocast, as on a GPU; on a CPU they would stay in bfloat16."""
    originals = functional.group_norm, functional.layer_norm

    def in_float32(original):
        def norm(x: Tensor, *rest: object, **named: object) -> Tensor:
            rest = [value.float() if isinstance(value, Tensor) else value for value in rest]
            with torch.autocast(x.device.type, enabled=False):
                return original(x.float(), *rest, **named)

        return norm

    functional.group_norm, functional.layer_norm = map(in_float32, originals)
    try:
        yield
    finally:
        functional.group_norm, functional.layer_norm = originals


def counted_memory(recipe: LoraRecipe, size: int) -> Memory:
    """The peak memory of training on a GPU, which need not exist."""
    model = renderer_with_lora(recipe)  # outside of the fake tensors, which peft cannot work with
    with norms_as_on_a_gpu(), FakeTensorMode(), LiveBytes() as live:
        step = LoraStep(model, recipe, size, torch.device("cpu"))
        live.watched = step.trained
        step.run()  # the optimizer creates its tensors in the first step
        step.run()
        parameters = size_of(step.model.parameters())
        values = [value for state in step.optimizer.state.values() for value in state.values()]
        optimizer = size_of(value for value in values if isinstance(value, Tensor))
    rest = live.peak - parameters - live.gradients_at_peak - optimizer
    return Memory(parameters, live.gradients_at_peak, optimizer, 0, rest)


def measured_memory(recipe: LoraRecipe, size: int, device: torch.device) -> int:
    """The most bytes that PyTorch's tensors take on a GPU for the same steps."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step = LoraStep(renderer_with_lora(recipe), recipe, size, device)
    step.run()
    step.run()
    return torch.cuda.max_memory_allocated(device) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024, help="size of the pictures (default: %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cuda also measures the memory")
    options = parser.parse_args()
    print(f"IP-LoRA on SDXL, pictures of {options.size} pixels, in GB (10^9 bytes)")
    print(f"{'preset':<14}{'batch':>6}{'weights':>9}{'gradients':>11}{'optimizer':>11}{'activations':>13}"
          f"{'peak':>7}{'measured':>10}")
    for name, recipe in PRESETS.items():
        found = counted_memory(recipe, options.size)
        parts = (found.parameters, found.gradients, found.optimizer, found.activations, found.peak)
        measured = "not yet"
        if options.device.type == "cuda":
            measured = f"{measured_memory(recipe, options.size, options.device) / GB:.2f}"
        widths = (9, 11, 11, 13, 7)
        numbers = "".join(f"{part / GB:>{width}.2f}" for part, width in zip(parts, widths, strict=True))
        print(f"{name:<14}{recipe.batch:>6}{numbers}{measured:>10}")


if __name__ == "__main__":
    main()
