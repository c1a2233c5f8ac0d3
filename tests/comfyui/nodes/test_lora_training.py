"""Train IP-LoRA in a real ComfyUI, on the creature models: from pictures to a LoRA, and Cancel."""

import json
import random

import pytest
import torch

from pit.demo.datasets import write_scene_dataset
from pit.piece_it_together.ip_lora.image_prompt import unet_of_sizes
from tests.comfyui.nodes.graphs import node
from tests.comfyui.nodes.test_training import executed, progress_of, run

SETTINGS = {
    "folder": "input/lora_pictures", "captions": "captions as they are", "preset": "published", "steps": 4,
    "rank": 2, "learning_rate": 1e-3, "size": 64, "save_every": 2, "seed": 0, "accumulation": 1,
}


@pytest.fixture
def train(inside, shipped):
    """Runs the node as ComfyUI does, in inference mode; returns its outputs."""
    write_scene_dataset(inside.base / "input" / "lora_pictures", 4, 0)

    def run_node(name, **changes):
        model, clip, vae, clip_vision, ip_adapter = shipped[:5]
        with torch.inference_mode():
            try:
                return inside.nodes("train_ip_lora").TrainIPLora.execute(
                    model, clip, vae, clip_vision, ip_adapter, name=name, **SETTINGS | changes
                ).args
            finally:
                assert torch.is_inference_mode_enabled()

    return run_node


def lora_file(inside, name):
    return inside.base / "models" / "loras" / name / "ip_lora.safetensors"


def state_of(inside, name):
    return inside.comfy("utils").load_torch_file(str(lora_file(inside, name)))


def creature_graph(name, **changes):
    """Trained on creatures, and drawn with."""
    models = ["models", 0], ["models", 1], ["models", 2]
    return {
        "models": node("PiT_LoadCreatureModels"),
        "train": node(
            "PiT_TrainIPLora", model=models[0], clip=models[1], vae=models[2], clip_vision=["models", 3],
            ip_adapter=["models", 4], name=name, **SETTINGS | changes,
        ),
        "words": node("CLIPTextEncode", clip=models[1], text="a creature in a night meadow"),
        "latent": node("EmptyLatentImage", width=256, height=256, batch_size=1),
        "sampler": node(
            "KSampler", model=["apply", 0], positive=["words", 0], negative=["words", 0],
            latent_image=["latent", 0], seed=0, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal",
            denoise=1.0,
        ),
        "parts": node(
            "PiT_EncodeImage", clip_vision=["models", 3], ip_adapter=["models", 4], image=["blank", 0],
        ),
        "blank": node("EmptyImage", width=64, height=64, batch_size=1, color=0xff0000),
        "apply": node(
            "PiT_ApplyTokens", model=["train", 0], ip_adapter=["models", 4], tokens=["parts", 0], weight=1.0,
            start=0.0, end=1.0, negative="same tokens",
        ),
        "decoded": node("VAEDecode", samples=["sampler", 0], vae=models[2]),
        "save": node("SaveImage", images=["decoded", 0], filename_prefix="lora"),
    }


def test_a_graph_trains_and_draws(lab):
    write_scene_dataset(lab.base / "input" / "lora_pictures", 4, 0)
    result = run(lab, creature_graph("first"))
    assert progress_of(result, "train")[-1] == 4
    folder = lab.base / "models" / "loras" / "first"
    assert {path.name for path in folder.iterdir()} >= {"ip_lora.safetensors", "run.json", "metrics.csv"}
    options = lab.object_info()["PiT_ApplyIPLora"]["input"]["required"]["file"][1]["options"]
    assert "first/ip_lora.safetensors" in options
    again = run(lab, creature_graph("first", steps=6))
    assert "train" in executed(again) and progress_of(again, "train")[-2:] == [5, 6]


def test_the_stock_loader_opens_what_was_trained(inside, shipped, train, caplog):
    model, _ = train("stock")
    state = state_of(inside, "stock")
    patched, _ = inside.comfy("sd").load_lora_for_models(shipped[0], None, state, 1.0, 0)
    assert "lora key not loaded" not in caplog.text
    ours = {key: patch[0][1].weights[0] for key, patch in model.patches.items()}
    theirs = {key: patch[0][1].weights[0] for key, patch in patched.patches.items()}
    assert ours.keys() == theirs.keys() and len(ours) == 80
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_noise_is_that_of_the_model_under_the_patches_of_others(inside, shipped, creature_sd15):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    tiny, patch = inside.tiny.tiny_sdxl(), ModelSamplingDiscrete().patch
    schedule = inside.pack("nodes.bridge.noise").trained_schedule
    for model, prediction, zero_snr in (
        (shipped[0], "v_prediction", True), (creature_sd15[0], "epsilon", False), (tiny, "epsilon", False),
        (patch(tiny, "v_prediction", False)[0], "v_prediction", False),
        (patch(tiny, "v_prediction", True)[0], "v_prediction", True),
    ):
        config = schedule(model).config
        assert (config.prediction_type, config.rescale_betas_zero_snr) == (prediction, zero_snr)
        sigmas, kept = model.get_model_object("model_sampling").sigmas, schedule(model).alphas_cumprod
        assert ((1 - kept) / kept).sqrt()[:-1].allclose(sigmas[:-1], rtol=1e-4)


def test_batch_and_accumulation_are_those_of_the_preset_unless_given(inside, train):
    recipes = []
    for name, changes in (("preset", {"accumulation": 0}), ("given", {"batch": 3, "accumulation": 1})):
        train(name, steps=1, **changes)
        recipes.append(json.loads((lora_file(inside, name).parent / "run.json").read_text())["recipe"])
    assert [(each["batch"], each["accumulation"]) for each in recipes] == [(2, 8), (3, 1)]


def test_the_trained_model_draws_as_the_trainer_does(inside, shipped, train):
    """The UNet of diffusers with the additions, and ComfyUI's with the file, predict the same."""
    model, _ = train("parity", learning_rate=1e-2, on_adapter=True)
    lora_training, adapter = inside.nodes("train_ip_lora"), shipped[4]
    lora = inside.pack("pit.files.lora").read_lora(lora_file(inside, "parity"))
    twin = lora_training.image_prompt_unet(shipped[0], adapter, torch.float32)
    names = inside.engine("ip_lora.image_prompt").crossing_names(twin.unet)
    inside.pack("pit.files.lora").merge_lora(twin.unet, lora)
    for number, name in enumerate(names):
        for kind in "kv":
            module = f"lora_unet_{name.replace('.', '_')}_to_{kind}_ip"
            down, up = (lora.adapter[f"{module}.lora_{half}.weight"] for half in ("down", "up"))
            getattr(twin.image[number], f"to_{kind}").weight.data += up @ down
    generator = torch.Generator().manual_seed(0)
    latents, context = (torch.randn(2, *shape, generator=generator) for shape in ((12, 16, 16), (77, 64)))
    pooled, tokens = (torch.randn(2, *shape, generator=generator) for shape in ((32,), (16, 64)))
    time_ids = torch.tensor([[256.0, 256, 0, 0, 256, 256]]).expand(2, -1)
    given = inside.concepts("tokens").Tokens(tokens, tokens[:1], source="a test")
    patched = inside.apply(model, adapter, given)
    management = inside.comfy("model_management")
    management.load_models_gpu([patched, *patched.model_patches_models()])
    embed = inside.comfy("ldm.modules.diffusionmodules.openaimodel").timestep_embedding
    sizes = embed(time_ids.flatten(), 256).view(2, -1)
    times = torch.tensor([100.0, 700.0])
    with torch.inference_mode():
        expected = twin(latents, times, context, pooled, time_ids, tokens)
        options = inside.transformer_options(patched, latents, (0,))
        found = patched.model.diffusion_model(
            latents, times, context, torch.cat([pooled, sizes], dim=1), transformer_options=options
        )
    management.unload_all_models()
    # ComfyUI works the additions into weights in half precision.
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_cancel_stops_at_the_next_step_and_going_on_is_as_never_having_stopped(inside, train):
    management, utils = inside.comfy("model_management"), inside.comfy("utils")

    def cancel(value, total, preview, **_):
        if (value, total) == (2, 5):  # not the bar of the four pictures that are encoded first
            management.interrupt_current_processing()

    utils.set_progress_bar_global_hook(cancel)
    try:
        with pytest.raises(management.InterruptProcessingException):
            train("stopped", steps=5)
    finally:
        utils.set_progress_bar_global_hook(None)
    folder = inside.base / "models" / "loras" / "stopped" / "checkpoints"
    assert max(path.name for path in folder.iterdir()) == "step_00000002"
    train("stopped", steps=5)
    train("whole", steps=5)
    stopped, whole = state_of(inside, "stopped"), state_of(inside, "whole")
    assert stopped.keys() == whole.keys()
    assert all(torch.equal(stopped[key], whole[key]) for key in whole)


def test_samples_are_shown_while_it_trains(inside, train, cancel_at):
    seen = cancel_at(None)
    train("shown")
    pictures = [shown[1] for _, _, shown in seen if shown]
    assert pictures and pictures[-1].mode == "RGB" and pictures[0].height > 400


def test_sizes_of_sdxl_come_out_as_published(inside):
    from pit.training.stable_diffusion import CONFIGS
    from tests.comfyui.nodes.test_layer_map import SDXL

    found = unet_of_sizes(SDXL).config
    published = json.loads((CONFIGS / "unet" / "config.json").read_text())
    for key, value in published.items():
        if key not in ("_class_name", "sample_size"):
            assert list(found[key]) == value if isinstance(value, list) else found[key] == value, key


@pytest.mark.parametrize("change", [
    {"num_head_channels": -1}, {"adm_in_channels": None}, {"transformer_depth_middle": 1},
])
def test_a_model_of_another_kind_is_refused(change):
    from tests.comfyui.nodes.test_layer_map import SDXL

    with pytest.raises(ValueError, match="Expected a model of SDXL's kind"):
        unet_of_sizes(SDXL | change)


@pytest.mark.parametrize("name", ["../out", "", "/etc"])
def test_a_name_that_leads_out_is_refused(train, name):
    with pytest.raises(ValueError, match="Expected a plain name"):
        train(name)


def test_a_folder_without_samples_says_what_was_expected(inside, train):
    (inside.base / "input" / f"empty{random.random()}").mkdir()
    folder = next(path.name for path in (inside.base / "input").iterdir() if path.name.startswith("empty"))
    with pytest.raises(ValueError, match="Expected targets/NAME.png"):
        train("nothing", folder=f"input/{folder}")
    train_lora = inside.nodes("train_ip_lora").TrainIPLora
    refusal = train_lora.validate_inputs("input/x")
    assert refusal.startswith("Train IP-LoRA expected a folder ") and "got 'input/x'" in refusal


def test_the_text_encoders_are_known_by_their_patches_loaded_or_not(inside, shipped):
    """As Load LoRA leaves them: what they encode is another thing."""
    stamp, management = inside.nodes("train_ip_lora").patched_weights_of, inside.comfy("model_management")
    plain = shipped[1].patcher
    key = next(key for key, weight in plain.model_state_dict().items() if weight.ndim == 2)

    def patched(strength):
        clone = plain.clone()
        difference = torch.ones_like(plain.model_state_dict()[key])
        clone.add_patches({key: ("diff", (difference,))}, strength)
        return clone

    first, second = patched(0.5), patched(0.25)
    with torch.inference_mode():
        stamps = [stamp(each) for each in (plain, first, second)]
        management.load_models_gpu([first])
        loaded = [stamp(each) for each in (plain, first, second)]
        management.unload_all_models()
    assert loaded == stamps and len(set(stamps)) == 3
    assert stamps[0] == inside.nodes("train_ip_lora").weights_of(plain)  # as runs of 0.5.0 have it
