"""The peak memory of training Parts2Whole, for each preset: counted, and measured if there is a GPU.

It is counted as `benchmarks.peak_memory` does for a prior, with two references whose masks cover all of them,
which takes the most. The encoders are left out: by the time the training begins they are no longer in memory.
Run in the folder of the pack:

    python -m benchmarks.parts2whole_memory
"""
from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.lora_memory import GB, norms_as_on_a_gpu, with_memory
from benchmarks.peak_memory import DISTINCT_BATCHES, LiveBytes, Memory, size_of
from pit.ip_adapter.attention import ImageCrossAttention
from pit.parts2whole.attention import IMAGE_TOKENS, KeysAndValues, ReferenceTokens
from pit.parts2whole.files import Parts2Whole
from pit.parts2whole.pose import PoseGuider
from pit.parts2whole.training.learned import prepare
from pit.parts2whole.training.recipes import PRESETS, PartsRecipe
from pit.parts2whole.training.step import PartsBatch, WholeModel
from pit.parts2whole.training.task import PartsTask
from pit.parts2whole.unets import empty_reference_unet, empty_unet, widths_of, write_references
from pit.training.state import build_optimizer, trained

STABLE_DIFFUSION_15 = {
    "cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": (320, 640, 1280, 1280),
}
TEXT, WIDTH = 77, 768
EIGHT_BIT = "adamw_8bit"
# Two numbers of 8 bits for each weight, and for every 256 of them two scales.
EIGHT_BIT_BYTES = 2 + 2 * 4 / 256


class ReadingAll(WholeModel):
    """References without any that is masked or missing, which is found out without looking at values."""

    def read(
        self, references: Tensor, labels: Tensor, masks: Tensor, present: Tensor
    ) -> dict[str, KeysAndValues] | None:
        written = write_references(
            self.reference_unet, *(given.flatten(0, 1) for given in (references, labels, masks))
        )
        rows = len(references)
        return self.denoiser.keys_and_values({
            block: ReferenceTokens(each.features.unflatten(0, (rows, -1)).flatten(1, 2), None)
            for block, each in written.items()
        })


class PartsStep:
    """What the trainer does in one step, on random samples.

    Args:
        model: from `model_to_train`; it gets memory on the device.
        size: of the pictures, in pixels.
    """

    def __init__(
        self, model: nn.Module, recipe: PartsRecipe, size: int, references: int, device: torch.device
    ):
        self.recipe, self.device, self.size, self.references = recipe, device, size, references
        self.model = with_memory(model, device)
        self.trained = list(trained(self.model).values())
        # The 8-bit optimizer knows no tensors without contents.
        counted = device.type == "cpu" and recipe.optimizer == EIGHT_BIT
        self.optimizer = (
            torch.optim.SGD(self.trained) if counted else build_optimizer(self.model, recipe, 1e-5, device)
        )

    def run(self) -> None:
        """Forward and backward passes, then the optimizer."""
        for _ in range(min(DISTINCT_BATCHES, self.recipe.accumulation)):
            batch = self.random_batch()
            bf16 = self.recipe.precision == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                losses = PartsTask.losses(None, self.model, batch)
            losses.mean().backward()
        nn.utils.clip_grad_norm_(self.trained, self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def random_batch(self) -> PartsBatch:
        """A batch with all references and a pose."""
        rows, many, side = self.recipe.batch, self.references, self.size // 8

        def some(*shape: int) -> Tensor:
            return torch.rand(rows, *shape, device=self.device)

        return PartsBatch(
            some(4, side, side), some(4, side, side), some(), some(TEXT, WIDTH), some(IMAGE_TOKENS, WIDTH),
            some(many, 4, side, side), some(many, TEXT, WIDTH), some(many, 1, self.size, self.size),
            some(many), some(3, self.size, self.size), some(),
        )


def model_to_train(recipe: PartsRecipe) -> nn.Module:
    """Parts2Whole of the published size on the meta device, where it takes no memory."""
    with torch.device("meta"):
        unet = empty_unet(STABLE_DIFFUSION_15)
        parts = Parts2Whole(
            unet, empty_reference_unet(STABLE_DIFFUSION_15), PoseGuider(),
            ImageCrossAttention(WIDTH, widths_of(unet)),
        )
        return prepare(ReadingAll(parts), recipe, seed=0).train()


def counted_memory(recipe: PartsRecipe, size: int, references: int) -> Memory:
    """The peak memory of training on a GPU, which need not exist."""
    model = model_to_train(recipe)  # outside of the fake tensors, which peft cannot work with
    with norms_as_on_a_gpu(), FakeTensorMode(), LiveBytes() as live:
        step = PartsStep(model, recipe, size, references, torch.device("cpu"))
        live.watched = step.trained
        step.run()  # the optimizer creates its tensors in the first step
        step.run()
        parameters = size_of(step.model.parameters())
        values = [value for state in step.optimizer.state.values() for value in state.values()]
        optimizer = size_of(value for value in values if isinstance(value, Tensor))
    rest = live.peak - parameters - live.gradients_at_peak - optimizer
    if recipe.optimizer == EIGHT_BIT:
        optimizer = int(EIGHT_BIT_BYTES * sum(value.numel() for value in step.trained))
    return Memory(parameters, live.gradients_at_peak, optimizer, 0, rest)


def measured_memory(recipe: PartsRecipe, size: int, references: int, device: torch.device) -> int:
    """The most bytes that PyTorch's tensors take on a GPU for the same steps."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step = PartsStep(model_to_train(recipe), recipe, size, references, device)
    step.run()
    step.run()
    return torch.cuda.max_memory_allocated(device) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="size of the pictures (default: %(default)s)")
    parser.add_argument("--references", type=int, default=2, help="of each picture (default: %(default)s)")
    parser.add_argument("--device", type=torch.device, default="cpu", help="cuda also measures the memory")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS))
    options = parser.parse_args()
    print(f"Parts2Whole, {options.size} pixels, {options.references} references, in GB (10^9 bytes)")
    print(f"{'preset':<16}{'batch':>6}{'weights':>9}{'gradients':>11}{'optimizer':>11}{'activations':>13}"
          f"{'peak':>7}{'measured':>10}")
    for name in options.presets:
        recipe = replace(PRESETS[name], accumulation=min(DISTINCT_BATCHES, PRESETS[name].accumulation))
        found = counted_memory(recipe, options.size, options.references)
        parts = (found.parameters, found.gradients, found.optimizer, found.activations, found.peak)
        measured = "not yet"
        if options.device.type == "cuda":
            bytes_taken = measured_memory(recipe, options.size, options.references, options.device)
            measured = f"{bytes_taken / GB:.2f}"
        widths = (9, 11, 11, 13, 7)
        numbers = "".join(f"{part / GB:>{width}.2f}" for part, width in zip(parts, widths, strict=True))
        print(f"{name:<16}{recipe.batch:>6}{numbers}{measured:>10}", flush=True)


if __name__ == "__main__":
    main()
