"""Copies of an IP-Adapter in other types: each works, and takes the tokens that another one made."""

from dataclasses import replace

import pytest
import torch

from tests.comfyui.nodes.published import FEATURE_DIM, TOKEN_DIM, write_ip_adapter

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def copies(inside, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copies")
    load = inside.nodes("loading").load_ip_adapter
    return {dtype: load(write_ip_adapter(folder / f"{n}.safetensors", dtype=dtype), f"{n}")
            for n, dtype in enumerate(TYPES)}


@pytest.mark.parametrize("second", TYPES)
@pytest.mark.parametrize("first", TYPES)
def test_a_copy_takes_the_tokens_of_another(inside, model, copies, first, second):
    tokens = replace(inside.tokens(1), adapter=str(copies[first].stamp), notes={"adapter": "a copy"})
    inside.apply(model, copies[second], tokens)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_stamp_of_an_older_version_is_taken(inside, model, copies, dtype):
    tokens = replace(inside.tokens(1), adapter=copies[dtype].stamp.partition("-")[0])
    inside.apply(model, copies[dtype], tokens)
    with pytest.raises(ValueError, match="Expected the IP-Adapter that made the tokens"):
        inside.apply(model, copies[dtype], replace(tokens, adapter="0123456789abcdef"))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_copy_makes_tokens_near_those_of_the_original(inside, copies, dtype):
    features = torch.randn(1, 9, FEATURE_DIM, generator=torch.Generator().manual_seed(0))
    resample = inside.nodes("encoding").resample
    with torch.inference_mode():
        original, found = (resample(copies[each], features).float() for each in (torch.float32, dtype))
    assert found.shape == (1, 16, TOKEN_DIM) and torch.isfinite(found).all()
    assert (found - original).norm() < 0.5 * original.norm()
