"""Published files of Parts2Whole: every layout loads, and every fault is one clear error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pit.files.checked import shapes
from pit.files.known import what_is
from pit.files.unet_sizes import HEADS, unet_config
from pit.files.weights import WeightFileError
from pit.ip_adapter.attention import ImageCrossAttention
from pit.parts2whole.files import (
    SD15_BLOCKS,
    load_decoupled,
    load_parts,
    load_parts2whole,
    load_pose_guider,
    load_reference_unet,
    load_unet,
    save_decoupled,
)
from pit.parts2whole.pose import PoseGuider
from pit.parts2whole.unets import blocks_of, empty_reference_unet, empty_unet, widths_of
from tests.refusal import assert_refused

WEIGHTS = "diffusion_pytorch_model.safetensors"
LOADERS = {"unet": load_unet, "reference_unet": load_reference_unet, "pose_guider": load_pose_guider}


def full_state(golden, name: str) -> dict[str, Tensor]:
    """Tensors without memory in the published shapes."""
    listed = golden.facts("parts2whole_full_keys")
    key = next(key for key in listed if key.startswith(name))
    return {name: torch.empty(shape, device="meta") for name, shape in listed[key].items()}


@pytest.mark.parametrize(("name", "empty"), [
    ("unet/", empty_unet), ("reference_unet/", empty_reference_unet),
])
def test_unets_of_the_published_size_have_the_published_keys(golden, name, empty):
    state = full_state(golden, name)
    unet = empty(unet_config(Path(name), state) | {"attention_head_dim": HEADS})
    assert shapes(unet) == {key: value.shape for key, value in state.items()}
    assert blocks_of(unet) == [f"{block}.transformer_blocks.0" for block in SD15_BLOCKS]


def test_the_pose_guider_of_the_published_size_has_the_published_keys(golden):
    state = full_state(golden, "pose_guider/")
    assert shapes(PoseGuider(device="meta")) == {key: value.shape for key, value in state.items()}


def test_the_decoupled_attention_of_the_published_size_has_the_published_keys(golden, tmp_path):
    state = full_state(golden, "decoupled_attn.pth")
    unet = empty_unet(unet_config(tmp_path, full_state(golden, "unet/")) | {"attention_head_dim": HEADS})
    attention = ImageCrossAttention(unet.config.cross_attention_dim, widths_of(unet), device="meta")
    names = [f"{block}.attn2.processor" for block in blocks_of(unet)]
    ours = {f"{name}.to_{kind}_dc.weight": getattr(layer, f"to_{kind}").weight.shape
            for name, layer in zip(names, attention, strict=True) for kind in "kv"}
    assert ours == {key: value.shape for key, value in state.items()}


def test_single_files_and_folders_give_the_same(published_folder, published):
    for name, load in LOADERS.items():
        by_file, by_folder = load(published_folder / name / WEIGHTS), load(published_folder / name)
        wanted = getattr(published, name).state_dict()
        for state in (by_file.state_dict(), by_folder.state_dict()):
            assert all(torch.equal(state[key].float(), wanted[key]) for key in wanted)
            assert state.keys() == wanted.keys()


@pytest.fixture
def folder(published_folder, tmp_path) -> Path:
    return shutil.copytree(published_folder, tmp_path / "copied")


@pytest.mark.parametrize("ending", [".bin", ".fp16.safetensors"])
def test_other_layouts_of_a_folder_load(folder, ending):
    for name, load in LOADERS.items():
        path = folder / name / WEIGHTS
        wanted = {f"module.{key}": value for key, value in load_file(path).items()}
        path.unlink()
        other = folder / name / f"diffusion_pytorch_model{ending}"
        torch.save(wanted, other) if ending == ".bin" else save_file(wanted, other)
        assert set(load(folder / name).state_dict()) == {key.removeprefix("module.") for key in wanted}


def test_copies_of_the_decoupled_attention_in_the_unet_are_passed_over(folder):
    path = folder / "unet" / WEIGHTS
    whole = load_file(folder / "decoupled_attn.pth")
    save_file(load_file(path) | {key: value + 1 for key, value in whole.items()}, path)
    model = load_parts2whole(folder)
    assert not any("_dc" in key for key in model.unet.state_dict())
    key = f"{blocks_of(model.unet)[0]}.attn2.processor.to_k_dc.weight"
    assert torch.equal(model.decoupled[0].to_k.weight, whole[key])


def test_what_is_saved_is_what_is_published(folder, published, tmp_path):
    path = tmp_path / "decoupled_attn.pth"
    save_decoupled(path, published.decoupled, blocks_of(published.unet))
    ours, theirs = load_file(path), load_file(folder / "decoupled_attn.pth")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key].float()) for key in theirs)


@pytest.mark.parametrize("name", ["unet", "reference_unet", "pose_guider", "decoupled_attn.pth"])
def test_a_folder_with_one_part_missing_names_it(folder, name):
    part = folder / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert_refused(load_parts2whole, folder, f"got none of the name {name}.", "download")


@pytest.mark.parametrize("name", ["unet", "reference_unet", "pose_guider"])
def test_a_folder_without_weights_names_them(folder, name):
    (folder / name / WEIGHTS).unlink()
    with pytest.raises(WeightFileError, match=f"{name}: expected one of {WEIGHTS}"):
        load_parts2whole(folder)


def changed(path: Path, change: Callable[[dict], dict]) -> Path:
    save_file({key: value.contiguous() for key, value in change(load_file(path)).items()}, path)
    return path


@pytest.mark.parametrize("name", ["unet", "reference_unet", "pose_guider"])
def test_keys_that_are_missing_surplus_or_wrong_are_named(folder, name):
    path, load = folder / name / WEIGHTS, LOADERS[name]
    whole = load_file(path)
    key = next(key for key in sorted(whole) if key.endswith(".bias"))

    def refused(state: dict[str, Tensor], *messages: str) -> None:
        save_file(state, path)
        assert_refused(load, path, *messages)

    refused({each: value for each, value in whole.items() if each != key}, "missing", key)
    refused(whole | {"surplus.weight": torch.zeros(2)}, "unknown", "surplus.weight")
    refused(whole | {key: torch.zeros(3)}, key, "shape")
    refused(whole | {key: whole[key] * torch.nan}, key, "NaN")
    refused(whole | {key: whole[key].int()}, key, "floating-point")
    path.write_bytes(path.read_bytes()[:-100])
    assert_refused(load, path, "damaged or truncated")


def test_faults_of_the_decoupled_attention_are_named(folder, published):
    path, blocks = folder / "decoupled_attn.pth", blocks_of(published.unet)
    whole = load_file(path)
    key = f"{blocks[3]}.attn2.processor.to_k_dc.weight"
    save_file({each: value for each, value in whole.items() if each != key}, path)
    assert_refused(load_decoupled, path, "missing", key, blocks=blocks)
    assert_refused(load_decoupled, path, "missing", key)
    save_file(whole | {f"x.{key}": whole[key].clone()}, path)
    assert_refused(load_decoupled, path, "unknown", f"x.{key}", blocks=blocks)
    save_file(whole | {key: whole[key] * torch.inf}, path)
    assert_refused(load_decoupled, path, key, "infinite", blocks=blocks)
    save_file({"a.weight": torch.zeros(2, 2)}, path)
    assert_refused(load_decoupled, path, "decoupled attention", "a.weight")


def test_unets_of_other_kinds_are_named(folder):
    path = folder / "unet" / WEIGHTS
    whole = load_file(path)
    save_file(whole | {"add_embedding.linear_1.weight": torch.zeros(2, 2)}, path)
    assert_refused(load_unet, path, "SDXL", "Stable Diffusion 1.5")
    flat = {key: value.flatten(1) for key, value in whole.items() if key.endswith("proj_in.weight")}
    save_file(whole | flat, path)
    assert_refused(load_unet, path, "Stable Diffusion 2.")
    save_file({f"model.diffusion_model.input_blocks.{key}": value for key, value in whole.items()}, path)
    assert_refused(load_unet, path, "a diffusion model", "diffusers' keys")


def test_each_kind_is_told_from_the_others(folder):
    found = {name: what_is(load_file(folder / name / WEIGHTS))[0] for name in LOADERS}
    assert found["reference_unet"] == "a reference UNet of Parts2Whole"
    assert found["pose_guider"] == "a pose guider of Parts2Whole"
    assert found["unet"] == "a diffusion model without its text encoder"
    assert what_is(load_file(folder / "decoupled_attn.pth"))[0] == "a decoupled attention of Parts2Whole"
    for name, load in LOADERS.items():
        for other in set(LOADERS) - {name}:
            with pytest.raises(WeightFileError) as caught:
                load(folder / other / WEIGHTS)
            assert str(folder / other) in str(caught.value)


def test_files_may_be_anywhere(folder, published, tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(4)]
    for name, path in zip((*LOADERS, "decoupled_attn.pth"), paths, strict=True):
        source = folder / name
        source.rename(path) if source.is_file() else (source / WEIGHTS).rename(path)
    shutil.copy(folder / "unet" / "config.json", tmp_path)
    model = load_parts(*paths)
    assert widths_of(model.reference_unet) == widths_of(published.unet)
    assert torch.equal(model.decoupled[3].to_v.weight.float(), published.decoupled[3].to_v.weight)


def test_parts_of_another_model_are_named(folder):
    changed(folder / "pose_guider" / WEIGHTS, lambda state: {
        key: value[:8] if key.startswith("conv_out") else value for key, value in state.items()
    })
    with pytest.raises(WeightFileError, match="pose_guider.*: expected widths of 32.*got 8"):
        load_parts2whole(folder)


@pytest.mark.parametrize("content", [
    "{", '{"attention_head_dim": "8"}', '{"attention_head_dim": -1}', '{"norm_num_groups": 1.5}',
    '{"attention_head_dim": 5}', '{"norm_num_groups": 7}',
])
def test_a_config_that_does_not_fit_is_refused(folder, content):
    (folder / "unet" / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(WeightFileError) as caught:
        load_unet(folder / "unet")
    assert str(caught.value).startswith(str(folder / "unet"))


def test_heads_come_from_the_config_then_the_metadata_then_stable_diffusion(folder):
    path = folder / "unet" / WEIGHTS
    heads = json.loads((folder / "unet" / "config.json").read_text())["attention_head_dim"]
    assert load_unet(path).mid_block.attentions[0].transformer_blocks[0].attn1.heads == heads != HEADS
    (folder / "unet" / "config.json").unlink()
    assert load_unet(path).mid_block.attentions[0].transformer_blocks[0].attn1.heads == HEADS
    save_file(load_file(path), path, {"num_heads": "2"})
    assert load_unet(path).mid_block.attentions[0].transformer_blocks[0].attn1.heads == 2
