"""Stamps of IP-Adapters: the same for copies of one in any type, different for any two."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.files.plain_json import parse_json
from pit.files.records import Made, adapter_stamp, same_adapter, weights_stamp
from pit.ip_adapter.files import load_ip_adapter, read_ip_adapter
from pit.ip_adapter.resampler import Resampler

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def adapter(seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = Resampler(128, 1, 8, 4, 16, 40, 48).state_dict()
        return state | {"norm_out.weight": 1 + 0.1 * torch.randn(48)}


def copied(state: dict[str, Tensor], *dtypes: torch.dtype) -> dict[str, Tensor]:
    for dtype in dtypes:
        state = {key: value.to(dtype) for key, value in state.items()}
    return {key: value.float() for key, value in state.items()}


@pytest.mark.parametrize("second", TYPES)
@pytest.mark.parametrize("first", TYPES)
@pytest.mark.parametrize("seed", range(8))
def test_copies_in_two_types_are_one_adapter_and_others_are_not(seed, first, second):
    state = adapter(seed)
    stamp = adapter_stamp(copied(state, first))
    assert same_adapter(stamp, adapter_stamp(copied(state, second)))
    assert same_adapter(stamp, adapter_stamp(copied(state, torch.float16, second)))
    assert not same_adapter(stamp, adapter_stamp(copied(adapter(seed + 100), second)))


@pytest.mark.parametrize("dtype", TYPES)
def test_a_training_of_the_same_adapter_makes_another_one(dtype):
    state = adapter(0)
    moved = {key: value + 1e-2 * torch.randn_like(value).sign() for key, value in state.items()}
    for first, second in ((dtype, dtype), (torch.float16, torch.bfloat16)):
        assert not same_adapter(adapter_stamp(copied(state, first)), adapter_stamp(copied(moved, second)))


def test_stamps_of_older_versions_match_the_same_file():
    state, other = adapter(0), adapter(1)
    old, new = weights_stamp(state), adapter_stamp(state)
    assert same_adapter(old, new) and same_adapter(new, old)
    assert len(old) == 16 and new.startswith(f"{old}-")
    assert not same_adapter(weights_stamp(other), new) and not same_adapter(old, weights_stamp(other))
    made = [Made(source="", adapter=stamp) for stamp in (old, new, adapter_stamp(other))]
    assert not made[0].of_another_adapter(made[1]) and made[1].of_another_adapter(made[2])


@pytest.mark.parametrize("stamp", ["", "-", "--", "a-fp16-zz", "a-bf16-00", "a-none-00", "a-b-c-d", "-" * 99])
def test_a_stamp_that_is_damaged_is_another_one(stamp):
    assert not same_adapter(stamp, adapter_stamp(adapter(0)))


def write(folder: Path, dtype: torch.dtype) -> Path:
    state = {f"image_proj.{key}": value for key, value in adapter(0).items()}
    state |= {f"ip_adapter.1.to_{kind}_ip.weight": torch.full((64, 48), 0.3) for kind in "kv"}
    path = folder / "ip-adapter.safetensors"
    save_file({key: value.to(dtype) for key, value in state.items()}, path, {"resampler_dim_head": "8"})
    return path


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_an_adapter_in_float8_computes_with_its_very_values(tmp_path, dtype):
    path = write(tmp_path, dtype)
    loaded = load_ip_adapter(path)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float16}
    expected = {key: value.to(dtype).float() for key, value in adapter(0).items()}
    found = loaded.resampler.state_dict()
    assert all(torch.equal(value.float(), expected[key]) for key, value in found.items())
    assert torch.isfinite(loaded.float().resampler(torch.ones(1, 5, 40))).all()
    assert same_adapter(adapter_stamp(read_ip_adapter(path).resampler_state), adapter_stamp(adapter(0)))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float16_holds_every_value_of_float8(dtype):
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    assert torch.equal(every.half().float().nan_to_num(7), every.float().nan_to_num(7))


@pytest.mark.parametrize("text", [
    "[" * 100_000, "[" * 40 + "]" * 40, '{"a":' * 40 + "1" + "}" * 40, "9" * 21, "1" * 10_000, "", "nul",
    '"', "\x00",
])
def test_json_that_is_deep_long_or_damaged_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_json_of_a_usual_depth_is_read():
    assert parse_json('{"a": [[1, 2.5], {"b": null}], "c": -7}') == {"a": [[1, 2.5], {"b": None}], "c": -7}
