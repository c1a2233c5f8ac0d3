"""The creature models where ComfyUI copies them: stock Train LoRA, deep clones, and hooks."""

import pytest
import torch

from tests.comfyui.nodes.graphs import node

# SDXL and SD 1.5 have no such weights, and ComfyUI leaves them as it finds the memory.
UNUSED = {"clip_l.transformer.text_projection.weight"}


def sampled(inside, model, words):
    noise = torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(3))
    return inside.comfy("sample").sample(
        model, noise, 2, 2.0, "euler", "normal", words, words, torch.zeros_like(noise), disable_pbar=True,
        seed=0,
    )


def finished(lab, graph):
    result = lab.queue(graph)
    assert result.status == "success", result.error
    return result


@pytest.fixture
def patchers(shipped, creature_sd15):
    return {
        "MODEL": shipped[0], "CLIP": shipped[1].patcher, "VAE": shipped[2].patcher,
        "MODEL like SD 1.5": creature_sd15[0], "CLIP like SD 1.5": creature_sd15[1].patcher,
    }


@pytest.fixture(autouse=True)
def unloaded(inside):
    """Loaded models hold the patches of a clone in the weights that they share with the others."""
    yield
    inside.comfy("model_management").unload_all_models()


@pytest.mark.parametrize("kind", ["MODEL", "CLIP", "VAE", "MODEL like SD 1.5", "CLIP like SD 1.5"])
def test_deep_clones_have_the_same_weights_in_memory_of_their_own(patchers, kind):
    given = patchers[kind]
    for copy in (given.deepclone_multigpu(), given.clone(force_deepcopy=True)):
        before, after = given.model_state_dict(), copy.model_state_dict()
        assert before.keys() == after.keys()
        different = {key for key in before if not torch.equal(before[key], after[key])}
        assert different <= UNUSED
        places = [{value.data_ptr() for value in state.values()} for state in (before, after)]
        assert not (places[0] & places[1]) - {0} and copy.model is not given.model


@pytest.mark.parametrize("kind", ["MODEL", "CLIP", "MODEL like SD 1.5", "CLIP like SD 1.5"])
def test_the_factory_keeps_a_copy_whole_where_comfyui_asks_for_it(inside, patchers, kind, monkeypatch):
    class PieceByPiece(inside.comfy("model_patcher").ModelPatcher):
        pass

    monkeypatch.setattr(inside.comfy("model_patcher"), "CoreModelPatcher", PieceByPiece)
    make, given = patchers[kind].cached_patcher_init
    assert type(make(*given)) is PieceByPiece
    assert type(make(*given, disable_dynamic=True)) is inside.comfy("model_patcher").ModelPatcher


def test_a_deep_clone_draws_the_same(inside, shipped):
    with torch.inference_mode():
        words = shipped[1].encode_from_tokens_scheduled(shipped[1].tokenize("a creature"))
        tokens = inside.tokens(1, width=shipped[4].token_dim)
        model = inside.apply(shipped[0], shipped[4], tokens)
        copies = model, model.clone(force_deepcopy=True), model.deepclone_multigpu()
        drawn = [sampled(inside, each, words) for each in copies]
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    assert drawn[0].std() > 0.01


def base_graph(loader: str) -> dict:
    return {
        "models": node(loader),
        "words": node("CLIPTextEncode", clip=["models", 1], text="a creature"),
        "picture": node("EmptyImage", width=256, height=256, batch_size=1, color=0xff8000),
        "latent": node("VAEEncode", pixels=["picture", 0], vae=["models", 2]),
    }


@pytest.mark.parametrize("loader", ["PiT_LoadCreatureModels", "PiT_LoadCreatureSD15"])
def test_stock_train_lora_trains_the_creature_models(lab, loader):
    train = node(
        "TrainLoraNode", model=["models", 0], latents=["latent", 0], positive=["words", 0], batch_size=1,
        grad_accumulation_steps=1, steps=2, learning_rate=0.01, rank=2, optimizer="AdamW",
        loss_function="MSE", seed=0, training_dtype="fp32", lora_dtype="fp32", quantized_backward=False,
        algorithm="LoRA", gradient_checkpointing=False, checkpoint_depth=1, offloading=False,
        existing_lora="[None]", bucket_mode=False, bypass_mode=False,
    )
    save = node("SaveLoRA", lora=["train", 0], prefix=f"loras/{loader}", steps=["train", 2])
    finished(lab, base_graph(loader) | {"train": train, "save": save})
    assert list((lab.base / "output" / "loras").glob(f"{loader}*.safetensors"))


def test_a_lora_hook_does_what_the_lora_does(inside, shipped):
    model, clip = shipped[:2]
    generator = torch.Generator().manual_seed(0)
    key = next(key for key in model.model_state_dict() if key.endswith("attn1.to_q.weight"))
    width = model.model_state_dict()[key].shape[0]
    name = "lora_unet_" + key.removeprefix("diffusion_model.").removesuffix(".weight").replace(".", "_")
    lora = {
        f"{name}.lora_down.weight": torch.randn(2, width, generator=generator),
        f"{name}.lora_up.weight": torch.randn(width, 2, generator=generator),
    }
    hooks = inside.comfy("hooks")
    with torch.inference_mode():
        words = clip.encode_from_tokens_scheduled(clip.tokenize("a creature"))
        hooked = hooks.set_hooks_for_conditioning(words, hooks.create_hook_lora(lora, 1.0, 0.0))
        patched, _ = inside.comfy("sd").load_lora_for_models(model, None, lora, 1.0, 0.0)
        plain, by_hook, by_patch = (
            sampled(inside, *each) for each in ((model, words), (model, hooked), (patched, words))
        )
    assert (by_hook - by_patch).abs().max() < 1e-4 * by_patch.abs().max()
    assert (by_hook - plain).abs().max() > 1e-2 * plain.abs().max()
