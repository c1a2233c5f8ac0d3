"""The two miniature text encoders, used like SDXL's: penultimate states of both, pooled vector of one."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .sizes import TEXT_G, TEXT_L, TEXT_LENGTH, TEXT_VOCABULARY
from .words import END, START, token_ids

ENCODERS = ("clip_l", "clip_g")


class TextEncoders(nn.Module):
    """Turns captions into the context and the pooled embedding that the UNet is conditioned by."""

    def __init__(self) -> None:
        super().__init__()
        shared = {
            "vocab_size": TEXT_VOCABULARY, "max_position_embeddings": TEXT_LENGTH,
            "bos_token_id": START, "eos_token_id": END,
        }
        # The activations of CLIP-L and CLIP-G, which ComfyUI expects of these two.
        config_l = CLIPTextConfig(**TEXT_L, **shared, hidden_act="quick_gelu")
        config_g = CLIPTextConfig(**TEXT_G, **shared, hidden_act="gelu", projection_dim=TEXT_G["hidden_size"])
        self.clip_l = CLIPTextModel(config_l)
        self.clip_g = CLIPTextModelWithProjection(config_g)

    def forward(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Context `[B, 77, 64]` and pooled embedding `[B, 32]`."""
        device = self.clip_g.text_projection.weight.device
        ids_l = torch.tensor([token_ids(text, TEXT_LENGTH, END) for text in captions], device=device)
        ids_g = torch.tensor([token_ids(text, TEXT_LENGTH, 0) for text in captions], device=device)
        states_l = self.clip_l(ids_l, output_hidden_states=True).hidden_states[-2]
        output_g = self.clip_g(ids_g, output_hidden_states=True)
        return torch.cat([states_l, output_g.hidden_states[-2]], dim=-1), output_g.text_embeds

    def comfyui_state(self) -> dict[str, Tensor]:
        """All weights under ComfyUI's names, whatever this version of transformers calls them."""
        return {
            f"{name}.transformer.{comfyui_key(key)}": value
            for name in ENCODERS for key, value in getattr(self, name).state_dict().items()
        }

    def load_comfyui_state(self, state: dict[str, Tensor]) -> None:
        """Load what `comfyui_state` returns; other keys are ignored.

        Raises:
            KeyError: a weight is missing.
        """
        for name in ENCODERS:
            model = getattr(self, name)
            model.load_state_dict({
                key: state[f"{name}.transformer.{comfyui_key(key)}"] for key in model.state_dict()
            })


def comfyui_key(key: str) -> str:
    """The key that ComfyUI expects: transformers 5 leaves out `text_model.` in models without projection."""
    inside = key.startswith(("text_model.", "text_projection."))
    return key if inside else f"text_model.{key}"
