"""The command line's renderer, read from a checkpoint as ComfyUI has it, predicts what ComfyUI predicts."""

import pytest
import torch
from safetensors.torch import save_file

from tests.comfyui.nodes.published import write_ip_adapter
from tests.comfyui.nodes.test_layer_map import diffusers_twin


@pytest.mark.parametrize("velocity", [False, True])
def test_a_single_file_gives_the_renderer(inside, tmp_path, velocity):
    diffusers = pytest.importorskip("diffusers")
    from pit.training.sdxl import CONFIGS, load_renderer

    model = inside.tiny.tiny_sdxl()
    state = {f"model.{key}": value.contiguous() for key, value in model.model.state_dict().items()
             if key.startswith("diffusion_model.")}
    if velocity:
        state["v_pred"] = torch.zeros(1)
    base, adapter = tmp_path / "model.safetensors", write_ip_adapter(tmp_path / "adapter.safetensors")
    save_file(state, base)
    diffusers_twin(diffusers, inside, model.model.diffusion_model).save_config(tmp_path / "unet")
    schedule = diffusers.DDPMScheduler.from_pretrained(CONFIGS, subfolder="scheduler")
    schedule.save_pretrained(tmp_path / "scheduler")
    renderer, schedule = load_renderer(base, adapter, configs=tmp_path)
    assert schedule.config.prediction_type == ("v_prediction" if velocity else "epsilon")

    latents, times, context, _ = inside.unet_inputs(2, (0,))
    pooled = inside.tiny.conditioning(2)[0][1]["pooled_output"].expand(2, -1)
    sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]]).expand(2, -1)
    tokens = inside.tokens(2)
    with torch.inference_mode():
        found = renderer(latents, times, context, pooled, sizes, tokens.values)
    expected = inside.predict(inside.apply(model, inside.ip_adapter(), tokens), images=2, branches=(0,))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
