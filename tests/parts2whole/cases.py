"""The golden cases of Parts2Whole: what they were given, in the words of the engine."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pit.parts2whole.attention import KeysAndValues
from pit.parts2whole.references import Written, reading
from pit.parts2whole.unets import Denoiser, write_references
from tests.golden import Golden

TOLERANCE = 1e-4
WORDS = 77


def decoupled_states(golden: Golden) -> tuple[dict[str, Tensor], ...]:
    """The published states of the denoising UNet, the pose guider and the decoupled attention."""
    extra = golden.below("parts2whole_tiny_state_extra", "unet.")
    return (
        golden.below("parts2whole_tiny_state", "unet."),
        golden.below("parts2whole_tiny_state_extra", "pose_guider."),
        {key: value for key, value in extra.items() if "_dc." in key},
    )


@dataclass(frozen=True)
class Case:
    """Inputs of one golden case; `latents`, `labels` and `masks` of R references, those of a batch together.

    With guidance, the golden tensors hold the rows of the negative prompt first: references lack them here.
    """

    facts: dict[str, Any]
    given: dict[str, Tensor]

    @property
    def text(self) -> Tensor:
        return self.given["encoder"][:, :WORDS]

    @property
    def images(self) -> Tensor:
        return self.given["encoder"][:, WORDS:]

    @property
    def positive(self) -> int:
        """The first row of the positive prompt."""
        return len(self.given["encoder"]) // 2 if self.facts["cfg"] else 0

    def references(self, what: str) -> Tensor:
        """`latents`, `text` or `mask` of all references: of each picture, one after another."""
        each = [self.given[f"ref{number}_{what}"][self.positive:] for number in range(self.facts["refs"])]
        return torch.stack(each, 1).flatten(0, 1)

    def written(self, unet) -> dict[str, Written]:
        rounded = self.facts["bank_dtype"] == "torch.float16"
        parts = (self.references(what) for what in ("latents", "text", "mask"))
        return write_references(unet, *parts, rounded=rounded)

    def keys_and_values(self, unet, denoiser: Denoiser) -> dict[str, KeysAndValues] | None:
        if not self.facts["refs"]:
            return None
        pictures = len(self.given["encoder"]) - self.positive
        return denoiser.keys_and_values(reading(self.written(unet), pictures=pictures))


def golden_case(golden: Golden, name: str) -> Case:
    facts = golden.facts("parts2whole_tiny_config")["cases"][name]
    given = golden.below("parts2whole_tiny_io", f"{facts['inputs_from']}/")
    return Case(facts, given | golden.below("parts2whole_tiny_io", f"{name}/"))


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4, as the golden data's own description asks for, relative to values larger than 1."""
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    error = (ours.detach() - theirs).abs().max() / theirs.abs().max().clamp(min=1)
    assert error <= TOLERANCE, f"error {error:.2e}"
