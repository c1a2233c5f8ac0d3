"""Which weights of an IP-Adapter belong to which attention: against the published table, and diffusers."""

import pytest
import torch

from tests.comfyui.nodes.published import key_value_state, resampler_state

SDXL = {
    "image_size": 32, "use_spatial_transformer": True, "legacy": False, "num_classes": "sequential",
    "adm_in_channels": 2816, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "use_linear_in_transformer": True, "context_dim": 2048, "num_heads": -1, "num_head_channels": 64,
}


def test_the_walk_over_a_full_size_sdxl_gives_the_published_table(inside, golden):
    openai = inside.comfy("ldm.modules.diffusionmodules.openaimodel")
    operations = inside.comfy("ops").manual_cast
    unet = openai.UNetModel(**SDXL, device="meta", dtype=torch.float16, operations=operations)
    to_comfy = inside.comfy("utils").unet_to_diffusers(SDXL)
    layers = inside.pack("pit.unet").attention_layers(unet)
    rows = golden.facts("ip_adapter_plus_sdxl_keys")["mapping"]
    assert len(layers) == 70
    for number, (layer, row) in enumerate(zip(layers, rows, strict=True)):
        block, place, index = row["comfy_patch_key"]
        # The table has the middle transformer's place in its block; while it runs, ComfyUI calls it 0.
        assert (layer.block, layer.number, layer.index) == (block, 0 if block == "middle" else place, index)
        assert f"diffusion_model.{layer.module}" == row["comfy_module"]
        assert f"{layer.module}.to_k.weight" == to_comfy[row["diffusers"] + ".to_k.weight"]
        assert layer.inner_dim == row["to_k_ip_shape"][0]
        assert 2 * number + 1 == row["n"]


def test_every_layer_of_a_running_model_calls_its_own_weights_once(inside):
    model, adapter = inside.tiny.tiny_sdxl(), inside.ip_adapter()
    calls = []
    for number, layer in enumerate(adapter.cross_attention.model):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
        layer.to_k.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    inside.predict(inside.apply(model, adapter, inside.tokens(1)))
    inputs, outputs, middle = range(0, 6), range(6, 15), range(15, 17)
    assert calls == [*inputs, *middle, *outputs]


def test_comfyui_looks_up_the_middle_block_as_number_0(inside):
    """Whoever patches the middle transformer by its place in the block, 1, patches nothing."""
    model, called = inside.tiny.tiny_sdxl(), []

    def patch(name):
        def attention(q, k, v, options):
            called.append((name, options["block_index"]))
            return q

        return attention

    for index in range(inside.tiny.UNET["transformer_depth_middle"]):
        for number in (0, 1):
            model.set_model_attn2_replace(patch(number), "middle", number, index)
    inside.predict(model)
    assert called == [(0, 0), (0, 1)]


def diffusers_twin(diffusers, inside, unet):
    """diffusers' UNet with the weights of ComfyUI's tiny SDXL."""
    tiny = inside.tiny
    twin = diffusers.UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(32, 64, 128), layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2), attention_head_dim=(1, 1, 2), use_linear_projection=True,
        cross_attention_dim=tiny.CONTEXT_DIM, addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=tiny.UNET["adm_in_channels"],
    )
    names, weights = inside.comfy("utils").unet_to_diffusers(tiny.UNET), unet.state_dict()
    twin.load_state_dict({name: weights[names[name]] for name in twin.state_dict()})
    return twin.eval()


def test_the_patched_model_predicts_what_diffusers_predicts(inside):
    """The whole path, the resampler included, with diffusers' own loader reading the same IP-Adapter."""
    diffusers = pytest.importorskip("diffusers")
    model, adapter, weight = inside.tiny.tiny_sdxl(), inside.ip_adapter(), 0.7
    twin = diffusers_twin(diffusers, inside, model.model.diffusion_model)
    published = {"image_proj": resampler_state(), "ip_adapter": key_value_state()}
    twin._load_ip_adapter_weights([published])
    for processor in twin.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [weight]
    features = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(5))
    latents, times, context, _ = inside.unet_inputs(2, (0,))
    pooled = inside.tiny.conditioning(2)[0][1]["pooled_output"].expand(2, -1)
    sizes = torch.tensor([[128, 128, 0, 0, 128, 128]]).expand(2, -1)
    with torch.inference_mode():
        expected = twin(latents, times, context, added_cond_kwargs={
            "text_embeds": pooled, "time_ids": sizes, "image_embeds": [features[:, None]],
        }).sample
        values = adapter.resampler.model(features)
    tokens = inside.concepts("tokens").Tokens(values, values[:1], source="a test")
    found = inside.predict(inside.apply(model, adapter, tokens, weight), images=2, branches=(0,))
    without = inside.predict(model, images=2, branches=(0,))
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-4 * scale
    assert (found - without).abs().max() > 1e-2 * scale
