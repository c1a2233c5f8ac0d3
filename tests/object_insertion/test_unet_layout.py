"""UNets written by diffusers get the names that ComfyUI loads."""
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from pit.__main__ import main
from pit.commands.convert import convert_to_safetensors
from pit.files.weights import WeightFileError, read_state
from pit.object_insertion.files import read_bias
from pit.object_insertion.unet_layout import in_comfyui_layout, is_instruct_unet


@pytest.fixture
def published(golden):
    """The UNet at the published size, without values."""
    shapes = golden.facts("object_insertion_full_keys")["unet"]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def test_every_weight_of_the_published_unet_gets_another_name(published):
    assert is_instruct_unet(published)
    renamed = in_comfyui_layout(published)
    assert len(renamed) == len(published) and not renamed.keys() & published.keys()
    places = {key.split(".")[0] for key in renamed}
    assert places == {"time_embed", "input_blocks", "middle_block", "output_blocks", "out"}
    assert renamed["input_blocks.0.0.weight"].shape == (320, 8, 3, 3)
    assert is_instruct_unet(renamed) is False


def test_sdxl_and_other_channels_are_none(published):
    assert not is_instruct_unet(published | {"add_embedding.linear_1.weight": torch.ones(1)})
    assert not is_instruct_unet(published | {"conv_in.weight": torch.ones(320, 4, 3, 3)})
    assert not is_instruct_unet({"conv_in.weight": torch.ones(320, 8, 3, 3)})


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_command_writes_comfyuis_names_and_the_bias_alone(golden, tmp_path, capsys, prefix):
    state = golden.below("object_insertion_tiny_state", "unet.")
    save_file({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "unet.safetensors")
    source, whole, bias = (str(tmp_path / f"{name}.safetensors") for name in ("unet", "whole", "bias"))
    assert main(["convert", source, whole]) == 0
    written, _ = read_state(whole)
    assert len(written) == len(state)
    assert torch.equal(written["input_blocks.0.0.bias"], state["conv_in.bias"])
    assert main(["convert", "--only", f"{prefix}conv_in.bias", source, bias]) == 0
    assert list(read_state(bias)[0]) == [f"{prefix}conv_in.bias"]
    for file in (source, whole, bias):
        assert torch.equal(read_bias(file), state["conv_in.bias"])


def test_a_tensor_that_is_not_there_is_told(tmp_path):
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightFileError, match="expected a tensor 'conv_in.bias', got a, b. Name one"):
        convert_to_safetensors(tmp_path / "x.safetensors", tmp_path / "y.safetensors", only="conv_in.bias")
    assert not (tmp_path / "y.safetensors").exists()
