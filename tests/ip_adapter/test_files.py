"""IP-Adapter files of every published layout load, are refused by key when damaged, and are converted."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.__main__ import main
from pit.commands.convert import convert_to_safetensors
from pit.files.weights import WeightFileError, read_state
from pit.ip_adapter.attention import IPAdapterPlus
from pit.ip_adapter.files import load_ip_adapter, read_ip_adapter, save_ip_adapter
from pit.ip_adapter.resampler import Resampler
from pit.piece_it_together.prior_files import load_prior, read_prior
from tests.golden import assert_equal
from tests.piece_it_together.random_prior import random_prior
from tests.refusal import assert_refused

PRIOR = random_prior().state_dict()
SIZES = {
    "dim": 32, "depth": 2, "dim_head": 8, "heads": 4, "num_queries": 16, "embedding_dim": 40,
    "output_dim": 48, "ff_mult": 4,
}
INNER_DIMS = [8, 12, 12]


def pairs(inner_dims: list[int] = INNER_DIMS, token_dim: int = 48) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{2 * layer + 1}.to_{kind}_ip.weight": torch.randn(dim, token_dim, generator=generator)
        for layer, dim in enumerate(inner_dims) for kind in "kv"
    }


def random_resampler(**sizes: int) -> Resampler:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Resampler(**sizes).requires_grad_(False)


PROJECTION = random_resampler(**SIZES).state_dict()


def flat_adapter() -> dict[str, Tensor]:
    state = {f"image_proj.{key}": value for key, value in PROJECTION.items()}
    return state | {f"ip_adapter.{key}": value for key, value in pairs().items()}


def write_adapter(folder: Path, state: dict[str, Tensor], dim_head: str | None = "8") -> Path:
    path = folder / "ip-adapter-plus.safetensors"
    save_file(state, path, None if dim_head is None else {"resampler_dim_head": dim_head})
    return path


def assert_is_the_adapter(adapter: IPAdapterPlus) -> None:
    features = torch.randn(2, 17, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_equal(adapter.resampler(features), random_resampler(**SIZES)(features))
    for name, value in pairs().items():
        layer, kind = int(name.partition(".")[0]) // 2, name.split(".")[1].removesuffix("_ip")
        assert torch.equal(getattr(adapter.cross_attention[layer], kind).weight, value)
    assert adapter.cross_attention.inner_dims == INNER_DIMS and not adapter.training


@torch.no_grad()
def test_a_file_gives_the_published_tokens(golden, tmp_path):
    sizes, io = golden.facts("pit_tiny_config")["res"], golden.below("pit_tiny_io", "resampler.")
    projection = golden.below("pit_tiny_state", "image_proj.")
    state = {f"image_proj.{key}": value for key, value in projection.items()}
    state |= {f"ip_adapter.{key}": value for key, value in pairs(token_dim=sizes["output_dim"]).items()}
    path = write_adapter(tmp_path, state, str(sizes["dim_head"]))
    assert sizes.items() <= read_ip_adapter(path).resampler.items()
    assert_equal(load_ip_adapter(path).resampler(io["features"]), io["tokens"])


def test_an_adapter_loads_from_the_flat_layout(tmp_path):
    path = write_adapter(tmp_path, flat_adapter())
    file = read_ip_adapter(path)
    assert file.resampler == SIZES
    assert (file.token_dim, file.inner_dims) == (48, INNER_DIMS)
    assert file.resampler_state.keys() == PROJECTION.keys()
    assert set(file.cross_attention_state) == {f"{i}.to_{kind}.weight" for i in range(3) for kind in "kv"}
    assert_is_the_adapter(load_ip_adapter(path))


def test_an_adapter_loads_from_the_nested_layout(tmp_path):
    resampler = Resampler(dim=32, depth=1, heads=2, embedding_dim=40, output_dim=48)
    path = tmp_path / "ip-adapter-plus.bin"
    torch.save({"image_proj": resampler.state_dict(), "ip_adapter": pairs()}, path)
    adapter = load_ip_adapter(path)
    features = torch.randn(2, 17, 40)
    assert torch.equal(adapter.resampler(features), resampler(features))
    assert torch.equal(adapter.cross_attention[2].to_v.weight, pairs()["5.to_v_ip.weight"])


def test_an_adapter_is_saved_in_the_published_layout(tmp_path):
    adapter = load_ip_adapter(write_adapter(tmp_path, flat_adapter()))
    save_ip_adapter(tmp_path / "again.safetensors", adapter, {"made_by": "a test"})
    state, metadata = read_state(tmp_path / "again.safetensors")
    assert state.keys() == flat_adapter().keys()
    assert metadata == {"format": "pt", "resampler_dim_head": "8", "made_by": "a test"}
    assert_is_the_adapter(load_ip_adapter(tmp_path / "again.safetensors"))


def test_priors_and_adapters_are_not_mixed_up(tmp_path):
    path = tmp_path / "prior.ckpt"
    torch.save({f"module.{key}": value for key, value in PRIOR.items()}, path)
    assert_refused(load_ip_adapter, path, "expected an IP-Adapter-plus, got an IP-Prior.", "models/ip_prior")
    path = write_adapter(tmp_path, flat_adapter())
    assert_refused(load_prior, path, "expected an IP-Prior, got an IP-Adapter.", "models/ipadapter")


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """The flat adapter with other tensors in it, or without those that are None; __ stands for a dot."""
    state = flat_adapter() | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in state.items() if value is not None}


def renumbered(*numbers: int) -> dict[str, Tensor]:
    """The flat adapter with other numbers for its three layers."""
    new = {f"ip_adapter.{2 * layer + 1}.": f"ip_adapter.{number}." for layer, number in enumerate(numbers)}
    state = {}
    for key, value in flat_adapter().items():
        old = next((prefix for prefix in new if key.startswith(prefix)), None)
        state[key if old is None else key.replace(old, new[old])] = value
    return state


INFINITE = torch.full((8, 48), float("inf"))


@pytest.mark.parametrize("state, messages", [
    (renumbered(1, 3, 7), ["expected weights for the attention layers 1, 3, 5", "got layers 1, 3, 7"]),
    (renumbered(0, 2, 4), ["got layers 0, 2, 4"]),
    (renumbered(3, 5, 7), ["got layers 3, 5, 7"]),
    (changed(ip_adapter__3__to_v_ip__weight=None), ["1 missing: ip_adapter.3.to_v_ip.weight"]),
    (changed(ip_adapter__3__to_v_ip__bias=torch.ones(12)), ["1 unknown: ip_adapter.3.to_v_ip.bias"]),
    (changed(image_proj__pos_emb__weight=torch.ones(4, 4)), ["1 unknown: image_proj.pos_emb.weight"]),
    (changed(epoch=torch.ones(1)), ["1 unknown: epoch"]),
    (changed(image_proj__proj_in__weight=None), ["expected a tensor image_proj.proj_in.weight, got none"]),
    (changed(image_proj__norm_out__bias=None), ["1 missing: image_proj.norm_out.bias"]),
    (changed(image_proj__latents=torch.ones(16, 32)),
     ["image_proj.latents of the shape [1, tokens, width], got [16, 32]"]),
    (changed(ip_adapter__5__to_k_ip__weight=torch.ones(12, 40)),
     ["expected ip_adapter.5.to_k_ip.weight of shape [12, 48]", "got [12, 40]"]),
    (changed(ip_adapter__5__to_v_ip__weight=torch.ones(10, 48)),
     ["expected ip_adapter.5.to_v_ip.weight of shape [12, 48]", "got [10, 48]"]),
    (changed(ip_adapter__5__to_k_ip__weight=torch.ones(12)), ["ip_adapter.5.to_k_ip.weight to be a matrix"]),
    (changed(ip_adapter__1__to_k_ip__weight=INFINITE), ["in ip_adapter.1.to_k_ip.weight, got NaN"]),
    (changed(image_proj__proj_in__bias=INFINITE[0, :32]), ["in image_proj.proj_in.bias, got NaN"]),
    (changed(image_proj__proj_in__bias=torch.ones(32, dtype=torch.uint8)), ["got torch.uint8"]),
])
def test_an_incomplete_or_damaged_adapter_is_refused_by_key(tmp_path, state, messages):
    path = write_adapter(tmp_path, state)
    assert_refused(read_ip_adapter, path, *messages)
    assert_refused(load_ip_adapter, path)


@pytest.mark.parametrize("dim_head, message", [
    (None, "to split into heads of 64 rows, got 32 rows"),
    ("7", "to split into heads of 7 rows, got 32 rows"),
    ("0", "as resampler_dim_head in its metadata, got '0'"),
    ("wide", "as resampler_dim_head in its metadata, got 'wide'"),
])
def test_a_head_width_that_does_not_fit_is_refused(tmp_path, dim_head, message):
    assert_refused(read_ip_adapter, write_adapter(tmp_path, flat_adapter(), dim_head), message)


@pytest.mark.parametrize("cfg, heads, use_ref", [
    ("num_attention_heads: 4\nuse_ref: true\n", 4, True), (None, 32, None),
])
def test_a_converted_prior_is_the_same_and_needs_no_cfg_yaml(tmp_path, cfg, heads, use_ref):
    source, target = tmp_path / "prior.ckpt", tmp_path / "out" / "prior.safetensors"
    target.parent.mkdir()
    torch.save({f"module.{key}": value for key, value in PRIOR.items()}, source)
    if cfg is not None:
        source.with_name("cfg.yaml").write_text(cfg)
    convert_to_safetensors(source, target)
    config, state = read_prior(target)
    assert (config.num_heads, config.use_ref) == (heads, use_ref)
    assert all(torch.equal(state[key], value) for key, value in PRIOR.items())
    assert ("num_heads" in read_state(target)[1]) == (cfg is not None)  # the default is no knowledge


def test_a_prior_beside_the_cfg_yaml_of_another_is_not_converted(tmp_path):
    torch.save(PRIOR, tmp_path / "prior.ckpt")
    (tmp_path / "cfg.yaml").write_text("num_layers: 8\n")
    target = tmp_path / "prior.safetensors"
    with pytest.raises(WeightFileError, match="another prior"):
        convert_to_safetensors(tmp_path / "prior.ckpt", target)
    assert not target.exists()


def test_a_converted_adapter_is_flat(tmp_path):
    content = {"image_proj": PROJECTION, "ip_adapter": pairs()}
    torch.save(content, tmp_path / "a.bin")
    convert_to_safetensors(tmp_path / "a.bin", tmp_path / "a.safetensors")
    state, _ = read_state(tmp_path / "a.safetensors")
    assert state.keys() == flat_adapter().keys()
    assert all(torch.equal(state[key], value) for key, value in flat_adapter().items())


def test_any_other_tensors_are_converted_with_shared_ones(tmp_path):
    shared = torch.randn(3, 3)
    torch.save({"net": {"a": shared, "b": shared}, "half": shared.half().T, "step": 9}, tmp_path / "x.pth")
    convert_to_safetensors(tmp_path / "x.pth", tmp_path / "x.safetensors")
    state, metadata = read_state(tmp_path / "x.safetensors")
    assert torch.equal(state["net.a"], shared) and torch.equal(state["net.b"], shared)
    assert torch.equal(state["half"], shared.half().T) and metadata["step"] == "9"


def test_a_conversion_overwrites_nothing(tmp_path):
    torch.save(PRIOR, tmp_path / "prior.ckpt")
    (tmp_path / "taken.safetensors").write_bytes(b"mine")
    with pytest.raises(WeightFileError, match="already exists"):
        convert_to_safetensors(tmp_path / "prior.ckpt", tmp_path / "taken.safetensors")
    with pytest.raises(WeightFileError, match="Expected a .safetensors file to write, got .*new.ckpt"):
        convert_to_safetensors(tmp_path / "prior.ckpt", tmp_path / "new.ckpt")
    assert (tmp_path / "taken.safetensors").read_bytes() == b"mine" and not (tmp_path / "new.ckpt").exists()


def test_the_command_converts_and_tells_errors(tmp_path, capsys):
    torch.save(PRIOR, tmp_path / "prior.ckpt")
    paths = [str(tmp_path / name) for name in ("prior.ckpt", "prior.safetensors")]
    assert main(["convert", *paths]) == 0
    assert main(["convert", *paths]) == 1
    assert "already exists" in capsys.readouterr().err
