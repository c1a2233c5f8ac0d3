"""The command line's models, read from a checkpoint as ComfyUI has it, give what ComfyUI's give."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.nodes.published import write_ip_adapter
from tests.comfyui.nodes.test_layer_map import diffusers_twin

TEXT_L = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 3}
TEXT_G = TEXT_L | {"hidden_size": 64, "projection_dim": 64}
VAE = {"double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
       "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}


def filled_clip(inside, config):
    """ComfyUI's CLIP with random weights, small enough that signals come through."""
    options = {"clip_l_model_config": TEXT_L, "clip_g_model_config": TEXT_G, "dtype": torch.float32}
    clip = inside.comfy("sd").CLIP(config.clip_target(), parameters=0, model_options=options)
    generator = torch.Generator().manual_seed(3)
    for name, weight in clip.cond_stage_model.named_parameters():
        if weight.ndim:
            noise = torch.randn(weight.shape, generator=generator) / (10 if weight.ndim == 1 else 6)
            weight.data.copy_(noise + (weight.ndim == 1 and name.endswith("weight")))
    return clip


def write_configs(folder, unet):
    """The configuration files of an SDXL of these sizes."""
    from pit.training.stable_diffusion import CONFIGS

    shutil.copytree(CONFIGS, folder)
    sizes = {
        "text_encoder": TEXT_L, "text_encoder_2": TEXT_G,
        "vae": {"block_out_channels": [32, 64, 64, 64], "layers_per_block": 1},
    }
    for name, changes in sizes.items():
        path = folder / name / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    unet.save_config(folder / "unet")
    return folder


def unet_state(model):
    state = model.model.state_dict()
    return {f"model.{key}": value for key, value in state.items() if key.startswith("diffusion_model.")}


@pytest.mark.parametrize("marks", [(), ("v_pred",), ("v_pred", "ztsnr")])
def test_a_single_file_gives_the_renderer(inside, tmp_path, marks):
    diffusers = pytest.importorskip("diffusers")
    from pit.piece_it_together.ip_lora.base import load_renderer

    model = inside.tiny.tiny_sdxl()
    state = {key: value.contiguous() for key, value in unet_state(model).items()}
    state |= {mark: torch.zeros(1) for mark in marks}
    base, adapter = tmp_path / "model.safetensors", write_ip_adapter(tmp_path / "adapter.safetensors")
    save_file(state, base)
    unet = diffusers_twin(diffusers, inside, model.model.diffusion_model)
    configs = write_configs(tmp_path / "configs", unet)
    renderer, schedule = load_renderer(base, adapter, configs=configs)
    assert schedule.config.prediction_type == ("v_prediction" if marks else "epsilon")
    assert (schedule.alphas_cumprod[-1] == 0) == ("ztsnr" in marks)

    latents, times, context, _ = inside.unet_inputs(2, (0,))
    pooled = inside.tiny.conditioning(2)[0][1]["pooled_output"].expand(2, -1)
    sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]]).expand(2, -1)
    tokens = inside.tokens(2)
    with torch.inference_mode():
        found = renderer(latents, times, context, pooled, sizes, tokens.values)
    expected = inside.predict(inside.apply(model, inside.ip_adapter(), tokens), images=2, branches=(0,))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_single_file_gives_the_encoders(inside, tmp_path):
    """Text encoders as OpenCLIP and transformers name their weights, and the VAE, all out of one file."""
    diffusers = pytest.importorskip("diffusers")
    from pit.piece_it_together.ip_lora.base import load_encoders
    from tests.training.tiny_renderer import tiny_encoders

    model = inside.tiny.tiny_sdxl()
    config = inside.tiny.TinySDXL(inside.tiny.UNET)
    clip = filled_clip(inside, config)
    vae = inside.comfy("ldm.models.autoencoder").AutoencoderKL(ddconfig=VAE, embed_dim=4)
    inside.tiny.fill(vae, 4)
    state = unet_state(model) | config.process_vae_state_dict_for_saving(vae.state_dict())
    state |= config.process_clip_state_dict_for_saving(clip.get_sd())
    base = tmp_path / "model.safetensors"
    save_file({key: value.detach().clone().contiguous() for key, value in state.items()}, base)
    unet = diffusers_twin(diffusers, inside, model.model.diffusion_model)
    configs = write_configs(tmp_path / "configs", unet)
    encoders = load_encoders(base, tiny_encoders().tokens, configs=configs)

    words, pictures = "a red bat-winged creature, in a snowy forest", torch.rand(1, 64, 64, 3)
    with torch.no_grad():
        context, pooled = encoders.text([words])
        expected, expected_pooled = clip.encode_from_tokens(clip.tokenize(words), return_pooled=True)
        latents = encoders.latents((pictures * 2 - 1).movedim(-1, 1))
        comfy_vae = inside.comfy("sd").VAE(
            sd=vae.state_dict(), config={"params": {"ddconfig": VAE, "embed_dim": 4}}
        )
        expected_latents = model.model.process_latent_in(comfy_vae.encode(pictures))
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(pooled, expected_pooled)
    torch.testing.assert_close(latents[:, :4], expected_latents, rtol=1e-4, atol=1e-5)
