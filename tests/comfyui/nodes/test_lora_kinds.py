"""Apply IP-LoRA on every kind of file that ComfyUI's own loader understands, and on PEFT's DoRA."""

import math

import pytest
import torch

from tests.comfyui.nodes.test_lora import applied, saved

STRENGTH = 0.7


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def modules(inside):
    """diffusers' names of a few linear layers and a convolution, and the names of their weights here."""
    names = inside.comfy("utils").unet_to_diffusers(inside.tiny.UNET)
    chosen = [name for name in names if name.endswith("to_out.0.weight")][:3]
    chosen += [name for name in names if name.endswith("conv1.weight")][:1]
    return {name.removesuffix(".weight"): f"diffusion_model.{names[name]}" for name in chosen}


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.2


def lora(w):
    rows, columns = w.flatten(1).shape
    down = draws(4, columns).reshape(4, *w.shape[1:])
    up = draws(rows, 4).reshape(rows, 4, *[1] * (w.ndim - 2))
    return {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0)}


def loha(w):
    rows, columns = w.flatten(1).shape
    return {"hada_w1_a": draws(rows, 4), "hada_w1_b": draws(4, columns), "hada_w2_a": draws(rows, 3),
            "hada_w2_b": draws(3, columns), "alpha": torch.tensor(4.0)}


def lokr(w):
    return {"lokr_w1": draws(4, 4), "lokr_w2": draws(w.shape[0] // 4, w.shape[1] // 4, *w.shape[2:])}


def lokr_of_factors(w):
    rows, columns = w.shape[0] // 4, w.shape[1] // 4 * math.prod(w.shape[2:])
    return {"lokr_w1_a": draws(4, 2), "lokr_w1_b": draws(2, 4), "lokr_w2_a": draws(rows, 2),
            "lokr_w2_b": draws(2, columns), "alpha": torch.tensor(1.0)}


def glora(w):
    if w.ndim > 2:
        return lora(w)
    rows, columns = w.shape
    return {"a1.weight": draws(4, columns), "a2.weight": draws(columns, 4), "b1.weight": draws(4, columns),
            "b2.weight": draws(rows, 4)}


def boft(w):
    """With as many steps as the count of blocks allows."""
    count = w.shape[0] // 8
    return {"oft_blocks": draws(1 + (count % 2 == 0), count, 8, 8), "alpha": torch.tensor(0.0)}


def locon(w):
    if w.ndim == 2:
        return lora(w)
    rows, columns, *kernel = w.shape
    return {"lora_up.weight": draws(rows, 4, 1, 1), "lora_down.weight": draws(4, columns, 1, 1),
            "lora_mid.weight": draws(4, 4, *kernel)}


def loha_with_cores(w):
    if w.ndim == 2:
        return loha(w)
    rows, columns, *kernel = w.shape
    halves = ({f"hada_w{n}_a": draws(4, rows), f"hada_w{n}_b": draws(3, columns),
               f"hada_t{n}": draws(4, 3, *kernel)} for n in "12")
    return {part: tensor for half in halves for part, tensor in half.items()}


def lokr_with_a_core(w):
    if w.ndim == 2:
        return lokr_of_factors(w)
    rows, columns, *kernel = w.shape
    return {"lokr_w1": draws(4, 4), "lokr_w2_a": draws(2, rows // 4), "lokr_w2_b": draws(3, columns // 4),
            "lokr_t2": draws(2, 3, *kernel)}


def new_glora(w):
    rows, columns = w.shape[:2]
    return {"a1.weight": draws(columns, 4), "a2.weight": draws(4, columns), "b1.weight": draws(rows, 4),
            "b2.weight": draws(4, *w.shape[1:])}


def norms(w):
    return w.flatten(1).norm(dim=1).reshape(-1, *[1] * (w.ndim - 1))


KINDS = {
    "two factors": lora,
    "DoRA": lambda w: lora(w) | {"dora_scale": 1.5 * norms(w)},
    "DoRA by columns": lambda w: lora(w) | {"dora_scale": torch.ones(1, w.shape[1], *[1] * (w.ndim - 2))},
    "LoHa": loha,
    "LoHa, DoRA": lambda w: loha(w) | {"dora_scale": 1.5 * norms(w)},
    "LoKr": lokr,
    "LoKr of factors": lokr_of_factors,
    "GLoRA": glora,
    "GLoRA in its new order": new_glora,
    "two factors and a core": locon,
    "two factors, flattened": lambda w: {part: tensor.flatten(1) if tensor.ndim else tensor
                                         for part, tensor in lora(w).items()},
    "two factors and the shape of the weight": lambda w: lora(w) | {"reshape_weight": torch.tensor(w.shape)},
    "LoHa with cores": loha_with_cores,
    "LoKr, DoRA by columns": lambda w: lokr(w) | {
        "dora_scale": torch.ones(1, w.shape[1], *[1] * (w.ndim - 2))},
    "OFT with a rescale": lambda w: {
        "oft_blocks": draws(w.shape[0] // 8, 8, 8), "rescale": torch.ones_like(norms(w))},
    "OFT": lambda w: {"oft_blocks": draws(w.shape[0] // 8, 8, 8), "alpha": torch.tensor(0.0)},
    "BOFT": boft,
    "BOFT with a rescale": lambda w: boft(w) | {"rescale": 1.1 * torch.ones_like(norms(w))},
    "difference": lambda w: {"diff": draws(*w.shape), "diff_b": draws(w.shape[0])},
    "factors and a bias": lambda w: lora(w) | {"diff_b": draws(w.shape[0])},
    "norms": lambda w: {"w_norm": draws(*w.shape), "b_norm": draws(w.shape[0])},
    "set": lambda w: {"set_weight": draws(*w.shape)},
}


def file_of(make, modules, model, named="lora_unet_{}"):
    state = model.model.state_dict()
    return {
        f"{named.format(path.replace('.', '_'))}.{part}": tensor
        for path, key in modules.items() for part, tensor in make(state[key]).items()
    }


def effect(inside, patcher):
    """How much each weight changes."""
    calculate, utils = inside.comfy("lora").calculate_weight, inside.comfy("utils")
    found = {}
    for key, patch in patcher.patches.items():
        weight = utils.get_attr(patcher.model, key).detach()
        found[key] = calculate(patch, weight.clone(), key) - weight
    return found


def by_the_stock_loader(inside, model, path):
    loaded = inside.comfy("utils").load_torch_file(str(path))
    return effect(inside, inside.comfy("sd").load_lora_for_models(model, None, loaded, STRENGTH, 0.0)[0])


@pytest.mark.parametrize("named", ["lora_unet_{}", "lycoris_{}"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_applied_as_by_the_stock_loader(inside, model, modules, tmp_path, kind, named):
    path = saved(tmp_path / "lora.safetensors", file_of(KINDS[kind], modules, model, named))
    with torch.inference_mode():
        patched, report = applied(inside, model, path, STRENGTH)
        ours, stock = effect(inside, patched), by_the_stock_loader(inside, model, path)
    assert "4 of 4 modules matched" in report and ours.keys() == stock.keys()
    for key in stock:
        assert (ours[key] - stock[key]).abs().max() < 1e-6 < stock[key].abs().max(), key


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["two factors", "LoHa", "difference"])
def test_files_of_every_precision_are_applied_as_by_the_stock_loader(
    inside, model, modules, tmp_path, kind, dtype
):
    state = {
        key: tensor if key.endswith("alpha") else tensor.to(dtype)
        for key, tensor in file_of(KINDS[kind], modules, model).items()
    }
    path = saved(tmp_path / "lora.safetensors", state)
    with torch.inference_mode():
        ours = effect(inside, applied(inside, model, path, STRENGTH)[0])
        stock = by_the_stock_loader(inside, model, path)
    assert all((ours[key] - stock[key]).abs().max() < 1e-6 for key in stock) and ours.keys() == stock.keys()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("OFT", "BOFT", "LoKr")])
def test_every_kind_for_another_size_is_refused(inside, model, modules, tmp_path, kind):
    state = model.model.state_dict()
    made = {
        f"lora_unet_{path.replace('.', '_')}.{part}": tensor for path, key in modules.items()
        for part, tensor in KINDS[kind](torch.randn(state[key].shape[0] + 8, *state[key].shape[1:])).items()
    }
    with pytest.raises(ValueError, match="Expected a LoRA for this model, in which .* made for"):
        applied(inside, model, saved(tmp_path / "other.safetensors", made))


@pytest.mark.parametrize("kind", ["OFT", "BOFT", "LoKr"])
def test_every_kind_by_blocks_for_another_size_is_refused(inside, model, modules, tmp_path, kind):
    made = {
        f"lora_unet_{path.replace('.', '_')}.{part}": tensor for path in modules
        for part, tensor in (boft if kind == "BOFT" else KINDS[kind])(torch.randn(24, 24)).items()
    }
    size = "24 x 24" if kind == "LoKr" else "another size"
    with pytest.raises(ValueError, match=f"Expected a LoRA for this model, in which .* made for {size}"):
        applied(inside, model, saved(tmp_path / "other.safetensors", made))


def test_a_kind_that_comfyui_reads_and_then_skips_is_refused(inside, model, modules, tmp_path):
    path = saved(tmp_path / "core.safetensors", file_of(lokr_with_a_core, modules, model))
    with torch.inference_mode():
        changes = by_the_stock_loader(inside, model, path)
    skipped = [key for key, change in changes.items() if not change.any()]
    if not skipped:
        pytest.skip("this ComfyUI applies it")
    with pytest.raises(ValueError, match="Expected a kind of LoRA that this ComfyUI applies, got .*lokr_t2"):
        applied(inside, model, path)


def test_a_rescale_that_comfyui_does_not_apply_is_named(inside, model, modules, tmp_path):
    made = KINDS["OFT with a rescale"]
    state = file_of(lambda w: {part: 1.5 * tensor for part, tensor in made(w).items()}, modules, model)
    _, report = applied(inside, model, saved(tmp_path / "oft.safetensors", state))
    assert "4 of 8 modules matched; not lora_unet_" in report and ".rescale" in report


def test_a_module_with_nothing_but_an_alpha_is_not_counted(inside, model, modules, tmp_path):
    state = file_of(lora, modules, model)
    name = f"lora_unet_{next(iter(modules)).replace('.', '_')}"
    state = {key: value for key, value in state.items() if not key.startswith(name) or key.endswith("alpha")}
    _, report = applied(inside, model, saved(tmp_path / "alpha.safetensors", state))
    assert f"3 of 4 modules matched; not {name}" in report


def test_a_bias_that_the_model_does_not_have_is_named(inside, model, tmp_path):
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"
    parts = lora(torch.zeros(128, 128)) | {"diff_b": torch.ones(128)}
    state = {f"{module}.{part}": tensor for part, tensor in parts.items()}
    path = saved(tmp_path / "bias.safetensors", state)
    _, report = applied(inside, model, path)
    assert "not diffusion_model.middle_block" in report and "to_q.bias" in report


@pytest.fixture(scope="module")
def dora():
    """A linear layer and a convolution that PEFT has changed by DoRA, their weights before and after."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = torch.nn.ModuleDict({"a": torch.nn.Linear(12, 8, bias=False), "b": torch.nn.Conv2d(6, 8, 3)})
    before = {name: layer.weight.detach().clone() for name, layer in plain.items()}
    settings = peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=["a", "b"])
    model = peft.get_peft_model(plain, settings)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data += 0.3 * torch.rand_like(weight)
    parts = peft.get_peft_model_state_dict(model)
    merged = model.merge_and_unload()
    return before, parts, {name: merged[name].weight.detach() for name in before}


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_dora_of_peft_gives_the_weights_that_peft_merges(inside, dora, name):
    before, parts, after = dora
    convert = inside.pack("pit.files.lora").convert_lora
    patch = inside.pack("nodes.bridge.lora_patches").patches_for
    module = torch.nn.ModuleDict({"w": torch.nn.Module()})
    module["w"].weight = torch.nn.Parameter(before[name].clone())
    state = convert({
        f"unet.mid_block.x{key.removeprefix(f'base_model.model.{name}')}": tensor
        for key, tensor in parts.items() if key.startswith(f"base_model.model.{name}.")
    }) | {"lora_unet_mid_block_x.alpha": torch.tensor(6.0)}
    patches, matched = patch(module, state, {"lora_unet_mid_block_x": "w.weight"}, "a test")
    assert matched.found == 1 and len(state) == 4
    calculate = inside.comfy("lora").calculate_weight
    whole, half = (
        calculate([(strength, patches["w.weight"], 1.0, None, None)], before[name].clone(), "w.weight")
        for strength in (1.0, 0.5)
    )
    torch.testing.assert_close(whole, after[name], rtol=1e-5, atol=1e-6)
    # Where memory is short, ComfyUI makes a new patch from its parts.
    moved = inside.comfy("lora").prefetch_prepared_value(patches["w.weight"], [0], None, None, False)
    again = calculate([(1.0, moved, 1.0, None, None)], before[name].clone(), "w.weight")
    assert torch.equal(again, whole)
    torch.testing.assert_close(half, (before[name] + after[name]) / 2, rtol=1e-5, atol=1e-6)
    assert (after[name] - before[name]).abs().max() > 0.1
