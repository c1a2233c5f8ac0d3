"""The published tiny model in ComfyUI, and golden cases in the words of the nodes."""
from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor

from tests.parts2whole.cases import Case


def nodes(inside, name: str):
    return inside.pack(f"nodes.parts2whole.{name}")


def engine(inside, name: str):
    return inside.pack(f"pit.parts2whole.{name}")


def encoded_case(inside, case: Case, parts, wiring=None, **changes):
    """What Encode References makes of a golden case, without the pictures that it does not have."""
    wiring = wiring or engine(inside, "parts").wiring()
    images = case.images[case.positive:]
    given = {"strengths": [1.0] * case.facts["refs"], "label": torch.zeros_like(case.text[:1])} | changes
    tokens = {}
    if case.facts["refs"]:
        latents, labels, masks = (case.references(what) for what in ("latents", "text", "mask"))
        write = nodes(inside, "references").write
        with torch.inference_mode():
            tokens = write(parts, latents, labels, masks, wiring, given["strengths"], len(images))
    kind = nodes(inside, "types").EncodedReferences
    return kind(tokens, images, given["label"], wiring)


def golden_pose(inside, parts, pose: Tensor | None):
    """A golden pose `[1, 3, H, W]` without the rounding to 8 bits; its features come by the real guider."""
    if pose is None:
        return None
    return nodes(inside, "types").Pose(pose.movedim(1, -1), 1.0, parts.pose_guider)


def prompts(case: Case) -> tuple[list, list]:
    """Positive and negative of a golden case, as the sampler takes them."""
    return [[case.text[case.positive:], {}]], [[case.text[:1], {}]]


class Sampler:
    """ComfyUI's KSampler and its parts, on tensors."""

    def __init__(self, inside):
        self.samplers = inside.comfy("samplers")

    def sigmas(self, model, timesteps: list[int], last: float = 0.0) -> Tensor:
        sigmas = model.get_model_object("model_sampling").sigmas
        return torch.cat([sigmas[timesteps], sigmas.new_tensor([last])])

    def denoised(self, model, positive, negative, noise: Tensor, sigmas: Tensor, cfg: float = 1.0) -> Tensor:
        """The latents at the end, as the UNet sees them, from empty ones."""
        guider = self.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        euler = self.samplers.sampler_object("euler")
        with torch.inference_mode():
            found = guider.sample(noise, torch.zeros_like(noise), euler, sigmas, disable_pbar=True, seed=0)
            return model.model.process_latent_in(found)

    def predicted_noise(self, model, case: Case, rows: slice = slice(None), cfg: float = 1.0) -> Tensor:
        """The noise in some rows of the sample of a golden case."""
        sample = case.given["sample"][rows]
        sigmas = self.sigmas(model, [case.facts["t"]])
        sigma = sigmas[0]
        found = self.denoised(model, *prompts(case), sample, sigmas, cfg)
        # From empty latents, sampling starts at the noise times the root of sigma^2 + 1.
        return (sample * (sigma**2 + 1).sqrt() - found) / sigma


def stub_encoders(width: int, sizes: int = 8):
    """A CLIP, a VAE and a CLIP_VISION that tell by their results what they were given."""
    def words(tokens):
        generator = torch.Generator().manual_seed(sum(map(ord, tokens)))
        return torch.randn(1, 77, width, generator=generator)

    def embeds(pixel_values):
        means = pixel_values.mean((2, 3))
        return None, None, torch.nn.functional.pad(means, (0, width - 3))

    clip = SimpleNamespace(tokenize=lambda text, **_: text, encode_from_tokens=words)
    vae = SimpleNamespace(
        latent_channels=4, spacial_compression_encode=lambda: sizes,
        encode=lambda pixels: torch.nn.functional.avg_pool2d(
            torch.nn.functional.pad(pixels, (0, 1)).movedim(-1, 1), 8),
    )
    return clip, vae, embeds
