"""The miniature text encoders: two that are used like SDXL's, and one that is used like SD 1.5's."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .sizes import TEXT_G, TEXT_L, TEXT_LENGTH, TEXT_SD15, TEXT_VOCABULARY
from .words import END, START, token_ids

ENCODERS = ("clip_l", "clip_g")


SHARED = {
    "vocab_size": TEXT_VOCABULARY, "max_position_embeddings": TEXT_LENGTH,
    "bos_token_id": START, "eos_token_id": END,
}


class TextEncoders(nn.Module):
    """Turns captions into the context and the pooled embedding that the UNet of SDXL's structure takes."""

    def __init__(self) -> None:
        super().__init__()
        # The activations of CLIP-L and CLIP-G, which ComfyUI expects of these two.
        config_l = CLIPTextConfig(**TEXT_L, **SHARED, hidden_act="quick_gelu")
        config_g = CLIPTextConfig(**TEXT_G, **SHARED, hidden_act="gelu", projection_dim=TEXT_G["hidden_size"])
        self.clip_l = CLIPTextModel(config_l)
        self.clip_g = CLIPTextModelWithProjection(config_g)

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Context `[B, 77, 64]` and pooled embedding `[B, 32]`."""
        device = self.clip_g.text_projection.weight.device
        output_l = self.clip_l(caption_ids(captions, END, device), output_hidden_states=True)
        output_g = self.clip_g(caption_ids(captions, 0, device), output_hidden_states=True)
        states = [output.hidden_states[-2] for output in (output_l, output_g)]
        return torch.cat(states, dim=-1), output_g.text_embeds

    def comfyui_state(self) -> dict[str, Tensor]:
        """All weights under ComfyUI's names, whatever this version of transformers calls them."""
        return comfyui_state(self, ENCODERS)

    def load_comfyui_state(self, state: dict[str, Tensor]) -> None:
        """Load what `comfyui_state` returns; other keys are ignored.

        Raises:
            KeyError: a weight is missing.
        """
        load_comfyui_state(self, ENCODERS, state)


class TextEncoder(nn.Module):
    """Turns captions into the context of the UNet of SD 1.5's structure: the last states of CLIP-L."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_l = CLIPTextModel(CLIPTextConfig(**TEXT_SD15, **SHARED, hidden_act="quick_gelu"))

    def forward(self, captions: list[str]) -> Tensor:
        """Context `[B, 77, 96]`."""
        device = next(self.clip_l.parameters()).device
        return self.clip_l(caption_ids(captions, END, device)).last_hidden_state

    def comfyui_state(self) -> dict[str, Tensor]:
        """All weights under ComfyUI's names."""
        return comfyui_state(self, ENCODERS[:1])

    def load_comfyui_state(self, state: dict[str, Tensor]) -> None:
        """Load what `comfyui_state` returns; other keys are ignored.

        Raises:
            KeyError: a weight is missing.
        """
        load_comfyui_state(self, ENCODERS[:1], state)


def caption_ids(captions: list[str], padding: int, device: torch.device) -> Tensor:
    """The token ids of captions, `[B, 77]`; errors as in `words.token_ids`."""
    return torch.tensor([token_ids(text, TEXT_LENGTH, padding) for text in captions], device=device)


def comfyui_state(encoders: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights of these encoders of a module under ComfyUI's names."""
    return {
        f"{name}.transformer.{comfyui_key(key)}": value
        for name in names for key, value in getattr(encoders, name).state_dict().items()
    }


def load_comfyui_state(encoders: nn.Module, names: Sequence[str], state: dict[str, Tensor]) -> None:
    """Load the weights of these encoders from those under ComfyUI's names."""
    for name in names:
        model = getattr(encoders, name)
        model.load_state_dict({
            key: state[f"{name}.transformer.{comfyui_key(key)}"] for key in model.state_dict()
        })


def comfyui_key(key: str) -> str:
    """The key that ComfyUI expects: transformers 5 leaves out `text_model.` in models without projection."""
    inside = key.startswith(("text_model.", "text_projection."))
    return key if inside else f"text_model.{key}"
