"""A step of the training against the published one: its losses, its gradients, and what SDXL reads."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pit.partcraft.discovery import find_parts
from pit.partcraft.training.base import text_encoder
from pit.partcraft.training.painter import PartPainter
from pit.partcraft.training.recipes import PUBLISHED
from pit.partcraft.training.task import PartBatch, PartTask
from pit.partcraft.training.texts import Tokens
from pit.training.denoising import min_snr_weights, noise_schedule
from pit.training.recipes import RunSettings
from tests.golden import assert_equal, relative_error
from tests.partcraft.test_discovery import published_clusters
from tests.partcraft.test_files import ROUNDED, unet_of
from tests.partcraft.test_mapper import depths, mapper_of

CONFIG, IO, STATE = "partcraft_tiny_config", "partcraft_tiny_io", "partcraft_tiny_state"


def golden_encoder(golden, number):
    facts, prefix = golden.facts(CONFIG), "text_encoder." if number == 1 else "text_encoder_2."
    state = golden.below(STATE, prefix)
    return text_encoder({
        "vocab_size": len(state["text_model.embeddings.token_embedding.weight"]),
        "hidden_size": facts["dims"][number - 1], "num_hidden_layers": facts["text"]["layers"],
        "intermediate_size": len(state["text_model.encoder.layers.0.mlp.fc1.bias"]),
        "num_attention_heads": facts["text"]["heads"], "hidden_act": facts["text"][f"act{number}"],
        "max_position_embeddings": 77, "bos_token_id": facts["bos"], "eos_token_id": facts["eos"],
    }, state)


def golden_tokens(golden, pads=1):
    facts = golden.facts(CONFIG)
    words = tuple(facts["placeholder_ids"])
    return Tokens(lambda text: [], facts["bos"], facts["eos"], words, (facts["eos"], 0)[:pads])


def lora_parameter(unet, key):
    """The parameter of a factor that the published file calls so."""
    module, _, factor = key.partition(".processor.")
    name, half, _ = factor.split(".")
    name = "to_out.0" if name == "to_out_lora" else name.removesuffix("_lora")
    half = {"down": "lora_A", "up": "lora_B"}[half]
    return unet.get_parameter(f"{module}.{name}.{half}.default.weight")


def golden_task(golden, cache, **changes):
    """The golden base, words and LoRA in training."""
    facts = golden.facts(CONFIG)
    recipe = replace(
        PUBLISHED, rank=facts["rank"], attention_weight=facts["attn_loss_weight"],
        min_snr_gamma=facts["snr_gamma"], map_level=facts["unet"]["sample_size"] // facts["attn_size"],
        **changes,
    )
    tokens, mapper = golden_tokens(golden), mapper_of(golden, depths(golden)[0])
    painter = PartPainter(
        unet_of(golden), [golden_encoder(golden, 1)], mapper, tokens.words, recipe.map_level)
    task = PartTask(painter, tokens, cache, recipe, RunSettings("unused"))
    with torch.no_grad():
        for key, value in golden.tensors("partcraft_tiny_lora").items():
            lora_parameter(task.model.unet, key.removeprefix("unet.")).copy_(value)
    return task


def golden_batch(golden):
    """The inputs of the published step."""
    io, schedule = golden.below(IO, "train/"), noise_schedule()
    times, ids = io["t"].long(), io["ids1"].long()
    features = golden.below(IO, "seg/")["feats"][:len(ids)]
    return PartBatch(
        schedule.add_noise(io["latents"], io["noise"], times), io["noise"],
        min_snr_weights(schedule, times, golden.facts(CONFIG)["snr_gamma"]), times, ids[:, None],
        io["codes"].long(), torch.zeros(len(ids), 6),
        find_parts(features, published_clusters(golden)).labels,
    )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_is_the_published_one(golden, cache, checkpointing):
    """Losses, and the gradients of words and of the LoRA's own factors."""
    io = golden.below(IO, "train/")
    task, batch = golden_task(golden, cache, gradient_checkpointing=checkpointing), golden_batch(golden)
    task.model.train()
    diffusion, attention = (each.mean() for each in task.both_losses(task.model, batch))
    total = task.losses(task.model, batch).mean()
    for name, loss in {"diff_loss": diffusion, "attn_loss": attention, "total": total}.items():
        assert_equal(loss[None].detach(), io[name])
    total.backward()
    keys = [key.removeprefix("grad/") for key in io if key.startswith("grad/")]
    assert len(keys) >= 5
    for key in keys:
        of_mapper = key.startswith("mapper.")
        parameter = task.model.get_parameter(key) if of_mapper else lora_parameter(task.model.unet, key)
        assert relative_error(parameter.grad, io[f"grad/{key}"]) < 2 * ROUNDED, key


@torch.no_grad()
@pytest.mark.golden_keys(IO, "text/(?!train).+/sdxl_embeds")
def test_sdxl_reads_words_as_published(golden, key):
    """Both encoders and the pooled vector, for texts that name each part once at most."""
    io, facts = golden.below(IO, key.removesuffix("sdxl_embeds")), golden.facts(CONFIG)
    parts = io["parts"].flatten().tolist() if "parts" in io else []
    if len(set(parts)) < len(parts):
        pytest.skip("a training text names no part twice")
    codes = torch.full((1, facts["num_parts"]), facts["num_k_per_part"])
    if parts:
        codes[0, parts] = io["codes"].flatten().long()
    unet = unet_of(golden)
    unet.register_to_config(cross_attention_dim=sum(facts["dims"]))
    readers = [golden_encoder(golden, number) for number in (1, 2)]
    painter = PartPainter(unet, readers, mapper_of(golden, "mapper_xl"), facts["placeholder_ids"], 4)
    ids = torch.stack([io["ids1"], io["ids2"]], dim=1).long()
    context, more = painter.read(ids, codes, torch.zeros(1, 6))
    assert_equal(context, io["sdxl_embeds"])
    assert_equal(more["text_embeds"], io["sdxl_pooled"])
