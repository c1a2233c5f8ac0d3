"""What trainings leave around the names of weights: stripped where it wraps a model or a part of one."""

from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.commands.convert import convert_to_safetensors
from pit.concepts.token_files import read_direction, read_tokens
from pit.files.checked import without_wrappers
from pit.files.weights import WeightFileError, read_state
from pit.ip_adapter.files import load_ip_adapter, read_ip_adapter
from pit.object_insertion.embedding_optimizer import EmbeddingOptimizer
from pit.object_insertion.files import read_embedding_optimizer
from pit.piece_it_together.prior_files import read_prior
from tests.files.test_weights import same
from tests.ip_adapter.test_files import assert_is_the_adapter, flat_adapter, pairs
from tests.piece_it_together.random_prior import random_prior
from tests.refusal import assert_refused

PRIOR = random_prior().state_dict()
WORDS = ["_orig_mod.", "model.", "state_dict.", "module."]
PREFIXES = [*WORDS, *map("".join, product(WORDS, WORDS)), "state_dict.model.module._orig_mod."]
FACTS = {"piece_it_together": "tokens", "version": "1"}


def renamed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def write(folder: Path, state: dict[str, Tensor], facts: dict[str, str] | None = None) -> Path:
    save_file(state, folder / "x.safetensors", facts)
    return folder / "x.safetensors"


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prior_is_read_through_any_wrappers(tmp_path, prefix):
    assert same(read_prior(write(tmp_path, renamed(PRIOR, prefix)), 4)[1], PRIOR)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_adapter_is_read_through_any_wrappers(tmp_path, prefix):
    path = write(tmp_path, renamed(flat_adapter(), prefix), {"resampler_dim_head": "8"})
    assert_is_the_adapter(load_ip_adapter(path))


@pytest.mark.parametrize("part", ["image_proj.", "ip_adapter."])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_part_of_an_adapter_is_read_through_any_wrappers(tmp_path, prefix, part):
    state = {
        "module." + (key.replace(part, part + prefix) if key.startswith(part) else key): value
        for key, value in flat_adapter().items()
    }
    assert_is_the_adapter(load_ip_adapter(write(tmp_path, state, {"resampler_dim_head": "8"})))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_tokens_and_directions_are_read_through_any_wrappers(tmp_path, prefix):
    state = {"values": torch.ones(2, 16, 8), "uncond": torch.zeros(1, 16, 8)}
    read = read_tokens(write(tmp_path, renamed(state, prefix), FACTS), "x")
    assert torch.equal(read.values, state["values"]) and torch.equal(read.uncond, state["uncond"])
    one = {"direction": torch.ones(16, 8)}
    assert torch.equal(read_direction(write(tmp_path, renamed(one, prefix)), "x").values, one["direction"])


@pytest.mark.parametrize("content", [
    {"state_dict": PRIOR, "epoch": 3}, {"model": PRIOR, "step": 100}, {"model": {"module": PRIOR}},
    {"state_dict": renamed(PRIOR, "model._orig_mod.")},
])
def test_a_prior_is_read_below_names_of_a_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "prior.ckpt")
    assert same(read_prior(tmp_path / "prior.ckpt", 4)[1], PRIOR)


def test_modules_that_torch_wraps_one_by_one_are_read(tmp_path):
    inner = "layers.0._orig_mod._fsdp_wrapped_module."
    state = {key.replace("layers.0.", inner): value for key, value in PRIOR.items()}
    assert same(read_prior(write(tmp_path, state), 4)[1], PRIOR)


def test_a_single_prefix_stays_visible():
    first = next(iter(PRIOR))
    state = {f"module.{first}" if key == first else key: value for key, value in PRIOR.items()}
    assert without_wrappers(state).keys() == state.keys()


def test_two_models_in_one_file_stay_apart():
    state = {"a.b": torch.zeros(1), "a._orig_mod.b": torch.ones(1)}
    assert without_wrappers(state) is state


@pytest.mark.parametrize("key", ["module", "_orig_mod", "_orig_mod._orig_mod", "module.module", "", "."])
def test_a_name_of_nothing_but_wrappers_keeps_a_name(key):
    assert len(without_wrappers({key: torch.ones(1)})) == 1


def trained(prefix: str = "") -> dict[str, Tensor]:
    """A checkpoint as the published trainer of IP-Adapters writes it."""
    adapter = {
        key.replace("image_proj.", "image_proj_model.").replace("ip_adapter.", "adapter_modules."): value
        for key, value in flat_adapter().items()
    }
    unet = {"unet.down_blocks.0.resnets.0.conv1.weight": torch.zeros(4, 4, 3, 3)}
    return renamed(adapter | unet, prefix)


@pytest.mark.parametrize("read", [read_ip_adapter, read_prior, read_embedding_optimizer])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_trainers_checkpoint_is_recognized_and_its_conversion_told(tmp_path, prefix, read):
    path = tmp_path / "model.safetensors"
    save_file(trained(prefix), path)
    assert_refused(read, path, "got a training checkpoint of an IP-Adapter", "python -m pit convert")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_trainers_checkpoint_is_converted_as_told(tmp_path, prefix):
    save_file(trained(prefix), tmp_path / "model.safetensors")
    convert_to_safetensors(tmp_path / "model.safetensors", tmp_path / "adapter.safetensors")
    state, facts = read_state(tmp_path / "adapter.safetensors")
    assert same(state, flat_adapter())
    assert_is_the_adapter(load_ip_adapter(write(tmp_path, state, facts | {"resampler_dim_head": "8"})))
    assert set(state) >= {f"ip_adapter.{key}" for key in pairs()}


@pytest.mark.parametrize("rows", [2, 15, 17, 24, 257])
def test_a_direction_in_token_space_has_as_many_rows_as_a_picture_has_tokens(tmp_path, rows):
    facts = {"piece_it_together": "direction", "version": "1", "space": "tokens"}
    path = write(tmp_path, {"direction": torch.ones(rows, 8)}, facts)
    assert_refused(lambda path: read_direction(path, "x"), path, f"to have 16 rows, got {rows}")
    clip = write(tmp_path, {"direction": torch.ones(rows, 8)}, facts | {"space": "clip"})
    assert read_direction(clip, "x").values.shape == (rows, 8)


@pytest.mark.parametrize("shape", [(2, 16, 0), (2, 0, 8), (0, 16, 8)])
def test_tokens_of_no_size_are_refused(tmp_path, shape):
    path = write(tmp_path, {"values": torch.ones(shape), "uncond": torch.ones(1, *shape[1:])}, FACTS)
    assert_refused(lambda path: read_tokens(path, "x"), path, f"got {list(shape)}")


@pytest.mark.parametrize("shape", [(2, 9, 0), (2, 0, 5)])
def test_features_of_no_size_are_refused(tmp_path, shape):
    state = {"values": torch.ones(2, 16, 8), "uncond": torch.ones(1, 16, 8), "features": torch.ones(shape)}
    with pytest.raises(WeightFileError, match="expected features of the shape"):
        read_tokens(write(tmp_path, state, FACTS), "x")


@pytest.mark.parametrize(("read", "state", "kind"), [
    (read_prior, renamed(PRIOR, "net."), "an IP-Prior"),
    (read_prior, renamed(PRIOR, "model.prior."), "an IP-Prior"),
    (read_prior, renamed(PRIOR, "model.") | {"optimizer.step": torch.ones(1)}, "an IP-Prior"),
    (read_ip_adapter, renamed(flat_adapter(), "ip_adapter."), "an IP-Adapter"),
    (read_ip_adapter, {key: value for key, value in flat_adapter().items() if "latents" not in key},
     "an IP-Adapter"),
    (read_embedding_optimizer, renamed(EmbeddingOptimizer(16, 8).state_dict(), "net."),
     "an Embedding Optimizer"),
])
def test_no_file_is_refused_for_being_what_it_should_be(tmp_path, read, state, kind):
    with pytest.raises(WeightFileError, match=f"expected {kind}.*, got a file with the keys ") as raised:
        read(write(tmp_path, state))
    assert f"got {kind}" not in str(raised.value)
