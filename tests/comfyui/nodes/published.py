"""Tiny files in the layouts of the published ones."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from pit.ip_adapter.resampler import Resampler
from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer
from pit.piece_it_together.prior import IPPrior

TOKEN_DIM = 96
FEATURE_DIM = 64
# Of the tiny SDXL, in the order of IP-Adapter files: down, up, middle.
INNER_DIMS = [64, 64] + [128] * 4 + [128] * 6 + [64] * 3 + [128] * 2


def resampler_state(token_dim: int = TOKEN_DIM, feature_dim: int = FEATURE_DIM, seed: int = 11) -> dict:
    torch.manual_seed(seed)
    return Resampler(64, 4, 64, 1, 16, feature_dim, token_dim).state_dict()


def key_value_state(token_dim: int = TOKEN_DIM, inner_dims: Sequence[int] = INNER_DIMS) -> dict:
    """Layer i as `{2 i + 1}.to_k_ip.weight` and `.to_v_ip.weight`."""
    generator = torch.Generator().manual_seed(12)
    return {
        f"{2 * i + 1}.to_{kind}_ip.weight": torch.randn(dim, token_dim, generator=generator) / token_dim**0.5
        for i, dim in enumerate(inner_dims)
        for kind in "kv"
    }


def write_ip_adapter(
    path: Path, token_dim: int = TOKEN_DIM, inner_dims: Sequence[int] = INNER_DIMS, dtype=torch.float32
) -> Path:
    """An IP-Adapter-plus as .safetensors: flat keys under `image_proj.` and `ip_adapter.`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"image_proj.{key}": value for key, value in resampler_state(token_dim).items()}
    state |= {f"ip_adapter.{key}": value for key, value in key_value_state(token_dim, inner_dims).items()}
    save_file({key: value.to(dtype) for key, value in state.items()}, path)
    return path


def write_optimizer(path: Path, output_dim: int = 48, feature_dim: int = FEATURE_DIM, seed: int = 14) -> Path:
    """An Embedding Optimizer as published: a pickled flat state dict."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    torch.save(EmbeddingOptimizer(feature_dim, output_dim).state_dict(), path)
    return path


def prior_state(token_dim: int = TOKEN_DIM, hidden_dim: int = 64, layers: int = 2, seed: int = 13) -> dict:
    torch.manual_seed(seed)
    return IPPrior(token_dim, hidden_dim, layers, 4).state_dict()


def write_prior(path: Path, token_dim: int = TOKEN_DIM, **sizes) -> Path:
    """An IP-Prior as published: a pickled flat state dict, and cfg.yaml with the head count beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(prior_state(token_dim, **sizes), path)
    path.with_name("cfg.yaml").write_text("num_attention_heads: 4\nuse_ref: false\n")
    return path
