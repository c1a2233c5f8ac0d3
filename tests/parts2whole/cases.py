"""The published tiny model of Parts2Whole, and its golden cases in the words of the engine."""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.parts2whole.attention import KeysAndValues
from pit.parts2whole.files import Parts2Whole, load_parts2whole
from pit.parts2whole.references import Written, reading
from pit.parts2whole.unets import Denoiser, write_references
from tests.golden import Golden

TOLERANCE = 1e-4
# Where features are rounded to float16, a processor that computes the last digit of float32 differently has
# some of them rounded to the neighbor, which is 1e-3 of the value away.
ROUNDED_TOLERANCE = 5e-4
CASES = r"(?!(?:pose|dc)/)[a-z0-9_]+/out"


def write_published(golden: Golden, folder: Path) -> Path:
    """The golden weights as the published folder holds them, in the type in which they are stored."""
    config = golden.facts("parts2whole_tiny_config")
    states = {
        "unet": golden.below("parts2whole_tiny_state", "unet."),
        "reference_unet": golden.below("parts2whole_tiny_state_ref", "reference_unet."),
        "pose_guider": golden.below("parts2whole_tiny_state_extra", "pose_guider."),
    }
    decoupled = golden.below("parts2whole_tiny_state_extra", "unet.")
    for name, state in states.items():
        (folder / name).mkdir(parents=True)
        save_file(state, folder / name / "diffusion_pytorch_model.safetensors")
        settings = config["pose_guider" if name == "pose_guider" else "unet"]
        (folder / name / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file(decoupled, folder / "decoupled_attn.pth")
    return folder


def load_wide(folder: Path) -> Parts2Whole:
    """The model in a folder, in float32."""
    model = load_parts2whole(folder)
    for module in (model.unet, model.reference_unet, model.pose_guider, model.decoupled):
        module.float()
    return model


@dataclass(frozen=True)
class Case:
    """Inputs of one golden case; `latents`, `labels` and `masks` of R references, those of a batch together.

    With guidance, the golden tensors hold the rows of the negative prompt first: references lack them here.
    """

    facts: dict[str, Any]
    given: dict[str, Tensor]
    words: int

    @property
    def text(self) -> Tensor:
        return self.given["encoder"][:, :self.words]

    @property
    def images(self) -> Tensor:
        return self.given["encoder"][:, self.words:]

    @property
    def positive(self) -> int:
        """The first row of the positive prompt."""
        return len(self.given["encoder"]) // 2 if self.facts["cfg"] else 0

    def references(self, what: str) -> Tensor:
        """`latents`, `text` or `mask` of all references: of each picture, one after another."""
        each = [self.given[f"ref{number}_{what}"][self.positive:] for number in range(self.facts["refs"])]
        return torch.stack(each, 1).flatten(0, 1)

    @property
    def rounded(self) -> bool:
        """Whether the published code has rounded the features to float16."""
        return self.facts["bank_dtype"] == "torch.float16"

    @property
    def tolerance(self) -> float:
        return ROUNDED_TOLERANCE if self.rounded else TOLERANCE

    def written(self, unet) -> dict[str, Written]:
        parts = (self.references(what) for what in ("latents", "text", "mask"))
        return write_references(unet, *parts, rounded=self.rounded)

    def keys_and_values(self, unet, denoiser: Denoiser) -> dict[str, KeysAndValues] | None:
        if not self.facts["refs"]:
            return None
        pictures = len(self.given["encoder"]) - self.positive
        return denoiser.keys_and_values(reading(self.written(unet), pictures=pictures))


def golden_case(golden: Golden, name: str) -> Case:
    facts = golden.facts("parts2whole_tiny_config")["cases"][name]
    given = golden.below("parts2whole_tiny_io", f"{facts['inputs_from']}/")
    return Case(facts, given | golden.below("parts2whole_tiny_io", f"{name}/"), words_in(golden))


def words_in(golden: Golden) -> int:
    """How many tokens of a sequence are words; image tokens follow them."""
    return golden.facts("parts2whole_tiny_config")["text_len"]


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """By default within 1e-4, as the golden data's own description asks for; relative to values above 1."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    error = (ours.detach() - theirs).abs().max() / theirs.abs().max().clamp(min=1)
    assert error <= tolerance, f"error {error:.2e}"
