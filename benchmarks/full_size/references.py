"""What transformers, diffusers and PEFT make of the same files and pictures, in float32.

Everything is compared with what the probes wrote down in ComfyUI. The stages before the UNet hand their
results on, so that the latents are compared over the whole chain.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from diffusers.loaders.unet import UNet2DConditionLoadersMixin
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from benchmarks.full_size.published_prior import PublishedPrior, published_sample
from pit.piece_it_together.sample import concept_noise
from pit.training.stable_diffusion import CONFIGS

Captured = dict[str, Tensor]

SIZE_EMBEDDINGS = 6 * 256  # behind the pooled text, in what the UNet reads beside the context
LATENT_SCALE = 0.13025


def captured(folder: Path, name: str) -> list[Captured]:
    """What a probe wrote, call by call."""
    # By number: as texts, 10 would come before 2.
    paths = sorted(folder.glob(f"{name}_*.safetensors"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [load_file(path) for path in paths]


def error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected value."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


@dataclass
class Chain:
    """The values of one graph as the references compute them, from stage to stage.

    Attributes:
        name: of the graph.
        folder: where the probes wrote.
        features: of all pictures, `[B, 257, 1280]`.
        encoded: their tokens, `[B, 16, 2048]`.
        tokens, uncond: what the UNet renders, `[1, 16, 2048]`.
        errors: by the name of the stage.
    """

    name: str
    folder: Path
    features: Tensor | None = None
    encoded: Tensor | None = None
    tokens: Tensor | None = None
    uncond: Tensor | None = None
    errors: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str) -> list[Captured]:
        """What a probe wrote in this graph."""
        return captured(self.folder, name)

    def only(self, name: str) -> Captured:
        """What a probe wrote that runs once. Raises FileNotFoundError if it did not run."""
        found = self.stage(name)
        if len(found) != 1:
            raise FileNotFoundError(
                f"Expected one file {name}_0.safetensors in {self.folder}, got {len(found)} of this kind. "
                "Run the stage graphs for this graph first."
            )
        return found[0]


def compare_features(chains: Iterable[Chain], folder: Path) -> None:
    """CLIP's features by transformers, from the pixels that ComfyUI's CLIP was given."""
    model = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32)
    for chain in chains:
        seen = chain.only("vision")
        chain.features = model(seen["pixels"], output_hidden_states=True).hidden_states[-2]
        chain.errors["features"] = error(seen["features"].float(), chain.features)


def adapter_state(file: Path) -> dict[str, dict[str, Tensor]]:
    """An IP-Adapter's file in float32, as diffusers takes it."""
    state: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(file).items():
        part, _, name = key.partition(".")
        state[part][name] = value.float()
    return state


class AdapterReader(UNet2DConditionLoadersMixin):
    """What diffusers' own reader of IP-Adapter files asks of the UNet that it is a part of."""

    device, dtype = torch.device("cpu"), torch.float32


def compare_tokens(chains: Iterable[Chain], file: Path) -> None:
    """IP+ tokens by diffusers' IPAdapterPlusImageProjection."""
    state = adapter_state(file)["image_proj"]
    resampler = AdapterReader()._convert_ip_adapter_image_proj_to_diffusers(state)
    for chain in chains:
        seen = chain.only("adapter")
        chain.encoded = resampler(chain.features)
        chain.errors["tokens"] = error(seen["tokens"], chain.encoded)
        # What was encoded for the negative branch is the last picture; the concept is the first, unless a
        # prior makes one.
        chain.tokens, chain.uncond = chain.encoded[:1], chain.encoded[-1:]


def reference_of(values: Tensor, chain: Chain) -> Tensor:
    """The reference's tokens of the pictures whose tokens in ComfyUI are exactly these, `[P, 16, D]`."""
    seen = chain.only("adapter")
    gaps = (values[:, None] - seen["tokens"][None]).abs().amax(dim=(2, 3))
    if gaps.amin(dim=1).any():
        raise ValueError(
            f"Expected slots that hold tokens of the encoded pictures of {chain.name}, got others. Run its "
            "graph again."
        )
    return chain.encoded[gaps.argmin(dim=1)]


def compare_concepts(chain: Chain, file: Path, heads: int, inputs: dict) -> None:
    """A concept by the published prior and its sampler, from the reference's tokens of the parts.

    Args:
        inputs: of the node that samples.
    """
    parts = chain.only("parts")
    slots, empty = reference_of(parts["slots"], chain), reference_of(parts["empty"], chain)
    prior = PublishedPrior(torch.load(file, weights_only=True), heads)
    noise = concept_noise(inputs["seed"], 1, slots.shape[-1])
    chain.tokens = published_sample(
        prior, slots.flatten(0, 1)[None], empty, noise, inputs["steps"], inputs["guidance"]
    )
    for stage, name in (("tokens", "concepts"), ("as_chosen", "concepts as the node chooses")):
        seen = chain.only(stage)
        chain.errors[name] = error(seen["values"], chain.tokens)


class Renderer:
    """SDXL's UNet by diffusers, with the attention of an IP-Adapter.

    Args:
        checkpoint: a single file in the original layout.
        configs: a folder with diffusers' configuration files.
    """

    def __init__(self, checkpoint: Path, adapter: Path, configs: Path = CONFIGS):
        self.unet = UNet2DConditionModel.from_single_file(
            str(checkpoint), config=str(configs), subfolder="unet", torch_dtype=torch.float32,
            local_files_only=True,
        )
        self.unet._load_ip_adapter_weights([adapter_state(adapter)])
        # In the place of the resampler, because tokens are given, and not features.
        self.unet.encoder_hid_proj = nn.Identity()
        self.scheduler = EulerDiscreteScheduler.from_pretrained(
            configs, subfolder="scheduler", timestep_spacing="linspace"
        )

    @contextmanager
    def lora(self, file: Path | None) -> Iterator[None]:
        """An IP-LoRA by PEFT, which computes its layers beside the others instead of adding weights up."""
        if file is None:
            yield
            return
        self.unet.load_lora_adapter(load_file(file), prefix="unet", adapter_name="ip_lora")
        try:
            yield
        finally:
            self.unet.unload_lora()

    def predict(self, seen: Captured, x: Tensor, t: Tensor, tokens: Tensor, uncond: Tensor) -> Tensor:
        """What the UNet says to `x` in the rows of a call of ComfyUI, with its texts."""
        side = 8 * torch.tensor(x.shape[-2:])
        sizes = torch.cat([side, torch.zeros(2), side]).expand(len(x), -1)
        # One picture to each role, 0 for the positive.
        images = torch.cat([uncond if role else tokens for role in seen["roles"].tolist()])
        texts = {"text_embeds": seen["y"][:, :-SIZE_EMBEDDINGS], "time_ids": sizes}
        return self.unet(
            x, t, seen["context"], added_cond_kwargs=texts | {"image_embeds": [images[:, None]]}
        ).sample

    def sample(self, seen: Captured, chain: Chain, inputs: dict) -> Tensor:
        """The latents that diffusers' Euler sampler makes of the chain's tokens.

        Args:
            seen: a call of ComfyUI, for its texts.
            inputs: of the KSampler.
        """
        self.scheduler.set_timesteps(inputs["steps"])
        shape = (1, *seen["x"].shape[1:])
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(inputs["seed"]))
        # As ComfyUI enters the schedule at its end; diffusers leaves out the 1 with this spacing.
        x = noise * (self.scheduler.sigmas[0] ** 2 + 1) ** 0.5
        roles = seen["roles"].tolist()
        for t in self.scheduler.timesteps:
            rows = self.scheduler.scale_model_input(x, t).expand(len(roles), -1, -1, -1)
            said = self.predict(seen, rows, t, chain.tokens, chain.uncond)
            positive, negative = said[roles.index(0)], said[roles.index(1)]
            x = self.scheduler.step(negative + inputs["cfg"] * (positive - negative), t, x).prev_sample
        return x / LATENT_SCALE

    def compare_unet(self, chain: Chain, same_tokens: bool) -> None:
        """One call, the last, on what ComfyUI's UNet was given; the latents depend on all of them.

        Args:
            same_tokens: whether the negative branch gets the tokens of the positive one.
        """
        tokens, seen = chain.only("tokens"), chain.stage("unet")[-1]
        if same_tokens:
            chain.uncond = chain.tokens
        uncond = tokens["values"] if same_tokens else tokens["uncond"]
        expected = self.predict(seen, seen["x"], seen["t"], tokens["values"], uncond)
        chain.errors["UNet"] = error(seen["output"], expected)

    def compare_latents(self, chain: Chain, inputs: dict) -> None:
        """The end of the whole chain."""
        latents, call = chain.only("latents"), chain.stage("unet")[0]
        chain.errors["latents"] = error(latents["samples"], self.sample(call, chain, inputs))
