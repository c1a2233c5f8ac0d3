"""Decoupled cross-attention against the published one; which tokens and weights go where."""

import pytest
import torch
from torch import Tensor, nn

from pit.ip_adapter.attention import ImageCrossAttention, ImageKeyValue, attend_to_tokens, tokens_for_rows
from pit.unet import attention_layers, multi_head_attention
from tests.golden import Golden, assert_equal, number_in

HEADS = 4
Q, TOKENS = torch.randn(2, 10, 32), torch.randn(2, 16, 48)


def cross_attention(golden: Golden, scale: Tensor | float) -> Tensor:
    """The published attention: the text half and, by our function, the image half; then the projection."""
    given, weights = golden.below("pit_tiny_io", "ipattn."), golden.below("pit_tiny_state", "attn2.")
    heads = golden.facts("pit_tiny_config")["attn"]["heads"]
    image = {f"to_{kind}.weight": weights[f"processor.to_{kind}_ip.weight"] for kind in "kv"}
    layer = ImageKeyValue(*reversed(image["to_k.weight"].shape)).requires_grad_(False)
    layer.load_state_dict(image)
    q = given["hidden"] @ weights["to_q.weight"].T
    k, v = (given["text"] @ weights[f"to_{kind}.weight"].T for kind in "kv")
    attended = multi_head_attention(q, k, v, heads) + attend_to_tokens(layer, q, given["ip"], scale, heads)
    return attended @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]


@pytest.mark.golden_keys("pit_tiny_io", r"ipattn\.out_scale.+")
def test_attention_equals_the_published_one(golden, key):
    assert_equal(cross_attention(golden, number_in(key, "scale")), golden.tensors("pit_tiny_io")[key])


def test_a_scale_per_picture_acts_on_each(golden):
    published = golden.below("pit_tiny_io", "ipattn.out_")
    outputs = {number_in(key, "scale"): value for key, value in published.items() if "v1" not in key}
    scales, pictures = list(outputs), len(next(iter(outputs.values())))
    for first in range(len(scales)):
        mixed = [scales[(first + picture) % len(scales)] for picture in range(pictures)]
        expected = torch.stack([outputs[scale][picture] for picture, scale in enumerate(mixed)])
        assert_equal(cross_attention(golden, torch.tensor(mixed).reshape(-1, 1, 1)), expected)


@pytest.fixture(scope="module")
def layer() -> ImageKeyValue:
    return ImageKeyValue(48, 32).requires_grad_(False)


def test_the_result_takes_the_type_of_the_queries(layer):
    half = ImageKeyValue(48, 32, dtype=torch.bfloat16).requires_grad_(False)
    half.load_state_dict(layer.state_dict())
    expected = attend_to_tokens(layer, Q, TOKENS, 0.5, HEADS)
    scale = torch.tensor(0.5, dtype=torch.float32)
    output = attend_to_tokens(half, Q.bfloat16(), TOKENS, scale.expand(2, 1, 1), HEADS)
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).norm() < 0.03 * expected.norm()


def test_another_attention_function_is_used(layer):
    calls = []

    def recorded(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        calls.append((q.shape, k.shape, v.shape, heads))
        return multi_head_attention(q, k, v, heads)

    output = attend_to_tokens(layer, Q, TOKENS, 1.0, HEADS, recorded)
    assert torch.equal(output, attend_to_tokens(layer, Q, TOKENS, 1.0, HEADS))
    assert calls == [((2, 10, 32), (2, 16, 32), (2, 16, 32), HEADS)]


def test_key_and_value_shapes_are_the_published_ones(golden):
    published = golden.facts("ip_adapter_plus_sdxl_keys")
    dims = [row["to_k_ip_shape"][0] for row in published["mapping"]]
    attention = ImageCrossAttention(published["ip_adapter"]["1.to_k_ip.weight"][1], dims, device="meta")
    ours = {}
    for name, value in attention.state_dict().items():
        index, kind, _ = name.split(".")
        ours[f"{2 * int(index) + 1}.{kind}_ip.weight"] = list(value.shape)
    assert ours == published["ip_adapter"]
    assert sum(value.numel() for value in attention.parameters()) == published["ip_adapter_params"]


def labelled(*values: float) -> Tensor:
    """One set of tokens per value, filled with it."""
    return torch.tensor(values).reshape(-1, 1, 1).expand(-1, 16, 8)


@pytest.mark.parametrize("tokens, uncond, negative, images, expected", [
    ([1.0], [-1.0], [0, 1], [0, 0], [1, -1]),
    ([1.0], [-1.0], [1, 1, 0, 0], [0, 1, 0, 1], [-1, -1, 1, 1]),
    ([1.0, 2.0, 3.0], [-1.0], [0, 0, 0, 1], [2, 0, 1, 1], [3, 1, 2, -1]),
    ([1.0, 2.0], [-1.0], [0, 0, 0, 0], [0, 1, 2, 3], [1, 2, 1, 2]),
    ([1.0, 2.0], [-1.0, -2.0], [0, 1, 1, 1], [1, 1, 2, 3], [2, -2, -1, -2]),
])
def test_tokens_go_to_the_matching_rows(tokens, uncond, negative, images, expected):
    rows = torch.tensor(negative), torch.tensor(images)
    laid_out = tokens_for_rows(labelled(*tokens), labelled(*uncond), *rows)
    assert laid_out.shape == (len(negative), 16, 8)
    assert laid_out[:, 0, 0].tolist() == expected and laid_out[:, -1, -1].tolist() == expected


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.attn1, self.attn2 = nn.Module(), nn.Module()
        self.attn1.to_q, self.attn2.to_q = nn.Linear(width, width), nn.Linear(width, width)


class Transformer(nn.Module):
    def __init__(self, width: int, depth: int):
        super().__init__()
        self.transformer_blocks = nn.ModuleList(Block(width) for _ in range(depth))


class TinyUNet(nn.Module):
    """Blocks placed as in SDXL's original layout: each transformer comes behind a residual block."""

    def __init__(self):
        super().__init__()
        self.input_blocks = self.blocks([], [Transformer(4, 2)], [], [Transformer(8, 1)])
        self.middle_block = nn.ModuleList([nn.Identity(), Transformer(8, 2), nn.Identity()])
        self.output_blocks = self.blocks([Transformer(8, 1), nn.Identity()], [], [Transformer(4, 1)])

    @staticmethod
    def blocks(*parts: list[nn.Module]) -> nn.ModuleList:
        return nn.ModuleList(nn.ModuleList([nn.Identity(), *modules]) for modules in parts)


def test_layers_are_numbered_down_up_middle():
    layers = attention_layers(TinyUNet())
    assert [tuple(layer) for layer in layers] == [
        ("input_blocks.1.1.transformer_blocks.0.attn2", "input", 1, 0, 4),
        ("input_blocks.1.1.transformer_blocks.1.attn2", "input", 1, 1, 4),
        ("input_blocks.3.1.transformer_blocks.0.attn2", "input", 3, 0, 8),
        ("output_blocks.0.1.transformer_blocks.0.attn2", "output", 0, 0, 8),
        ("output_blocks.2.1.transformer_blocks.0.attn2", "output", 2, 0, 4),
        ("middle_block.1.transformer_blocks.0.attn2", "middle", 0, 0, 8),
        ("middle_block.1.transformer_blocks.1.attn2", "middle", 0, 1, 8),
    ]


def test_every_layer_names_its_module():
    unet = TinyUNet()
    for layer in attention_layers(unet):
        assert unet.get_submodule(layer.module).to_q.weight.shape == (layer.inner_dim, layer.inner_dim)


def test_a_model_without_cross_attention_has_no_layers():
    unet = TinyUNet()
    unet.input_blocks = unet.output_blocks = unet.middle_block = nn.ModuleList()
    assert attention_layers(unet) == []
