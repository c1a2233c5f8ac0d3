"""Load Parts2Whole: folders and single files, and every fault by name."""
from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.comfyui.nodes.parts2whole.shared import nodes

WEIGHTS = "diffusion_pytorch_model.safetensors"
NAMES = ("unet", "reference_unet", "pose_guider")


@pytest.fixture
def folder(inside, tiny_folder, request):
    """A copy of the published folder in ComfyUI's models."""
    copied = tiny_folder.with_name(f"copied {abs(hash(request.node.name))}")
    shutil.copytree(tiny_folder, copied)
    clear(inside)
    yield copied
    shutil.rmtree(copied)
    clear(inside)


def clear(inside):
    """ComfyUI keeps lists of files for a while."""
    inside.pack("nodes.bridge.folders").folder_paths.filename_list_cache.clear()


def load(inside, name, **files):
    with torch.inference_mode():
        return nodes(inside, "loading").LoadParts2Whole.execute(name, **files).args


def test_the_folder_is_offered_and_its_files_are_options(inside, folder):
    loading = nodes(inside, "loading")
    assert folder.name in loading.folder_options()
    assert loading.LoadParts2Whole.validate_inputs(folder.name) is True
    assert "Run `python -m pit download parts2whole" in loading.LoadParts2Whole.validate_inputs("other")
    assert "got '../tiny'" in loading.LoadParts2Whole.validate_inputs("../tiny")


def test_single_files_take_the_place_of_what_the_folder_holds(inside, folder):
    chosen = f"{folder.name}/pose_guider/{WEIGHTS}"
    _, plain = load(inside, folder.name)
    path = folder / "pose_guider" / WEIGHTS
    save_file({key: value * 2 for key, value in load_file(path).items()}, path)
    _, changed = load(inside, "tiny", pose_guider=chosen)
    ours, theirs = (each.guider.conv_in.weight for each in (changed, plain))
    torch.testing.assert_close(ours, 2 * theirs)


@pytest.mark.parametrize("name", [*NAMES, "decoupled_attn.pth"])
def test_a_folder_with_one_part_missing_names_it(inside, folder, name):
    part = folder / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    clear(inside)
    with pytest.raises(ValueError, match=f"got none of the name {name}."):
        load(inside, folder.name)


def changed(path, **tensors):
    save_file(load_file(path) | tensors, path)


def test_a_unet_of_another_stable_diffusion_is_named(inside, folder):
    path = folder / "unet" / WEIGHTS
    changed(path, **{"add_embedding.linear_1.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="expected a UNet of Stable Diffusion 1.5, got one of SDXL"):
        load(inside, folder.name)


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_refused(inside, folder, name):
    path = folder / name / WEIGHTS
    weight = load_file(path)["conv_in.weight"]
    changed(path, **{"conv_in.weight": weight * torch.nan})
    with pytest.raises(ValueError, match="finite numbers in conv_in.weight, got NaN"):
        load(inside, folder.name)


def test_a_changed_file_is_loaded_again(inside, folder):
    fingerprint = nodes(inside, "loading").LoadParts2Whole.fingerprint_inputs
    before = fingerprint(folder.name)
    assert fingerprint(folder.name) == before and fingerprint(None) is None
    changed(folder / "unet" / WEIGHTS, **{"conv_in.bias": torch.zeros(32).half()})
    assert fingerprint(folder.name) != before


def test_sizes_that_comfyui_cannot_have_are_refused(inside):
    config = {
        "block_out_channels": [32, 48], "layers_per_block": 1, "norm_num_groups": 32,
        "down_block_types": ["CrossAttnDownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2,
        "in_channels": 4, "out_channels": 4, "cross_attention_dim": 8,
    }
    sizes = nodes(inside, "loading").comfyui_config
    with pytest.raises(ValueError, match="multiples of them.*got 32 groups and the widths .32, 48."):
        sizes(config)
    with pytest.raises(ValueError, match="got 16 groups"):
        sizes(config | {"block_out_channels": [32, 64], "norm_num_groups": 16})


def test_progress_is_told_and_cancel_ends_the_loading(inside, tiny_folder, cancel_at):
    interrupted = inside.comfy("model_management").InterruptProcessingException
    seen = cancel_at(2)
    with pytest.raises(interrupted):
        load(inside, tiny_folder.name)
    assert [value for value, *_ in seen] == [1, 2]


def test_copies_have_weights_of_their_own(inside, model):
    again, arguments = model.cached_patcher_init
    copied = again(*arguments, disable_dynamic=True)
    ours, theirs = (each.model.diffusion_model.out[2].weight for each in (copied, model))
    assert torch.equal(ours, theirs) and ours.data_ptr() != theirs.data_ptr()
