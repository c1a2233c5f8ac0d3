"""Pictures for the image encoder: exact CLIP preprocessing, and ComfyUI tensors to PIL and back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps

# Per RGB channel in 0..1, of OpenAI's CLIP; the published processor uses them for OpenCLIP's ViT-H as well.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The published processor resizes the whole long side before it crops: at 2000:1, a picture of 24 megapixels,
# which a few kilobytes can hold, takes 700 MB.
_MAX_ASPECT = 500
_PLAIN = 8  # of 255, by which a channel of a plain picture may vary
_BAND = 256  # rows that are composited at once


def clip_pixel_values(images: list[Image.Image], size: int = 224, rescale: bool = True) -> torch.Tensor:
    """Pixel values `[B,3,size,size]` float32 of `images`, equal to those of the published processor.

    The processor is transformers 4's `CLIPImageProcessor` with its defaults: RGB (alpha is dropped, gray is
    repeated), `resize_for_encoder`, 1/255 unless `rescale` is False, then CLIP's mean and standard deviation.

    Raises ValueError for an empty list and for pictures that `resize_for_encoder` refuses.
    """
    if not images:
        raise ValueError("Expected at least one picture to encode, got none.")
    pixels = np.stack([np.asarray(resize_for_encoder(image, size)) for image in images])
    # The published processor scales in float64; in float32 the last bit would differ.
    scaled = torch.from_numpy(pixels).double().mul(1 / 255 if rescale else 1).float()
    normalized = (scaled - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    return normalized.permute(0, 3, 1, 2).contiguous()


def resize_for_encoder(image: Image.Image, size: int = 224) -> Image.Image:
    """The `size` x `size` RGB picture that the encoder sees of `image`.

    Bicubic: the shorter side becomes `size`, the long side is truncated to whole pixels; then the center is
    cropped. Raises ValueError if one side is more than 500 times as long as the other.
    """
    short = min(image.size)
    if max(image.size) > _MAX_ASPECT * short:
        raise ValueError(
            f"Expected a picture whose sides differ by at most {_MAX_ASPECT} to 1, got "
            f"{_size_text(image)} pixels. Crop it, or paste it onto a larger picture."
        )
    # Truncated, as the published processor does. ComfyUI's own preprocessing rounds: on odd sizes that shifts
    # the sampling grid, and the normalized values differ by up to 2.3. A picture that is `size` x `size`
    # already passes through ComfyUI unchanged, which is why this one is handed to it.
    width, height = (int(size * side / short) for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return resized.crop((left, top, left + size, top + size))


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """PIL pictures of a ComfyUI IMAGE batch `[B,H,W,C]` (or one picture `[H,W,C]`), float in 0..1.

    C = 1 becomes L, 3 RGB, 4 RGBA. Values outside 0..1 are clamped.
    Raises TypeError for integer tensors, ValueError for other shapes and for NaN or infinity.
    """
    if not image.is_floating_point():
        raise TypeError(f"Expected a picture of floating-point values in 0..1, got {image.dtype}.")
    shape = list(image.shape)
    if image.ndim not in (3, 4) or shape[-1] not in (1, 3, 4) or 0 in shape:
        raise ValueError(f"Expected pictures [B,H,W,C] or [H,W,C] with C 1, 3 or 4, got shape {shape}.")
    # clamp() keeps NaN, and its conversion to uint8 is undefined: it would show as noise.
    if not torch.isfinite(image).all():
        raise ValueError(f"Expected picture values in 0..1, got NaN or infinity (shape {shape}).")
    batch = image if image.ndim == 4 else image[None]
    pixels = batch.detach().float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).numpy()
    return [Image.fromarray(each[..., 0] if each.shape[-1] == 1 else each) for each in pixels]


def to_tensor(images: list[Image.Image]) -> torch.Tensor:
    """ComfyUI IMAGE batch `[B,H,W,3]` float32 in 0..1; transparent pictures are composited on white.

    Raises ValueError for an empty list and for pictures of different sizes.
    """
    sizes = sorted({_size_text(image) for image in images})
    if len(sizes) != 1:
        got = ", ".join(sizes) or "no picture"
        raise ValueError(f"Expected pictures of one size for a batch, got {got}.")
    return torch.from_numpy(np.stack([np.asarray(on_white(image)) for image in images])).float() / 255


def on_white(image: Image.Image) -> Image.Image:
    """`image` as RGB, composited on white where it is transparent."""
    # Not dropped: the color under transparent pixels is arbitrary, and would show.
    if not image.has_transparency_data:
        return image.convert("RGB")
    result = Image.new("RGB", image.size, "white")
    # In bands, since three more copies of a large picture would take a gigabyte.
    for top in range(0, image.height, _BAND):
        band = image.crop((0, top, image.width, min(top + _BAND, image.height))).convert("RGBA")
        white = Image.new("RGBA", band.size, "white")
        result.paste(Image.alpha_composite(white, band).convert("RGB"), (0, top))
    return result


def is_plain(image: Image.Image) -> bool:
    """Whether a picture shows one color and nothing else, but for what JPEG makes of it."""
    extremes = on_white(image).getextrema()
    return all(high - low <= _PLAIN for low, high in extremes)


def white_image(size: int) -> Image.Image:
    """A white `size` x `size` RGB picture: what an empty slot shows."""
    return Image.new("RGB", (size, size), "white")


def contact_sheet(pictures: Sequence[Image.Image | None], columns: int, pixels: int) -> Image.Image:
    """Pictures of `pixels` x `pixels` in rows on white; None leaves a gap."""
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * pixels, rows * pixels), "white")
    for index, picture in enumerate(pictures):
        if picture is not None:
            sheet.paste(picture, (index % columns * pixels, index // columns * pixels))
    return sheet


def labelled_sheet(pictures: Sequence[Image.Image], labels: Sequence[str], columns: int) -> Image.Image:
    """Pictures in rows on white, all padded to the size of the largest, each below its label."""
    width, height = (max(picture.size[side] for picture in pictures) for side in (0, 1))
    title = max(20, width // 10)
    font = ImageFont.load_default(max(12, round(title * 0.6)))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * (height + title)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left, top = index % columns * width, index // columns * (height + title)
        draw.text((left + width / 2, top + title / 2), label, "#333333", font, anchor="mm")
        sheet.paste(ImageOps.pad(on_white(picture), (width, height), color="white"), (left, top + title))
    return sheet


def _size_text(image: Image.Image) -> str:
    return f"{image.width}x{image.height}"
