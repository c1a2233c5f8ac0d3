"""The user's own SDXL: encoders and UNet of a diffusers folder at tiny sizes, and what is refused."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from pit.files.weights import WeightFileError
from pit.ip_adapter.attention import ImageCrossAttention, IPAdapterPlus
from pit.ip_adapter.files import save_ip_adapter
from pit.ip_adapter.resampler import Resampler
from pit.piece_it_together.ip_lora.base import load_encoders, load_renderer
from pit.piece_it_together.ip_lora.image_prompt import crossing_widths
from pit.training.denoising import noise_schedule
from pit.training.stable_diffusion import CONFIGS, PADS, clip_tokenizer
from tests.training.tiny_renderer import TOKEN_DIM, tiny_encoders, tiny_renderer

TEXT = {"hidden_size": 20, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 3,
        "max_position_embeddings": 77, "vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny SDXL as diffusers saves it, with an IP-Adapter for it beside it."""
    folder = tmp_path_factory.mktemp("sdxl")
    torch.manual_seed(0)
    StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, scaling_factor=0.13025,
            down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        ),
        text_encoder=CLIPTextModel(CLIPTextConfig(**TEXT)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**TEXT, projection_dim=16)),
        tokenizer=clip_tokenizer(PADS["tokenizer"]), tokenizer_2=clip_tokenizer(PADS["tokenizer_2"]),
        unet=tiny_renderer().unet.__class__.from_config(tiny_renderer().unet.config),
        scheduler=noise_schedule(),
    ).save_pretrained(folder)
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    image = ImageCrossAttention(TOKEN_DIM, crossing_widths(unet))
    resampler = Resampler(64, 2, 64, 1, 16, 32, TOKEN_DIM)
    save_ip_adapter(folder / "adapter.safetensors", IPAdapterPlus(resampler, image))
    return folder


def test_a_diffusers_folder_gives_the_renderer(folder):
    renderer, schedule = load_renderer(folder, folder / "adapter.safetensors")
    assert schedule.config.prediction_type == "epsilon"
    state = UNet2DConditionModel.from_pretrained(folder, subfolder="unet").state_dict()
    assert all(torch.equal(value, renderer.unet.state_dict()[key]) for key, value in state.items())
    assert renderer.image.token_dim == TOKEN_DIM


def test_the_folders_encoders_are_those_of_its_pipeline(folder):
    encoders = load_encoders(folder, tiny_encoders().tokens)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    context, pooled = encoders.text(["a cat", ""])
    expected, _, expected_pooled, _ = pipeline.encode_prompt(["a cat"], do_classifier_free_guidance=False)
    torch.testing.assert_close(context[:1], expected)
    torch.testing.assert_close(pooled[:1], expected_pooled)
    assert not context[1].any() and not pooled[1].any()
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    latents = encoders.latents(pixels)
    with torch.no_grad():
        found = pipeline.vae.encode(pixels).latent_dist
    torch.testing.assert_close(latents, torch.cat([found.mean, found.std], dim=1) * 0.13025)


def test_clips_tokens_are_the_known_ones():
    from pit.demo.models.words import WORDS, token_ids

    tokenizer = clip_tokenizer(PADS["tokenizer_2"])
    text = " ".join(WORDS)
    found = tokenizer(text, padding="max_length", max_length=400).input_ids
    assert found == token_ids(text, 400, 0)
    accents = tokenizer("naïve, 日本!").input_ids
    assert accents[0] == 49406 and accents[-1] == 49407 and len(accents) > 6


def test_the_configs_are_of_the_published_sdxl(golden):
    """As many attention layers, of such widths, as the published IP-LoRA and IP-Adapter have weights for."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(json.loads((CONFIGS / "unet" / "config.json").read_text()))
    rows = golden.facts("ip_adapter_plus_sdxl_keys")["mapping"]
    assert crossing_widths(unet) == [row["to_k_ip_shape"][0] for row in rows]
    shapes = {f"unet.{name}": value.shape for name, value in unet.named_parameters()}
    for key, (_, columns) in golden.facts("ip_lora_full_keys")["keys"].items():
        if key.endswith(".lora.down.weight"):
            assert shapes[key.replace(".lora.down", "")][1] == columns
    assert sum(value.numel() for value in unet.parameters()) == 2_567_463_684
    assert isinstance(DDPMScheduler.from_pretrained(CONFIGS, subfolder="scheduler"), DDPMScheduler)


def test_what_is_not_an_sdxl_is_refused(folder, tmp_path):
    adapter = folder / "adapter.safetensors"
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"x")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"x" * 100)
    other = tmp_path / "other.safetensors"
    save_file({"x.weight": torch.zeros(2, 2)}, other)
    for base, message in (
        (tmp_path / "absent.safetensors", "got no such file"), (tmp_path, "expected a diffusers folder"),
        (pickle, "expected a .safetensors file, got '.ckpt'"), (damaged, "expected an SDXL model, got"),
        (other, "expected an SDXL model, got"),
    ):
        with pytest.raises(WeightFileError, match=message):
            load_renderer(base, adapter)
    for base in (damaged, other):
        with pytest.raises(WeightFileError, match="expected an SDXL model, got"):
            load_encoders(base, tiny_encoders().tokens)


def test_an_adapter_for_another_model_is_refused(folder, tmp_path):
    image = ImageCrossAttention(TOKEN_DIM, [64, 64])
    save_ip_adapter(tmp_path / "other.safetensors", IPAdapterPlus(Resampler(64, 2, 64, 1, 16, 32, 24), image))
    with pytest.raises(ValueError, match="a model with 2 cross-attention layers"):
        load_renderer(folder, tmp_path / "other.safetensors")
