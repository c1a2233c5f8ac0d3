"""The published size, without its weights: 270 million parameters from a formula, see golden/README.md."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pit.ip_adapter.files import load_ip_adapter, read_ip_adapter
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.prior_files import read_prior
from pit.piece_it_together.sample import sample_prior
from tests.golden import Golden, assert_equal, number_in

SLOTS = 4


def formula(seed: int, count: int) -> np.ndarray:
    """`count` numbers in 0..1 from integer arithmetic modulo 2^32, float64."""
    h = np.arange(1, count + 1, dtype=np.uint32)
    h *= np.uint32(2654435761)
    h += np.uint32(seed * 40503 % 2**32)
    h ^= h >> np.uint32(15)
    h *= np.uint32(1103515245)
    h ^= h >> np.uint32(13)
    h *= np.uint32(1103515245)
    h += np.uint32(12345)
    h ^= h >> np.uint32(16)
    return h / 2.0**32


def formula_weight(seed: int, key: str, shape: torch.Size) -> Tensor:
    base, amplitude = 0.0, 0.6
    if len(shape) == 2:
        amplitude = 4 / shape[1] ** 0.5
    elif key.endswith("norm.weight"):
        base, amplitude = 1.0, 0.4
    values = base + amplitude * (formula(seed, shape.numel()) - 0.5)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def formula_input(seed: int, tokens: int, width: int) -> Tensor:
    values = (formula(seed, tokens * width) - 0.5) * 3.4641016151377544
    return torch.from_numpy(values.astype(np.float32)).reshape(1, tokens, width)


@pytest.fixture(scope="module")
def io(golden) -> dict[str, Tensor]:
    return golden.tensors("pit_full_formula_io")


@pytest.fixture(scope="module")
def inputs(io) -> list[Tensor]:
    """Noise, the tokens of the parts, and those of an empty slot."""
    (_, count, width), seeds = io["dit.out_t1"].shape, io["note_seeds_x_cond_empty"].tolist()
    tokens = (count, SLOTS * count, count)
    return [formula_input(seed, length, width) for seed, length in zip(seeds, tokens, strict=True)]


@pytest.fixture(scope="module")
def prior(golden, io) -> IPPrior:
    sizes = golden.facts("pit_prior_full_keys")["layers4"]["config"]
    model = IPPrior(
        sizes["embedding_dim"], sizes["hidden_dim"], sizes["n_layers"], sizes["n_heads"], device="meta"
    )
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    state = {key: formula_weight(seed, key, shapes[key]) for seed, key in enumerate(sorted(shapes))}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.golden_keys("pit_full_formula_io", r"check\..+\.first8")
def test_the_formula_gives_the_weights_that_were_used(prior, io, key):
    weight = prior.get_parameter(key.removeprefix("check.").removesuffix(".first8"))
    assert torch.equal(weight.flatten()[:8], io[key])


@pytest.mark.golden_keys("pit_full_formula_io", r"dit\.out_t.+")
def test_velocity_equals_the_published_one(prior, inputs, io, key):
    noise, parts, _ = inputs
    assert_equal(prior(noise, torch.tensor([number_in(key, "t")]), parts), io[key])


# Without guidance nothing differs at this size that the tiny prior does not show in a hundredth of the time.
@pytest.mark.golden_keys("pit_full_formula_io", r"sample\.out_g(?!1_).+")
def test_samples_equal_the_published_ones(prior, inputs, io, key):
    noise, parts, empty = inputs
    scale, steps = number_in(key, "g"), int(key.rpartition("_")[2])
    tokens = sample_prior(
        prior, parts, empty_tokens=empty, noise=noise, steps=steps, guidance_scale=scale
    )
    assert_equal(tokens, io[key])


def write_zeros(path: Path, shapes: dict[str, list[int]]) -> Path:
    """A safetensors file of half-precision zeros; the zeros are a hole in the file and take no room."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


@pytest.mark.parametrize("name, layers", [("layers4", 4), ("layers8_default", 8)])
def test_a_published_prior_tells_its_sizes(golden, tmp_path, name, layers):
    published = golden.facts("pit_prior_full_keys")[name]
    config, state = read_prior(write_zeros(tmp_path / "prior.safetensors", published["keys"]))
    assert (config.embedding_dim, config.hidden_dim, config.num_layers) == (2048, 2048, layers)
    assert (config.num_heads, config.feed_forward_dim, config.use_ref) == (32, 5632, None)
    assert sum(value.numel() for value in state.values()) == published["num_params"]


def write_adapter(golden: Golden, folder: Path) -> Path:
    published = golden.facts("ip_adapter_plus_sdxl_keys")
    shapes = {
        f"{part}.{key}": shape
        for part in ("image_proj", "ip_adapter") for key, shape in published[part].items()
    }
    return write_zeros(folder / "ip-adapter-plus.safetensors", shapes)


def test_a_published_adapter_tells_its_sizes(golden, tmp_path):
    file = read_ip_adapter(write_adapter(golden, tmp_path))
    assert file.resampler == {
        "dim": 1280, "depth": 4, "dim_head": 64, "heads": 20, "num_queries": 16, "embedding_dim": 1280,
        "output_dim": 2048, "ff_mult": 4,
    }
    assert file.token_dim == 2048
    published = golden.facts("ip_adapter_plus_sdxl_keys")
    assert file.inner_dims == [row["to_k_ip_shape"][0] for row in published["mapping"]]
    parameters = sum(value.numel() for value in file.cross_attention_state.values())
    assert len(file.inner_dims) == 70 and parameters == published["ip_adapter_params"]


def test_a_published_adapter_makes_modules(golden, tmp_path):
    adapter = load_ip_adapter(write_adapter(golden, tmp_path))
    assert len(adapter.cross_attention) == 70
    assert adapter.cross_attention[69].to_k.weight.shape == (1280, 2048)
    assert {weight.dtype for weight in adapter.parameters()} == {torch.float16} and not adapter.training
