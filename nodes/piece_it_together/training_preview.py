"""Sample pictures while an IP-Prior trains, rendered by the models of the graph."""
from __future__ import annotations

from dataclasses import dataclass

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...pit.concepts.tokens import Tokens
from ...pit.images import contact_sheet, to_pil
from ...pit.piece_it_together.prior import IPPrior
from ...pit.piece_it_together.sample import concept_noise, sample_prior
from ...pit.piece_it_together.slots import Parts
from ..bridge.sockets import IPAdapterType
from .apply_tokens import apply_tokens
from .datasets import TRAINING
from .types import ManagedIPAdapter, PartsType, PreviewType

# Fewer than for sampling: the pictures show how the training is going, and the training waits for them.
PRIOR_STEPS = 10


@dataclass(frozen=True)
class TrainingPreview:
    """What turns an IP-Prior in training into pictures; `latent [B, C, H, W]` sets their number and size."""

    model: ModelPatcher
    vae: VAE
    ip_adapter: ManagedIPAdapter
    positive: list
    negative: list
    parts: Parts
    latent: Tensor
    seed: int
    steps: int
    cfg: float
    guidance: float

    def check(self, width: int) -> None:
        """Raise ValueError unless the parts have this width, that of the token cache."""
        # Before the training, not at its first preview, which may be hours away.
        if self.parts.width != width:
            raise ValueError(
                f"Training Preview expected parts of width {width}, that of the token cache, got width "
                f"{self.parts.width} from {self.parts.source}. Encode parts and dataset with the same models."
            )

    def draw(self, prior: IPPrior, device: torch.device) -> Image.Image:
        """One concept for each latent, completed by a prior that is on `device`, as a contact sheet."""
        count = len(self.latent)
        # The training runs with inference mode switched off; without it, sampling would record gradients.
        with torch.inference_mode():
            values = sample_prior(
                prior, self.parts.sequence(count).to(device), empty_tokens=self.parts.empty.to(device),
                noise=concept_noise(self.seed, count, self.parts.width).to(device), steps=PRIOR_STEPS,
                guidance_scale=self.guidance,
            )
            tokens = Tokens(
                values.cpu(), self.parts.uncond, source="the IP-Prior in training",
                adapter=self.parts.adapter,
            )
            # As KSampler does it: noise from the seed on the CPU.
            noise = comfy.sample.prepare_noise(self.latent, self.seed)
            latent = comfy.sample.sample(
                apply_tokens(self.model, self.ip_adapter, tokens), noise, self.steps, self.cfg, "euler",
                "normal", self.positive, self.negative, self.latent, disable_pbar=True, seed=self.seed,
            )
            pictures = to_pil(self.vae.decode(latent))
        return contact_sheet(pictures, min(4, count), pictures[0].width)


class MakeTrainingPreview(io.ComfyNode):
    takes = {"parts": Parts}

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PiT_TrainingPreview",
            display_name="Training Preview",
            category=TRAINING,
            description="Lets Train IP-Prior show how its prior completes the same parts as it learns.",
            search_aliases=["sample while training", "validation pictures"],
            inputs=[
                io.Model.Input("model", tooltip="The SDXL model that renders the samples."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                IPAdapterType.Input("ip_adapter", tooltip="The IP-Adapter of the tokens."),
                io.Conditioning.Input("positive", tooltip="The prompt for the samples."),
                io.Conditioning.Input("negative", tooltip="The negative prompt for the samples."),
                io.Latent.Input("latent", tooltip="Empty latents: how many samples, and how large."),
                PartsType.Input("parts", tooltip="The parts that every sample completes."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xffffffffffffffff, control_after_generate=False,
                    tooltip="The seed of all samples; it stays the same, so only the training changes them.",
                ),
                io.Int.Input("steps", default=12, min=1, max=1000, tooltip="Steps of rendering."),
                io.Float.Input(
                    "cfg", default=5.0, min=0.0, max=30.0, step=0.5,
                    tooltip="How closely the rendering follows the prompt.",
                ),
                io.Float.Input(
                    "guidance", default=2.0, min=0.0, max=20.0, step=0.1,
                    tooltip="How closely the concepts follow the parts.",
                ),
            ],
            outputs=[
                PreviewType.Output(
                    display_name="preview", tooltip="What to show while it trains, for Train IP-Prior.",
                ),
            ],
        )

    @classmethod
    def execute(cls, latent: dict, model: ModelPatcher, **parts: object) -> io.NodeOutput:
        # As KSampler does it: ComfyUI's empty latents have 4 channels and an 8th of the picture's size.
        samples = comfy.sample.fix_empty_latent_channels(
            model, latent["samples"], latent.get("downscale_ratio_spacial")
        )
        return io.NodeOutput(TrainingPreview(latent=samples, model=model, **parts))
