"""What the trainer needs to make an IP-LoRA: the denoising loss of a renderer with words and image tokens.

Source: Piece it Together (arXiv 2503.10365), section 3.4, and its IP-LoRA trainer (github.com/eladrich/PiT).
"""
from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...files.records import models_to_json
from ...files.weights import write_state
from ...training.denoising import min_snr_weights, noised, seed_of
from ...training.low_rank import inject_low_rank, kohya_state
from ...training.order import Batch, concept_at
from ...training.recipes import RunSettings
from ...training.validation import TIMES, Validation
from .cache import EncodedSample, LoraCache
from .image_prompt import ImagePromptUNet, crossing_names
from .recipes import RESULT, LoraRecipe

UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
ADAPTER_PREFIX = "image."
VALIDATED = 8


@dataclass(frozen=True)
class LoraBatch(Batch):
    """The samples of one step; `ImagePromptUNet` describes the fields that are not listed here.

    Attributes:
        noisy: latents with noise; wanted: what the UNet is to predict from them; both `[B, 4, h, w]`.
        weight: of each sample's loss, `[B]`.
    """

    noisy: Tensor
    wanted: Tensor
    weight: Tensor
    timesteps: Tensor
    context: Tensor
    pooled: Tensor
    time_ids: Tensor
    tokens: Tensor


class LoraTask:
    """An IP-LoRA in training, for `Trainer`.

    Attributes:
        model: the frozen renderer with the LoRA, whose weights alone are trained, in fp32.
        rate: the peak learning rate.
    """

    result = RESULT
    others: tuple[str, ...] = ()
    thrifty_preset = "12 GB card"

    def __init__(
        self, renderer: ImagePromptUNet, schedule: DDPMScheduler, cache: LoraCache, recipe: LoraRecipe,
        settings: RunSettings,
    ):
        """
        Args:
            renderer: the weights to start from; changed in place.
            schedule: the noise schedule, with the prediction type of the renderer.
        """
        self.schedule, self.cache, self.recipe, self.seed = schedule, cache, recipe, settings.seed
        self.rate = recipe.learning_rate or LoraRecipe.learning_rate
        self.crossing = crossing_names(renderer.unet)
        self.model: nn.Module = add_lora(renderer, recipe, self.seed)

    def draw(self, step: int, rows: range, total: int) -> LoraBatch:
        """The samples numbered `rows` out of the `total` of a step: a function of the seed and the step."""
        everything = torch.arange(len(self.cache.files))
        samples, times, seeds = [], [], []
        for row in rows:
            # One generator per row, so that a row is the same whichever process or batch it falls to, and a
            # resumed run draws what an uninterrupted one would.
            rng = random.Random(f"{self.seed}/{step}/{row}")
            sample = self.cache.read(concept_at(everything, self.seed, step * total + row))
            samples.append(self.drop(sample, rng))
            times.append(rng.randrange(self.schedule.config.num_train_timesteps))
            seeds.append(rng.getrandbits(63))
        return self.noised(samples, times, seeds, self.recipe.noise_offset)

    def drop(self, sample: EncodedSample, rng: random.Random) -> EncodedSample:
        """Leave out the words or the picture now and then."""
        # Both numbers are always drawn, also for shares of 0: what is drawn after them does not depend on the
        # settings.
        empty = self.cache.empty
        if rng.random() < self.recipe.text_dropout:
            sample = replace(sample, context=empty.context, pooled=empty.pooled)
        if rng.random() < self.recipe.image_dropout:
            sample = replace(sample, tokens=empty.tokens)
        return sample

    def noised(
        self, samples: Sequence[EncodedSample], times: Sequence[int], seeds: Sequence[int],
        offset: float = 0.0,
    ) -> LoraBatch:
        """A batch at given timesteps; everything random in a sample comes from its seed."""
        latents = [sample.latents for sample in samples]
        noisy = noised(self.schedule, latents, times, seeds, offset)
        weight = min_snr_weights(self.schedule, noisy.timesteps, self.recipe.min_snr_gamma)
        fields = {
            name: torch.stack([getattr(sample, name) for sample in samples])
            for name in ("context", "pooled", "time_ids", "tokens")
        }
        return LoraBatch(**noisy._asdict(), weight=weight, **fields)

    def losses(self, model: nn.Module, batch: LoraBatch) -> Tensor:
        """The weighted mean squared error of each sample, `[B]`."""
        predicted = model(
            batch.noisy, batch.timesteps, batch.context, batch.pooled, batch.time_ids, batch.tokens
        )
        return (predicted.float() - batch.wanted).square().mean(dim=(1, 2, 3)) * batch.weight

    @torch.no_grad()
    def validate(self, model: nn.Module, device: torch.device) -> Validation:
        """The loss of the first samples at fixed times with fixed noise."""
        # Noise by the sample's name and the time: adding samples does not change the losses of the others.
        steps = self.schedule.config.num_train_timesteps
        by_time = []
        chosen = range(min(VALIDATED, len(self.cache.files)))
        for t in TIMES:
            samples = [self.cache.read(index) for index in chosen]
            seeds = [seed_of(f"{self.cache.names[index]}/{t}") for index in chosen]
            losses = [
                self.losses(model, self.noised([sample], [int(t * steps)], [seed]).to(device))
                for sample, seed in zip(samples, seeds, strict=True)
            ]
            by_time.append(torch.cat(losses).mean().item())
        return Validation(sum(by_time) / len(by_time), tuple(by_time))

    def identity(self) -> dict[str, object]:
        """What must be the same for a run to resume, besides what the trainer itself compares."""
        # Shapes only: `started_from` of the settings stands for the weights of renderer and adapter.
        shapes = {name: list(value.shape) for name, value in self.model.named_parameters()}
        sizes = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
        models = models_to_json(self.cache.models)
        return {"model": {"weights": sizes}, "dataset": self.cache.fingerprint, "models": models}

    def write(self, path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
        """Write the LoRA in the layout that ComfyUI's own loader reads."""
        write_state(path, self.exported(model), metadata)

    def exported(self, model: nn.Module) -> dict[str, Tensor]:
        """The LoRA in kohya's layout, with its scale as alpha."""
        state = {}
        for name, value in model.named_parameters():
            if value.requires_grad:
                state[self.published_name(name)] = value.detach().cpu()
        return kohya_state(state, self.recipe.alpha or self.recipe.rank)

    def published_name(self, name: str) -> str:
        """The name of a weight in diffusers; `image.3.to_k` is the adapter's in cross-attention 3."""
        if not name.startswith(ADAPTER_PREFIX):
            return name
        number, kind, rest = name.removeprefix(ADAPTER_PREFIX).split(".", 2)
        return f"unet.{self.crossing[int(number)]}.{kind}_ip.{rest}"

    def about(self) -> str:
        """What the training uses, in words."""
        count = sum(value.numel() for value in self.model.parameters() if value.requires_grad)
        return f"{len(self.cache.files)} pictures to train on, {count:,} weights"


def add_lora(renderer: ImagePromptUNet, recipe: LoraRecipe, seed: int) -> nn.Module:
    """Freeze a renderer and add a LoRA to its attention layers, and on request to the adapter's.

    As published, the first factor is normal with a deviation of 1 / rank and the second is zero (peft's
    "gaussian"). Frozen weights take the type of the recipe, the LoRA stays fp32.
    """
    targets = "|".join(target.replace(".", r"\.") for target in UNET_TARGETS)
    pattern = rf"unet\..*\.attn[12]\.({targets})"
    if recipe.on_adapter:
        pattern += r"|image\.\d+\.to_[kv]"
    renderer.requires_grad_(False)
    if recipe.precision == "bf16":
        renderer.to(torch.bfloat16)
    if recipe.gradient_checkpointing:
        renderer.unet.enable_gradient_checkpointing()
    return inject_low_rank(renderer, pattern, recipe.rank, seed, recipe.alpha)
