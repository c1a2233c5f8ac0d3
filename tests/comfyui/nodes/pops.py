"""Tiny encoders and operators for the nodes of pOps, in the real ComfyUI."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tests.pops.tiny import random_operator, write_base, write_operator

WIDTH = 32  # what the tiny CLIP vision model projects to
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 3,
}


class Pops:
    """The nodes of pOps inside this process, and tiny models for them."""

    def __init__(self, inside, folder: Path):
        self.inside, self.folder = inside, folder
        self.base = write_base(folder / "base", width=WIDTH)
        self.vision = inside.tiny.tiny_clip_vision()

    def nodes(self, name: str):
        return self.inside.pack(f"nodes.pops.{name}")

    def engine(self, name: str):
        return self.inside.pack(f"pit.pops.{name}")

    def operator(self, mode: str, seed: int = 0, width: int = WIDTH):
        path = write_operator(self.folder / mode / "learned_prior.pth", seed, width=width)
        base = self.base if width == WIDTH else write_base(self.folder / "other", width=width)
        return self.nodes("loading").load_operator(path, f"{mode}/learned_prior.pth", base, mode)

    def module(self, seed: int = 0):
        """What an operator of this seed is, outside of ComfyUI."""
        operator, base = random_operator(seed, WIDTH), random_operator(1, WIDTH)
        operator.clip_mean, operator.clip_std = base.clip_mean, base.clip_std
        return operator

    def embedding(self, count: int = 1, seed: int = 5, vision=None, fit: str = "squashed"):
        pictures = torch.rand(count, 40, 30, 3, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            node = self.nodes("embeddings").EncodeEmbedding
            return node.execute(vision or self.vision, pictures, fit).args[0]

    def run(self, node: str, *inputs, module: str = "operators"):
        with torch.inference_mode():
            return getattr(self.nodes(module), node).execute(*inputs).args[0]

    def clip(self, width: int = WIDTH):
        """ComfyUI's CLIP of SDXL with tiny text encoders, and transformers' own ViT-bigG of these weights."""
        sizes = TEXT | {"hidden_size": width}
        torch.manual_seed(3)
        published = CLIPTextModelWithProjection(CLIPTextConfig(
            **sizes, projection_dim=width, hidden_act="gelu", bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )).eval()
        options = {"clip_l_model_config": sizes, "clip_g_model_config": sizes, "dtype": torch.float32}
        target = self.inside.comfy("supported_models").SDXL({}).clip_target()
        clip = self.inside.comfy("sd").CLIP(target, parameters=0, model_options=options)
        clip.cond_stage_model.clip_g.load_sd(published.state_dict())
        return clip, published


