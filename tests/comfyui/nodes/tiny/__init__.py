"""A test-only node pack: tiny models, and a look at what ComfyUI keeps loaded."""

from zlib import crc32

import comfy.cldm.cldm
import comfy.clip_vision
import comfy.controlnet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import torch
from comfy_api.latest import ComfyExtension, io, ui

CONTEXT_DIM, POOLED_DIM = 96, 64
UNET = {
    "image_size": 32, "use_spatial_transformer": True, "legacy": False, "num_classes": "sequential",
    "adm_in_channels": POOLED_DIM + 6 * 256, "in_channels": 4, "out_channels": 4, "model_channels": 32,
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2, "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
    "use_linear_in_transformer": True, "context_dim": CONTEXT_DIM, "use_temporal_attention": False,
    "use_temporal_resblock": False,
}
CLIP_VISION = {
    "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2,
    "num_hidden_layers": 3, "num_channels": 3, "image_size": 28, "patch_size": 14, "projection_dim": 32,
    "hidden_act": "gelu", "layer_norm_eps": 1e-5,
}


INSTRUCT_CONTEXT_DIM = 48
INSTRUCT_UNET = {
    "image_size": 32, "use_spatial_transformer": True, "legacy": False, "adm_in_channels": None,
    "in_channels": 8, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [1, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 0, 0], "use_linear_in_transformer": False,
    "context_dim": INSTRUCT_CONTEXT_DIM, "use_temporal_attention": False, "use_temporal_resblock": False,
}
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
}


class TinySDXL(comfy.supported_models.SDXL):
    unet_config = UNET


class TinySD15(comfy.supported_models.SD15):
    unet_config = INSTRUCT_UNET | {"in_channels": 4}


class TinyInstruct(comfy.supported_models.SD15_instructpix2pix):
    unet_config = INSTRUCT_UNET


def fill(module, seed):
    """ComfyUI's layers are made empty: give every weight a value that lets signals through."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in module.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.ndim == 1:
            weight.data.copy_(noise / 10 + name.endswith("weight"))
        else:
            weight.data.copy_(noise / weight[0].numel() ** 0.5)


def tiny_sdxl(seed=0, dtype=torch.float32, **sizes):
    """A patcher of an SDXL with random weights and 17 cross-attention layers."""
    return patcher_of(TinySDXL(UNET | sizes), seed, dtype)


def tiny_sdxl_clip(seed=7):
    """Its CLIP, with two text encoders of half its width each."""
    sizes = {
        "hidden_size": CONTEXT_DIM // 2, "intermediate_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 3,
    }
    options = {"clip_l_model_config": sizes, "clip_g_model_config": sizes, "dtype": torch.float32}
    clip = comfy.sd.CLIP(TinySDXL(UNET).clip_target(), parameters=0, model_options=options)
    for number, encoder in enumerate((clip.cond_stage_model.clip_l, clip.cond_stage_model.clip_g)):
        fill(encoder.transformer, seed + number)
    return clip


def tiny_sd15(seed=0):
    """A patcher of a Stable Diffusion 1.5."""
    return patcher_of(TinySD15(TinySD15.unet_config), seed, torch.float32)


def tiny_clip(seed=6):
    """Its CLIP."""
    sizes = {
        "hidden_size": INSTRUCT_CONTEXT_DIM, "intermediate_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 3,
    }
    options = {"clip_l_model_config": sizes, "dtype": torch.float32}
    clip = comfy.sd.CLIP(TinySD15(TinySD15.unet_config).clip_target({}), parameters=0, model_options=options)
    fill(clip.cond_stage_model.clip_l.transformer, seed)
    return clip


def tiny_instruct(seed=0, kind=TinyInstruct, **sizes):
    """A patcher of an InstructPix2Pix of Stable Diffusion 1.5's structure."""
    return patcher_of(kind(INSTRUCT_UNET | sizes), seed, torch.float32)


def tiny_vae(seed=4):
    """A VAE of four latent channels, with 8 pixels to a side of each latent one."""
    vae = comfy.sd.VAE(sd={}, config={"params": {"ddconfig": VAE, "embed_dim": 4}})
    fill(vae.first_stage_model, seed)
    return vae


def patcher_of(config, seed, dtype):
    config.set_inference_dtype(dtype, None)
    device = comfy.model_management.unet_offload_device()
    base = config.get_model({}, "", device=device)
    fill(base.diffusion_model, seed)
    return comfy.model_patcher.CoreModelPatcher(
        base, load_device=comfy.model_management.get_torch_device(), offload_device=device
    )


def tiny_clip_vision(width=64, seed=1, **sizes):
    vision = comfy.clip_vision.ClipVisionModel(CLIP_VISION | {"hidden_size": width} | sizes)
    fill(vision.model, seed)
    return vision


def conditioning(seed):
    """A text prompt, as the sampler takes it."""
    generator = torch.Generator().manual_seed(seed)
    pooled = torch.randn(1, POOLED_DIM, generator=generator)
    return [[torch.randn(1, 77, CONTEXT_DIM, generator=generator), {"pooled_output": pooled}]]


class TinyModels(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_Models",
            inputs=[io.Int.Input("vision_width", default=64)],
            outputs=[
                io.Model.Output(), io.Conditioning.Output(), io.Conditioning.Output(), io.ClipVision.Output(),
            ],
        )

    @classmethod
    def execute(cls, vision_width):
        vision = tiny_clip_vision(vision_width)
        return io.NodeOutput(tiny_sdxl(), conditioning(2), conditioning(3), vision)


class TinyInsertion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Tiny_Insertion", inputs=[], outputs=[io.Model.Output(), io.Vae.Output()])

    @classmethod
    def execute(cls):
        return io.NodeOutput(tiny_instruct(), tiny_vae())


class TinySDXLModels(io.ComfyNode):
    """What Load Checkpoint gives of an SDXL."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_SDXL", inputs=[], outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls):
        model = tiny_sdxl(adm_in_channels=CONTEXT_DIM // 2 + 6 * 256)
        return io.NodeOutput(model, tiny_sdxl_clip(), tiny_vae())


class TinyInpainting(io.ComfyNode):
    """The UNet of an SDXL for inpainting, which also takes the masked picture and the mask."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Tiny_Inpainting", inputs=[], outputs=[io.Model.Output()])

    @classmethod
    def execute(cls):
        return io.NodeOutput(tiny_sdxl(9, in_channels=9, adm_in_channels=CONTEXT_DIM // 2 + 6 * 256))


class TinyControl(io.ComfyNode):
    """A ControlNet for the tiny SDXL."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Tiny_Control", inputs=[], outputs=[io.ControlNet.Output()])

    @classmethod
    def execute(cls):
        sizes = dict(TinySDXL(UNET | {"adm_in_channels": CONTEXT_DIM // 2 + 6 * 256}).unet_config)
        del sizes["out_channels"]
        net = comfy.cldm.cldm.ControlNet(
            **sizes, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        fill(net, 8)
        device = comfy.model_management.get_torch_device()
        return io.NodeOutput(comfy.controlnet.ControlNet(net, load_device=device))


class TinyDetect(io.ComfyNode):
    """Takes the place of SAM3 Detect: half the picture's width and height, its place by the text looked for.

    It is told the text itself: places by what a tiny encoder makes of it can fall together.
    Nothing is found at a threshold of 1.
    """

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_Detect",
            inputs=[
                io.Model.Input("model"), io.Image.Input("image"), io.Conditioning.Input("conditioning"),
                io.String.Input("text"), io.Float.Input("threshold"), io.Int.Input("refine_iterations"),
                io.Boolean.Input("individual_masks"),
            ],
            outputs=[io.Mask.Output()],
        )

    @classmethod
    def execute(cls, model, image, conditioning, text, threshold, refine_iterations, individual_masks):
        _, height, width, _ = image.shape
        mask = torch.zeros(image.shape[:3])
        left = crc32(text.encode()) % (width // 2)
        if threshold < 1:
            mask[:, height // 4:height * 3 // 4, left:left + width // 2] = 1
        return io.NodeOutput(mask)


class TinyVision(io.ComfyNode):
    """What Load CLIP Vision gives; its embeddings are as wide as the text encoders of the tiny SDXL."""

    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Tiny_Vision", inputs=[], outputs=[io.ClipVision.Output()])

    @classmethod
    def execute(cls):
        return io.NodeOutput(tiny_clip_vision(projection_dim=CONTEXT_DIM // 2))


class TinyVAE(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Tiny_VAE", inputs=[], outputs=[io.Vae.Output()])

    @classmethod
    def execute(cls):
        return io.NodeOutput(tiny_vae())


class TinySD15Models(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_SD15", inputs=[], outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls):
        return io.NodeOutput(tiny_sd15(), tiny_clip(), tiny_vae())


class TinyImage(io.ComfyNode):
    """Pictures of one random colour each, and masks over all and over nothing of them."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_Image",
            inputs=[
                io.Int.Input(name, default=default, min=0)
                for name, default in (("count", 1), ("height", 40), ("width", 30), ("channels", 3))
            ],
            outputs=[io.Image.Output(), io.Mask.Output(), io.Mask.Output()],
        )

    @classmethod
    def execute(cls, count, height, width, channels):
        colours = torch.rand(count, 1, 1, channels, generator=torch.Generator().manual_seed(count))
        pictures = colours.expand(-1, height, width, -1).clone()
        return io.NodeOutput(pictures, torch.ones(count, height, width), torch.zeros(count, height, width))


class MixedRows(io.ComfyNode):
    """A patch of another pack after which nothing tells which row of the cross-attention is which."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_MixedRows", inputs=[io.Model.Input("model")], outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model):
        model = model.clone()
        model.set_model_attn2_patch(lambda n, context, value, options: (n + n.flip(0), context, value))
        return io.NodeOutput(model)


class Loaded(io.ComfyNode):
    """Says which models ComfyUI keeps loaded after the node before it."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Tiny_Loaded", is_output_node=True, inputs=[io.AnyType.Input("after")], outputs=[],
        )

    @classmethod
    def execute(cls, after):
        comfy.model_management.cleanup_models_gc()  # a cycle can keep an entry whose patcher is gone
        models = [each.real_model() for each in comfy.model_management.current_loaded_models]
        names = [type(each).__name__ for each in models if each is not None]
        return io.NodeOutput(ui=ui.PreviewText(" ".join(names)))


class Tiny(ComfyExtension):
    async def get_node_list(self):
        return [
            TinyModels, TinyInsertion, TinySDXLModels, TinySD15Models, TinyVision, TinyVAE, TinyImage,
            MixedRows, Loaded, TinyInpainting, TinyControl, TinyDetect,
        ]


async def comfy_entrypoint():
    return Tiny()
