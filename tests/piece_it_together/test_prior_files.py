"""IP-Prior files of every published layout load; those that are damaged or of another kind are named."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pit.files.weights import read_state
from pit.ip_adapter.files import load_ip_adapter
from pit.piece_it_together.prior import IPPrior
from pit.piece_it_together.prior_files import PriorConfig, load_prior, read_prior, save_prior
from tests.golden import assert_equal
from tests.piece_it_together.random_prior import random_prior
from tests.refusal import assert_refused

PRIOR = random_prior().state_dict()
CONFIG = PriorConfig(48, 64, 2, 4, 256)
CFG_YAML = """
dataset_path: [a, b]
device: cuda:0
lr: 1.0e-05
seed: null
num_layers: 2
hidden_dim: 64
num_attention_heads: 4
use_ref: true
some_later_field: {x: 1}
"""


def write_prior(folder: Path, state: dict[str, Tensor] = PRIOR, cfg: str | None = None) -> Path:
    torch.save(state, folder / "prior.ckpt")
    if cfg is not None:
        (folder / "cfg.yaml").write_text(cfg, encoding="utf-8")
    return folder / "prior.ckpt"


def assert_is_the_prior(prior: IPPrior) -> None:
    x, t, parts = torch.ones(1, 16, 48), torch.tensor([0.3]), torch.linspace(-1, 1, 48).expand(1, 32, 48)
    with torch.no_grad():
        assert_equal(prior(x, t, parts), random_prior()(x, t, parts))
    assert not prior.training


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("ending", ["ckpt", "pt", "pth", "bin", "safetensors"])
def test_a_file_of_every_layout_gives_the_published_velocity(golden, tmp_path, ending, prefix):
    sizes, io = golden.facts("pit_tiny_config")["dit"], golden.below("pit_tiny_io", "dit.")
    state = {f"{prefix}{key}": value for key, value in golden.below("pit_tiny_state", "prior.").items()}
    (save_file if ending == "safetensors" else torch.save)(state, tmp_path / f"prior.{ending}")
    (tmp_path / "cfg.yaml").write_text(
        f"num_layers: {sizes['n_layers']}\nhidden_dim: {sizes['hidden_dim']}\n"
        f"num_attention_heads: {sizes['n_heads']}\n"
    )
    prior = load_prior(tmp_path / f"prior.{ending}")
    assert_equal(prior(io["x"], io["t_mixed"], io["cond"]), io["out_mixed"])


def test_a_prior_tells_its_sizes_and_its_use_of_a_reference(tmp_path):
    path = write_prior(tmp_path, cfg=CFG_YAML)
    config, state = read_prior(path)
    assert config == replace(CONFIG, use_ref=True) and state.keys() == PRIOR.keys()
    assert_is_the_prior(load_prior(str(path)))


def test_a_prior_loads_from_safetensors_with_its_head_count(tmp_path):
    save_prior(tmp_path / "prior.safetensors", PRIOR, replace(CONFIG, use_ref=False), {"domain": "creatures"})
    assert read_prior(tmp_path / "prior.safetensors")[0] == replace(CONFIG, use_ref=False)
    assert_is_the_prior(load_prior(tmp_path / "prior.safetensors"))
    assert read_state(tmp_path / "prior.safetensors")[1]["domain"] == "creatures"


def test_a_prior_tells_the_adapter_on_whose_tokens_it_was_trained(tmp_path):
    config = replace(CONFIG, adapter="0123")
    path = tmp_path / "prior.safetensors"
    save_prior(path, PRIOR, config, {"ip_adapter": "creature_ip_adapter.safetensors"})
    assert read_prior(path)[0] == config


def test_a_prior_for_the_first_creature_models_is_refused(tmp_path):
    path = tmp_path / "prior.safetensors"
    save_prior(path, PRIOR, CONFIG, {"ip_adapter": "creature_ip_adapter.safetensors"})
    assert_refused(read_prior, path, "for the creature models of today", "version 0.5.0", "train it anew")


@pytest.mark.parametrize("explicit, cfg, metadata, heads", [
    (8, 4, 2, 8), (8, None, None, 8), (None, 4, 2, 4), (None, None, 2, 2), (None, 4, None, 4),
    (None, None, None, 32),
])
def test_the_head_count_comes_from_the_first_that_tells_it(tmp_path, explicit, cfg, metadata, heads):
    notes = None if metadata is None else {"num_heads": str(metadata)}
    save_file(PRIOR, tmp_path / "prior.safetensors", notes)
    if cfg is not None:
        (tmp_path / "cfg.yaml").write_text(f"num_attention_heads: {cfg}\n")
    config, _ = read_prior(tmp_path / "prior.safetensors", explicit)
    assert config.num_heads == heads and config.use_ref is None


@pytest.mark.parametrize("heads", [0, -1, 5, 64])
def test_a_head_count_that_does_not_fit_is_refused(tmp_path, heads):
    path = write_prior(tmp_path)
    message = f"splits into {heads} heads of even width, got a width of 64"
    assert_refused(read_prior, path, message, "Give the right num_heads", num_heads=heads)


def test_an_untold_head_count_that_does_not_fit_asks_for_the_right_one(tmp_path):
    path = write_prior(tmp_path, IPPrior(8, 48, 1, 4).state_dict())
    assert_refused(read_prior, path, "splits into 32 heads", "Give the right num_heads")
    assert read_prior(path, 4)[0].num_heads == 4


@pytest.mark.parametrize("cfg, message", [
    ("num_attention_heads: [4", "cfg.yaml: expected readable YAML, got an error"),
    ("a: !!python/object/apply:os.system ['true']", "cfg.yaml: expected readable YAML, got an error"),
    ("when: 2025-99-99", "cfg.yaml: expected readable YAML, got an error"),
    ("[" * 5000, "cfg.yaml: expected readable YAML, got an error"),
    ("", "expected lines of the form `name: value`, got a NoneType"),
    ("just words", "expected lines of the form `name: value`, got a str"),
    ("num_attention_heads: four", "cfg.yaml: expected num_attention_heads to be int, got 'four'"),
    ("num_attention_heads: true", "cfg.yaml: expected num_attention_heads to be int, got True"),
    ("use_ref: 1", "cfg.yaml: expected use_ref to be bool, got 1"),
    ("num_attention_heads: 0", "splits into 0 heads"),
    ("num_layers: 8", "expected a num_layers of 8, as the cfg.yaml beside it says, got 2"),
    ("hidden_dim: 2048", "expected a hidden_dim of 2048, as the cfg.yaml beside it says, got 64"),
])
def test_a_cfg_yaml_that_is_damaged_or_of_another_prior_is_an_error(tmp_path, cfg, message):
    assert_refused(read_prior, write_prior(tmp_path, cfg=cfg), message)


def test_a_cfg_yaml_in_another_encoding_is_an_error(tmp_path):
    path = write_prior(tmp_path)
    (tmp_path / "cfg.yaml").write_bytes("output_dir: \xfc".encode("latin-1"))
    assert_refused(read_prior, path, "cfg.yaml: expected readable YAML, got an error")


def test_a_head_count_in_the_metadata_that_is_no_number_is_an_error(tmp_path):
    save_file(PRIOR, tmp_path / "prior.safetensors", {"num_heads": "many"})
    assert_refused(read_prior, tmp_path / "prior.safetensors", "as num_heads in its metadata, got 'many'")


def without(*keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in PRIOR.items() if key not in keys}


def spoiled(value: float) -> Tensor:
    weight = PRIOR["layers.1.feed_forward.w2.weight"].clone()
    weight[5, 7] = value
    return weight


W2 = "layers.1.feed_forward.w2.weight"


@pytest.mark.parametrize("state, messages", [
    (without(W2), ["expected 44 tensors, got 43", f"1 missing: {W2}"]),
    (without("x_embedder.weight"), ["expected a tensor x_embedder.weight, got none"]),
    (without("layers.0.feed_forward.w1.weight"), ["expected a tensor layers.0.feed_forward.w1.weight, got"]),
    (without("final_layer.linear.weight"), ["1 missing: final_layer.linear.weight"]),
    (without(*[key for key in PRIOR if key.startswith("layers.0.attention")]), ["10 missing:", "and 6 more"]),
    (PRIOR | {"y_embedder.weight": torch.ones(2)}, ["1 unknown: y_embedder.weight"]),
    (PRIOR | {"module.x": torch.ones(2)}, ["1 unknown: module.x"]),
    (PRIOR | {"layers.7.attention.wq.weight": torch.ones(64, 64)}, ["missing: layers.2", "unknown: layers"]),
    (PRIOR | {W2: torch.ones(64, 255)}, [f"{W2} of shape [64, 256]", "got [64, 255]"]),
    (PRIOR | {"t_embedder.mlp.2.bias": torch.ones(64, 1)}, ["of shape [64] to fit", "got [64, 1]"]),
    (PRIOR | {"x_embedder.weight": torch.ones(64)}, ["x_embedder.weight to be a matrix, got shape [64]"]),
    (PRIOR | {"x_embedder.weight": torch.ones(64, 0)}, ["to be a matrix, got shape [64, 0]"]),
    (PRIOR | {W2: spoiled(float("nan"))}, [W2, "NaN or infinite"]),
    (PRIOR | {W2: spoiled(float("-inf"))}, [W2, "NaN or infinite"]),
    (PRIOR | {W2: torch.full((64, 256), 1e300, dtype=torch.float64)}, [W2, "NaN or infinite"]),
    (PRIOR | {W2: torch.full((64, 256), float("nan")).to(torch.float8_e4m3fn)}, [W2, "NaN or infinite"]),
    (PRIOR | {W2: torch.ones(64, 256, dtype=torch.int8)}, [f"floating-point weights in {W2}, got"]),
    (PRIOR | {W2: torch.ones(64, 256, dtype=torch.complex64)}, [W2, "got torch.complex64"]),
])
def test_an_incomplete_or_damaged_prior_is_refused_by_key(tmp_path, state, messages):
    for path in (write_prior(tmp_path, state), tmp_path / "prior.safetensors"):
        if path.suffix == ".safetensors":
            save_file(state, path)
        assert_refused(read_prior, path, *messages, num_heads=4)
        assert_refused(load_prior, path, num_heads=4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_keep_their_type(tmp_path, dtype):
    path = write_prior(tmp_path, {key: value.to(dtype) for key, value in PRIOR.items()}, CFG_YAML)
    assert {value.dtype for value in read_prior(path)[1].values()} == {dtype}
    assert {value.dtype for value in load_prior(path).parameters()} == {dtype}


def test_double_precision_is_narrowed(tmp_path):
    path = write_prior(tmp_path, {key: value.double() for key, value in PRIOR.items()}, CFG_YAML)
    assert {value.dtype for value in read_prior(path)[1].values()} == {torch.float32}
    assert_is_the_prior(load_prior(path))


def test_mixed_types_stay_in_the_state_and_run_in_the_module(tmp_path):
    path = write_prior(tmp_path, PRIOR | {W2: PRIOR[W2].bfloat16()}, CFG_YAML)
    assert read_prior(path)[1][W2].dtype == torch.bfloat16
    prior = load_prior(path)
    assert {value.dtype for value in prior.parameters()} == {torch.float32}
    assert prior(torch.ones(1, 16, 48), torch.ones(1), torch.ones(1, 16, 48)).isfinite().all()


def test_a_loaded_prior_can_be_trained_and_leaves_its_file_alone(tmp_path):
    path = write_prior(tmp_path, cfg=CFG_YAML)
    before = path.read_bytes()
    prior = load_prior(path).train()
    prior(torch.ones(1, 16, 48), torch.ones(1), torch.ones(1, 16, 48)).sum().backward()
    with torch.no_grad():
        prior.x_embedder.weight -= 0.1 * prior.x_embedder.weight.grad
    assert not torch.equal(prior.x_embedder.weight, PRIOR["x_embedder.weight"])
    assert path.read_bytes() == before


def keys_of(*names: str) -> dict[str, Tensor]:
    return {name: torch.ones(2, 2) for name in names}


FOREIGN = [
    (keys_of("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight"), "a LoRA",
     "models/loras"),
    (keys_of("lora_unet_down_blocks_1_attn2_to_q.lora_down.weight"), "a LoRA", "models/loras"),
    (keys_of("unet.mid_block.attn1.to_q.lora_A.weight"), "a LoRA", "models/loras"),
    (keys_of("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight",
             "conditioner.embedders.1.model.ln_final.weight"), "a complete SDXL model", "models/checkpoints"),
    (keys_of("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight",
             "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"),
     "a complete Stable Diffusion model", "models/checkpoints"),
    (keys_of("down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"), "a diffusion model",
     "models/diffusion_models"),
    (keys_of("control_model.input_blocks.0.0.weight"), "a ControlNet", "models/controlnet"),
    (keys_of("encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"), "a VAE",
     "models/vae"),
    (keys_of("vision_model.embeddings.class_embedding", "vision_model.encoder.layers.0.mlp.fc1.weight",
             "visual_projection.weight"), "a CLIP vision encoder", "models/clip_vision"),
    (keys_of("text_model.encoder.layers.0.mlp.fc1.weight"), "a text encoder", "models/text_encoders"),
    (keys_of("encoder.block.0.layer.0.SelfAttention.q.weight"), "a text encoder", "models/text_encoders"),
    ({"tensor": torch.ones(16, 2048)}, "an edit direction", "models/ip_directions"),
    ({"tensor": torch.ones(257, 1280)}, "an edit direction", "models/ip_directions"),
    (keys_of("image_proj.proj.weight", "image_proj.norm.weight", "ip_adapter.1.to_k_ip.weight"),
     "a basic IP-Adapter: 4 tokens from a linear projection", "Use the -plus file"),
    (keys_of("image_proj.proj.0.weight", "image_proj.proj.2.weight", "ip_adapter.1.to_k_ip.weight"),
     "with a two-layer projection", "Use the -plus file"),
    (keys_of("image_proj.proj.0.weight", "ip_adapter.0.to_q_lora.down.weight", "ip_adapter.1.to_k_ip.weight"),
     "a FaceID IP-Adapter", "Use the -plus file"),
    (keys_of("a", "b", "c", "d", "e", "f"), "with the keys a, b, c, d and 2 more", "published file"),
]


@pytest.mark.parametrize("load, wanted", [
    (load_prior, "an IP-Prior"), (load_ip_adapter, "an IP-Adapter-plus"),
])
@pytest.mark.parametrize("state, what, advice", FOREIGN, ids=[what for _, what, _ in FOREIGN])
def test_other_peoples_files_are_named(tmp_path, state, what, advice, load, wanted):
    save_file(state, tmp_path / "file.safetensors")
    assert_refused(load, tmp_path / "file.safetensors", f"expected {wanted}, got ", what, advice)


@pytest.mark.parametrize("load", [load_prior, load_ip_adapter])
def test_the_published_lora_is_named(golden, tmp_path, load):
    save_file(keys_of(*golden.facts("ip_lora_full_keys")["keys"]), tmp_path / "file.safetensors")
    assert_refused(load, tmp_path / "file.safetensors", "got a LoRA", "models/loras")


def test_a_direction_as_a_bare_tensor_is_named(tmp_path):
    torch.save(torch.ones(16, 2048).half(), tmp_path / "ip_direction.pt")
    assert_refused(load_prior, tmp_path / "ip_direction.pt", "got an edit direction", "models/ip_directions")
