"""UNets in the original layout: their attention, and the layers that attend to the context."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

Attention = Callable[..., Tensor]


def multi_head_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention on `[B,N,heads * head_dim]`; ComfyUI's `optimized_attention` has the same signature.

    Args:
        mask: added to the logits; it broadcasts to `[B, heads, queries, keys]`.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(-2)


class AttentionLayer(NamedTuple):
    """One cross-attention layer of a UNet in the original (non-diffusers) layout.

    Attributes:
        module: path of the module in the UNet.
        block, number, index: where ComfyUI looks for a patch of this layer.
        inner_dim: heads * head_dim, the width of its queries.
    """

    module: str
    block: str
    number: int
    index: int
    inner_dim: int


def attention_layers(unet: nn.Module) -> list[AttentionLayer]:
    """The cross-attention layers in the order in which IP-Adapter files number them.

    Layer i here has the weights `{2 i + 1}.to_k_ip` in the file.

    Args:
        unet: a model with `input_blocks`, `middle_block` and `output_blocks`.
    """
    # Walked through rather than looked up in a table, so that any UNet of this layout works, not only SDXL's.
    def walk(block: str, number: int, path: str, modules: nn.Module) -> Iterator[AttentionLayer]:
        for place, module in enumerate(modules):
            for index, transformer in enumerate(getattr(module, "transformer_blocks", ())):
                name = f"{path}.{place}.transformer_blocks.{index}.attn2"
                yield AttentionLayer(name, block, number, index, transformer.attn2.to_q.weight.shape[0])

    # IP-Adapter files number the attention processors as diffusers lists them: down blocks, up blocks, then
    # the middle block, although it runs before the up blocks. Odd numbers are cross-attention, even ones the
    # self-attention before it, which has no weights in the file.
    layers = []
    for block in ("input", "output"):
        for number, modules in enumerate(getattr(unet, f"{block}_blocks")):
            layers += walk(block, number, f"{block}_blocks.{number}", modules)
    # ComfyUI looks up patches of the middle block under the number 0, whatever the transformer's place in it:
    # a patch under its true place, 1, would reach none of these layers.
    return layers + list(walk("middle", 0, "middle_block", unet.middle_block))
