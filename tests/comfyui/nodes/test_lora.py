"""Apply IP-LoRA: every layout by its effect, against diffusers with PEFT, and what it refuses."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.nodes.published import key_value_state, resampler_state
from tests.comfyui.nodes.test_layer_map import diffusers_twin

RANK, ALPHA, WEIGHT = 4, 6, 0.7
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def unet_keys(inside):
    """diffusers' names of the layers that an IP-LoRA changes, with the shapes of their weights."""
    names = inside.comfy("utils").unet_to_diffusers(inside.tiny.UNET)
    state = inside.tiny.tiny_sdxl().model.diffusion_model.state_dict()
    return {
        name.removesuffix(".weight"): state[key].shape for name, key in names.items()
        if ".attn" in name and name.removesuffix(".weight").endswith(tuple(TARGETS))
    }


def factors(shapes, seed=21):
    """Random factors for each of the modules, strong enough to show."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(RANK, columns, generator=generator) / columns**0.5,
               torch.randn(rows, RANK, generator=generator) / 8)
        for name, (rows, columns) in shapes.items()
    }


def peft_layout(given):
    state = {}
    for name, (down, up) in given.items():
        state |= {f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}
    return state


def kohya_layout(given, to_ldm=None):
    state = {}
    for name, (down, up) in given.items():
        module = "lora_unet_" + (name if to_ldm is None else to_ldm[name]).replace(".", "_")
        state |= {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up,
                  f"{module}.alpha": torch.tensor(float(ALPHA))}
    return state


def processor_layout(given):
    state = {}
    for name, (down, up) in given.items():
        head, _, last = name.removesuffix(".0").rpartition(".")
        state |= {f"unet.{head}.processor.{last}_lora.down.weight": down,
                  f"unet.{head}.processor.{last}_lora.up.weight": up}
    return state


def dotted_layout(given, to_ldm):
    state = {}
    for name, (down, up) in given.items():
        module = f"diffusion_model.{to_ldm[name]}"
        state |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up,
                  f"{module}.alpha": torch.tensor(float(ALPHA))}
    return state


def saved(path, state, alpha=None):
    """A file; diffusers writes PEFT's settings into its metadata."""
    metadata = None if alpha is None else {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": alpha})}
    save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
    return path


def applied(inside, model, path, strength=1.0, blocks=""):
    node = inside.nodes("ip_lora")
    lora = inside.pack("pit.files.lora").read_lora(path)
    return node.apply_ip_lora(model, lora, path.name, strength, node.parse_block_strengths(blocks))


def predicted(inside, model, images=2, branches=(0,)):
    """What the model says with its weights patched, as in sampling."""
    management = inside.comfy("model_management")
    management.load_models_gpu([model, *model.model_patches_models()])
    try:
        return inside.predict(model, images, branches)
    finally:
        management.unload_all_models()


def twin_with_adapter(inside, weights):
    """diffusers' UNet with the weights of an IP-Adapter."""
    diffusers = pytest.importorskip("diffusers")
    twin = diffusers_twin(diffusers, inside, inside.tiny.tiny_sdxl().model.diffusion_model)
    twin._load_ip_adapter_weights([{"image_proj": resampler_state(), "ip_adapter": weights}])
    for processor in twin.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [WEIGHT]
    return twin


def twin_prediction(inside, twin, features):
    """What diffusers says to the inputs of `Inside.predict` with two images and one branch."""
    latents, times, context, _ = inside.unet_inputs(2, (0,))
    with torch.inference_mode():
        return twin(latents, times, context, added_cond_kwargs={
            "text_embeds": inside.tiny.conditioning(2)[0][1]["pooled_output"].expand(2, -1),
            "time_ids": torch.tensor([[128, 128, 0, 0, 128, 128]]).expand(2, -1),
            "image_embeds": [features[:, None]],
        }).sample


@pytest.fixture(scope="module")
def reference(inside, unet_keys):
    """diffusers' UNet with an IP-Adapter and, by PEFT, a LoRA; and what it says."""
    peft = pytest.importorskip("peft")
    twin = twin_with_adapter(inside, key_value_state())
    pattern = rf".*transformer_blocks.*({'|'.join(TARGETS)})"
    twin.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=pattern))
    given = factors(unet_keys)
    peft.set_peft_model_state_dict(twin, {
        key.removeprefix("unet."): value for key, value in peft_layout(given).items()
    })
    features = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(5))
    return twin, given, features, twin_prediction(inside, twin, features)


def rendering(inside, model, features):
    """The model with the tokens of features applied."""
    adapter = inside.ip_adapter()
    with torch.inference_mode():
        values = adapter.resampler.model(features)
    tokens = inside.concepts("tokens").Tokens(values, values[:1], source="a test")
    return inside.apply(model, adapter, tokens, WEIGHT)


def assert_same(found, expected):
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_what_diffusers_saves_gives_what_diffusers_predicts(inside, model, reference, tmp_path):
    import diffusers
    import peft

    twin, _, features, expected = reference
    diffusers.StableDiffusionXLPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=peft.get_peft_model_state_dict(twin),
        unet_lora_adapter_metadata={"r": RANK, "lora_alpha": ALPHA},
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    patched, report = applied(inside, rendering(inside, model, features), path)
    assert "136 of 136 modules matched" in report
    assert_same(predicted(inside, patched), expected)
    before = predicted(inside, rendering(inside, model, features))
    assert (before - expected).abs().max() > 1e-2 * expected.abs().max()


def test_every_layout_gives_what_diffusers_predicts(inside, model, reference, unet_keys, tmp_path):
    _, given, features, expected = reference
    names = inside.comfy("utils").unet_to_diffusers(inside.tiny.UNET)
    to_ldm = {name: names[f"{name}.weight"].removesuffix(".weight") for name in given}
    published = {
        key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"): value
        for key, value in peft_layout(given).items()
    }
    files = {
        "published": (published, ALPHA), "peft": (peft_layout(given), ALPHA),
        "processors": (processor_layout(given), ALPHA), "kohya": (kohya_layout(given), None),
        "kohya, original names": (kohya_layout(given, to_ldm), None),
        "dotted": (dotted_layout(given, to_ldm), None),
    }
    for name, (state, alpha) in files.items():
        path = saved(tmp_path / f"{name}.safetensors", state, alpha)
        patched, report = applied(inside, rendering(inside, model, features), path)
        assert "136 of 136" in report, name
        assert_same(predicted(inside, patched), expected)


def test_a_peft_folder_brings_its_settings(inside, model, reference, tmp_path):
    _, given, features, expected = reference
    path = saved(tmp_path / "adapter_model.safetensors", {
        f"base_model.model.{key.removeprefix('unet.')}": value for key, value in peft_layout(given).items()
    })
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA, "r": RANK}))
    patched, _ = applied(inside, rendering(inside, model, features), path)
    assert_same(predicted(inside, patched), expected)


@pytest.fixture(scope="module")
def adapter_factors(unet_keys):
    """Factors for the adapter's own projections."""
    shapes = {
        f"{name}_ip": (shape[0], 96) for name, shape in unet_keys.items()
        if ".attn2.to_k" in name or ".attn2.to_v" in name
    }
    return factors(shapes, 22)


@pytest.mark.parametrize("first", ["tokens", "lora"])
def test_the_part_for_the_adapter_reaches_it_in_any_order(
    inside, model, reference, adapter_factors, tmp_path, first
):
    """The same as an adapter whose weights have it worked in."""
    _, given, features, _ = reference
    path = saved(tmp_path / "lora.safetensors", peft_layout(given | adapter_factors))
    if first == "tokens":
        patched, report = applied(inside, rendering(inside, model, features), path)
    else:
        lora, report = applied(inside, model, path)
        patched = rendering(inside, lora, features)
    assert "of the IP-Adapter 34 of 34 modules matched" in report

    weights = key_value_state()
    names = [name for name in reference[0].attn_processors if "attn2" in name]
    for number, name in enumerate(names):
        for kind in "kv":
            down, up = adapter_factors[f"{name.removesuffix('.processor')}.to_{kind}_ip"]
            weights[f"{2 * number + 1}.to_{kind}_ip.weight"] += up @ down
    twin = twin_with_adapter(inside, weights)
    state = twin.state_dict()
    for name, (down, up) in given.items():
        state[f"{name}.weight"] += up @ down
    assert_same(predicted(inside, patched), twin_prediction(inside, twin, features))


@pytest.mark.parametrize("naming", [
    "diffusion_model.{ldm}_ip", "model.diffusion_model.{ldm}_ip", "{ldm}_ip", "lora_unet_{flat_ldm}_ip",
    "lora_unet_{flat}_ip", "lycoris_{flat}_ip", "unet.{path}_ip", "unet.{attention}.processor.{last}_ip",
    "base_model.model.{attention}.processor.{last}_ip.0", "lora_unet_{flat_attention}_processor_{last}_ip",
    "{number}.{last}_ip", "ip_adapter.{number}.{last}_ip", "adapter_modules.{number}.{last}_ip",
])
def test_a_lora_for_the_adapter_reaches_it_under_every_name(
    inside, model, reference, adapter_factors, tmp_path, naming
):
    names = inside.comfy("utils").unet_to_diffusers(inside.tiny.UNET)
    layers = [name.removesuffix(".processor") for name in reference[0].attn_processors if "attn2" in name]
    state, expected = {}, {}
    for path, (down, up) in adapter_factors.items():
        path = path.removesuffix("_ip")
        attention, _, last = path.rpartition(".")
        ldm, number = names[f"{path}.weight"].removesuffix(".weight"), layers.index(attention)
        name = naming.format(
            path=path, ldm=ldm, flat=path.replace(".", "_"), flat_ldm=ldm.replace(".", "_"), last=last,
            attention=attention, flat_attention=attention.replace(".", "_"), number=2 * number + 1,
        )
        state |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        expected[f"{number}.{last}.weight"] = up @ down
    path = saved(tmp_path / "lora.safetensors", state)
    _, report = applied(inside, model, path)
    assert "of the IP-Adapter 34 of 34 modules matched" in report
    nodes, lora = inside.pack("nodes.bridge.lora_patches"), inside.pack("pit.files.lora").read_lora(path)
    adapter = inside.ip_adapter().cross_attention.model
    patches, _ = nodes.patches_for(adapter, lora.adapter, nodes.adapter_weight_names(model), "a test")
    assert patches.keys() == expected.keys()
    for key, patch in patches.items():
        up, down = patch.weights[:2]
        assert torch.equal(up @ down, expected[key])


MODULE = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
ORIGINAL = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"


@pytest.mark.parametrize(("first", "second"), [
    (f"unet.{MODULE}", f"diffusion_model.{ORIGINAL}"), (f"unet.{MODULE}", ORIGINAL),
    (f"lora_unet_{MODULE.replace('.', '_')}", f"lora_unet_{ORIGINAL.replace('.', '_')}"),
    (f"lora_unet_{MODULE.replace('.', '_')}", f"lycoris_{MODULE.replace('.', '_')}"),
    (f"unet.{MODULE}_ip", f"diffusion_model.{ORIGINAL}_ip"), (f"unet.{MODULE}_ip", "ip_adapter.1.to_k_ip"),
])
@pytest.mark.parametrize("kinds", [("factors", "factors"), ("factors", "diff"), ("diff_b", "diff_b")])
def test_one_module_under_two_names_is_refused(inside, model, tmp_path, first, second, kinds):
    parts = {
        "factors": {"lora_A.weight": torch.ones(2, 96), "lora_B.weight": torch.ones(128, 2)},
        "diff": {"diff": torch.ones(128, 96)}, "diff_b": {"diff_b": torch.ones(128)},
    }
    state = {
        f"{name}.{part}": tensor.clone() for name, kind in zip((first, second), kinds, strict=True)
        for part, tensor in parts[kind].items()
    }
    convert = inside.pack("pit.files.lora").module_name
    with pytest.raises(ValueError, match="one change for each weight of the model, got two for ") as caught:
        applied(inside, model, saved(tmp_path / "twice.safetensors", state))
    message = str(caught.value)
    assert "twice.safetensors" in message and convert(first) in message and convert(second) in message


@pytest.mark.parametrize(("state", "message"), [
    ({"lora_te1_x.lora_down.weight": torch.ones(4, 8), "lora_te1_x.lora_up.weight": torch.ones(8, 4)},
     "for text encoders only"),
    ({"conv.weight": torch.ones(4, 4)}, "expected a LoRA for a UNet"),
    ({"lora_unet_x.lora_down.weight": torch.ones(4, 8), "lora_unet_x.lora_up.weight": torch.ones(8, 5)},
     r"parts that do not fit: lora_down.weight \[4, 8\], lora_up.weight \[8, 5\]"),
    ({"lora_unet_x.lora_down.weight": torch.ones(4, 8)}, "without its lora_up.weight"),
    ({}, "expected tensors, got none"),
])
def test_bad_files_are_refused(inside, tmp_path, state, message):
    checkpoints = inside.pack("pit.files.lora")
    with pytest.raises(checkpoints.WeightFileError, match=message):
        checkpoints.read_lora(saved(tmp_path / "bad.safetensors", state))


@pytest.mark.parametrize(("module", "message"), [
    ("lora_unet_x", "0 of 1 modules matched; not lora_unet_x. Connect the kind of model"),
    ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k",
     "Expected a LoRA for this model, .*attn2_to_k is .* got other.*, made for 1280 x 2048"),
])
def test_a_lora_for_another_model_is_refused(inside, model, tmp_path, module, message):
    down, up = torch.ones(4, 2048), torch.ones(1280, 4)
    state = {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}
    with pytest.raises(ValueError, match=message):
        applied(inside, model, saved(tmp_path / "other.safetensors", state))


@pytest.mark.parametrize("settings", ["[", "[1]", '{"lora_alpha": "x"}', '{"alpha_pattern": {"a": []}}'])
def test_damaged_settings_are_refused(inside, tmp_path, settings):
    checkpoints = inside.pack("pit.files.lora")
    path = tmp_path / "adapter_model.safetensors"
    save_file({"unet.mid_block.x.lora_A.weight": torch.ones(4, 8)}, path)
    (tmp_path / "adapter_config.json").write_text(settings)
    with pytest.raises(checkpoints.WeightFileError, match="in PEFT's settings|PEFT's settings of the LoRA"):
        checkpoints.read_lora(path)
    save_file({"unet.mid_block.x.lora_A.weight": torch.ones(4, 8)}, path, {"lora_adapter_metadata": settings})
    with pytest.raises(checkpoints.WeightFileError, match="in PEFT's settings|PEFT's settings of the LoRA"):
        checkpoints.read_lora(path)


def test_the_node_reads_from_the_lora_folders_alone(inside, model, reference, tmp_path, monkeypatch):
    folder_paths = inside.pack("nodes.bridge.folders").folder_paths
    _, given, _, _ = reference
    (tmp_path / "loras").mkdir()
    saved(tmp_path / "loras" / "sheet.safetensors", kohya_layout(given))
    saved(tmp_path / "secret.safetensors", kohya_layout(given))
    places = ([str(tmp_path / "loras")], folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", places)
    folder_paths.filename_list_cache.clear()
    node = inside.nodes("ip_lora").ApplyIPLora
    assert node.validate_inputs("sheet.safetensors") is True
    with pytest.raises(ValueError, match="Expected strengths of blocks .* got 'in=x'"):
        node.execute(model, "sheet.safetensors", 1.0, "in=x")
    result = node.execute(model, "sheet.safetensors", 1.0)
    assert "136 of 136 modules matched" in str(result.ui.as_dict())
    for name in ("../secret.safetensors", "absent.safetensors", str(tmp_path / "secret.safetensors")):
        assert "Apply IP-LoRA expected a file from " in node.validate_inputs(name)
        with pytest.raises(FileNotFoundError, match="python -m pit download ip-lora"):
            node.execute(model, name, 1.0)
    folder_paths.filename_list_cache.clear()


def test_the_prompt_node_writes_the_published_forms(inside):
    node, prompts = inside.nodes("ip_lora").IPLoraPrompt, inside.engine("ip_lora.prompts")
    assert node.execute({"mode": "character sheet"}).args == (prompts.CHARACTER_SHEET, "")
    assert node.execute({"mode": "scene", "scene": "a cave", "style": "ink"}).args == (
        "ink an imaginary fantasy creature in cave", "")
    assert node.execute({"mode": "free", "positive": "x", "negative": "y"}).args == ("x", "y")
