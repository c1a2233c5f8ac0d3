"""The Embedding Optimizer: from the CLIP tokens of an object's picture to a text context of 77 tokens.

State-dict keys are those of the published files.
"""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..unet import multi_head_attention

CONTEXT_TOKENS = 77
"""Length of the text context of Stable Diffusion."""
PICTURE_TOKENS = 257
"""Tokens that CLIP ViT-L/14 makes of a picture: one for each patch, and one for the class."""
NUM_HEADS = 8
LAYERS = (2, 4)
"""Layers of the perceptron in the published files; the older ones have two."""
LAST, PENULTIMATE = -1, -2


class AttentionPooling(nn.Module):
    """Multi-head attention with the keys of `torch.nn.MultiheadAttention`."""

    def __init__(self, dim: int, num_heads: int, operations, **factory):
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim, **factory))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim, **factory))
        self.out_proj = operations.Linear(dim, dim, **factory)
        # As torch's own. Other layers wait for a file, and take nothing from the generator of others.
        if operations is nn:
            nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """What `query [B, M, C]` reads of `tokens [B, N, C]`: `[B, M, C]`."""
        # Bare parameters, which casting layers do not convert by themselves.
        weights, biases = (each.to(tokens).chunk(3) for each in (self.in_proj_weight, self.in_proj_bias))
        q, k, v = map(functional.linear, (query, tokens, tokens), weights, biases)
        return self.out_proj(multi_head_attention(q, k, v, self.num_heads))


class EmbeddingOptimizer(nn.Module):
    """The published one, with four layers at the end, and its ancestor, with two.

    Its query is random and no weight: the published code draws it anew at each call.
    """

    reads = LAST
    """Which hidden states of CLIP it reads at inference."""

    def __init__(
        self, input_dim: int = 1024, output_dim: int = 768, num_layers: int = 4, num_heads: int = NUM_HEADS,
        operations=nn, *, device=None, dtype=None,
    ):
        """
        Args:
            input_dim: width of the CLIP tokens.
            output_dim: width of the text context, a multiple of `num_heads`.
            operations: namespace of `Linear` (ComfyUI's casting layers work too).
        """
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.input_dim, self.output_dim, self.num_layers = input_dim, output_dim, num_layers
        self.projection_layer = operations.Linear(input_dim, output_dim, **factory)
        self.attention_pooling = AttentionPooling(output_dim, num_heads, operations, **factory)
        for number in range(1, num_layers + 1):
            self.add_module(f"mlp_fc{number}", operations.Linear(output_dim, output_dim, **factory))

    def forward(self, features: Tensor, query: Tensor) -> Tensor:
        """The context `[B, M, C]` of CLIP tokens `features [B, N, E]` under a `query [B, M, C]`.

        Each row of the query is answered for itself: several queries may be joined to a longer one.

        Raises:
            ValueError: the features or the query are of another width.
        """
        check_width("features", features, self.input_dim)
        check_width("a query", query, self.output_dim)
        context = self.attention_pooling(query, self.projection_layer(features))
        for number in range(1, self.num_layers + 1):
            # Between the layers only: the context has negative values, too.
            context = self.get_submodule(f"mlp_fc{number}")(context if number == 1 else context.relu())
        return context


class LegacyEmbeddingOptimizer(nn.Module):
    """The abandoned variant for an IP-Adapter, without attention and without a query."""

    reads = PENULTIMATE

    def __init__(
        self, input_dim: int = 1024, output_dim: int = 768, input_tokens: int = PICTURE_TOKENS,
        operations=nn, *, device=None, dtype=None,
    ):
        """
        Args:
            input_dim: width of the CLIP tokens.
            output_dim: width of the text context.
            input_tokens: how many CLIP tokens it mixes.
            operations: namespace of `Linear` (ComfyUI's casting layers work too).
        """
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.input_dim, self.output_dim, self.input_tokens = input_dim, output_dim, input_tokens
        self.projection = operations.Linear(input_dim, output_dim, **factory)
        self.fc1 = operations.Linear(output_dim, output_dim, **factory)
        self.fc2 = operations.Linear(output_dim, output_dim, **factory)
        self.seq_projection = operations.Linear(input_tokens, CONTEXT_TOKENS, **factory)

    def forward(self, features: Tensor, query: Tensor | None = None) -> Tensor:
        """The context `[B, 77, C]` of CLIP tokens `features [B, N, E]`; a query makes no difference.

        Raises:
            ValueError: the features are of another width or number.
        """
        check_width("features", features, self.input_dim)
        if features.shape[1] != self.input_tokens:
            raise ValueError(
                f"Expected {self.input_tokens} CLIP tokens of a picture, got {features.shape[1]}. Use the "
                "CLIP vision model that the Embedding Optimizer was trained with."
            )
        tokens = self.fc2(self.fc1(self.projection(features)).relu())
        return self.seq_projection(tokens.transpose(1, 2)).transpose(1, 2)


AnyOptimizer = EmbeddingOptimizer | LegacyEmbeddingOptimizer


def check_width(what: str, tensor: Tensor, width: int) -> None:
    """Raise ValueError unless `tensor [B, N, C]` has three dimensions and this width."""
    if tensor.ndim != 3 or tensor.shape[-1] != width:
        raise ValueError(
            f"Expected {what} of the shape [B, N, {width}], got {list(tensor.shape)}. Use the models that "
            "the Embedding Optimizer was trained with."
        )
