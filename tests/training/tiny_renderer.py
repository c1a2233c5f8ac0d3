"""A tiny renderer, the samples of an IP-LoRA for it, and models that encode them without any file."""
from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from pit.ip_adapter.attention import ImageCrossAttention
from pit.ip_adapter.encoder import TokenEncoder
from pit.piece_it_together.ip_lora.cache import RenderEncoders
from pit.piece_it_together.ip_lora.image_prompt import ImagePromptUNet, crossing_widths

TOKEN_DIM, CONTEXT, POOLED = 24, 40, 16


def tiny_renderer(seed: int = 0) -> ImagePromptUNet:
    """SDXL's structure with eight cross-attention layers."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), transformer_layers_per_block=(1, 2),
        attention_head_dim=(1, 2), use_linear_projection=True, cross_attention_dim=CONTEXT,
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=POOLED + 6 * 8,
    )
    return ImagePromptUNet(unet, ImageCrossAttention(TOKEN_DIM, crossing_widths(unet)))


def tiny_encoders(version: str = "1") -> RenderEncoders:
    """Latents are small pictures, words their letters, tokens the colors of a picture."""
    def latents(pixels):
        mean = torch.nn.functional.adaptive_avg_pool2d(pixels, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1)
        return torch.cat([mean, torch.full_like(mean, 0.01)], dim=1)

    def text(captions):
        rows = [torch.Generator().manual_seed(sum(map(ord, caption))) for caption in captions]
        context = torch.stack([torch.randn(5, CONTEXT, generator=row) for row in rows])
        return context, context.mean(dim=1)[:, :POOLED]

    def features(pixels):
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(2).mT

    def resample(features):
        return features.repeat(1, 1, TOKEN_DIM // 3)

    return RenderEncoders(
        {"tiny models": version}, latents, text, TokenEncoder("tiny", "tiny", 8, features, resample)
    )


def write_pictures(folder, count: int = 6, size: tuple[int, int] = (16, 16)):
    """Targets in as many colors, each with its caption and its reference."""
    for name in ("targets", "refs"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        color = (40 * number % 256, 90, 255 - 40 * number % 256)
        Image.new("RGB", size, color).save(folder / "targets" / f"{number}.png")
        reference = Image.new("RGB", (12, 12), color)
        reference.paste((90, 255, 40 * number % 256), (0, 0, 6, 6))
        reference.save(folder / "refs" / f"{number}_ref.png")
        (folder / "targets" / f"{number}.txt").write_text(f"picture number {number}")
    return folder
