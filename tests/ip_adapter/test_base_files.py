"""Base IP-Adapters of the published layouts load and project as diffusers does; damaged ones are refused."""

import pytest
import torch
from diffusers.models.embeddings import ImageProjection as PublishedProjection
from safetensors.torch import save_file
from torch import Tensor

from pit.files.checked import filled
from pit.ip_adapter.base_files import read_base_adapter
from pit.ip_adapter.projection import ImageProjection
from tests.golden import assert_equal
from tests.ip_adapter.test_files import flat_adapter, pairs
from tests.refusal import assert_refused

SIZES = {"embedding_dim": 40, "token_dim": 48, "tokens": 4}


def projection() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    like = ImageProjection(**SIZES).state_dict()
    return {key: torch.randn(value.shape, generator=generator) for key, value in like.items()}


def flat() -> dict[str, Tensor]:
    state = {f"image_proj.{key}": value for key, value in projection().items()}
    return state | {f"ip_adapter.{key}": value for key, value in pairs().items()}


@torch.no_grad()
@pytest.mark.parametrize("layout", ["flat", "nested", "module"])
def test_every_layout_projects_as_diffusers_does(tmp_path, layout):
    path = tmp_path / ("a.safetensors" if layout == "flat" else "a.bin")
    if layout == "flat":
        save_file(flat(), path)
    elif layout == "nested":
        torch.save({"image_proj": projection(), "ip_adapter": pairs()}, path)
    else:
        torch.save({f"module.{key}": value for key, value in flat().items()}, path)
    file = read_base_adapter(path)
    assert file.projection == SIZES and len(file.inner_dims) == len(pairs()) // 2
    state, names = projection(), {"proj": "image_embeds", "norm": "norm"}
    published = PublishedProjection(SIZES["embedding_dim"], SIZES["token_dim"], SIZES["tokens"])
    published.load_state_dict({
        f"{theirs}.{part}": state[f"{ours}.{part}"]
        for ours, theirs in names.items() for part in ("weight", "bias")
    })
    embeddings = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    ours = filled(ImageProjection(**SIZES, device="meta"), file.projection_state)
    assert_equal(ours(embeddings), published(embeddings))
    assert torch.equal(file.cross_attention_state["1.to_v.weight"], pairs()["3.to_v_ip.weight"])


@pytest.mark.parametrize("change, message", [
    ({"image_proj.norm.weight": torch.ones(47)}, "whole tokens as wide as image_proj.norm.weight, got 192"),
    ({"image_proj.norm.weight": torch.ones(1)}, "to make whole tokens"),
    ({"image_proj.norm.weight": None}, "and a width of 0"),
    ({"image_proj.proj.bias": None}, "1 missing: image_proj.proj.bias"),
    ({"image_proj.proj.weight": torch.ones(192)}, "expected image_proj.proj.weight to be a matrix"),
    ({"ip_adapter.3.to_k_ip.weight": torch.ones(12, 47)}, "ip_adapter.3.to_k_ip.weight of shape [12, 48]"),
    ({"ip_adapter.3.to_k_ip.weight": None}, "1, 3, 5 and so on without a gap, got layers 1, 5"),
    ({"image_proj.proj.bias": torch.full((192,), float("nan"))}, "finite numbers in image_proj.proj.bias"),
    ({"more": torch.ones(1)}, "1 unknown: more"),
])
def test_a_damaged_file_is_refused(tmp_path, change, message):
    state = {key: value for key, value in (flat() | change).items() if value is not None}
    save_file(state, tmp_path / "a.safetensors")
    assert_refused(read_base_adapter, tmp_path / "a.safetensors", message)


def test_a_plus_adapter_is_named(tmp_path):
    save_file(flat_adapter(), tmp_path / "a.safetensors")
    assert_refused(
        read_base_adapter, tmp_path / "a.safetensors", "expected a base IP-Adapter, got an IP-Adapter.",
        "Load IP-Adapter+")
