"""Pictures with parts, what encodes them without any file, and a tiny base that reads part words."""
from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pit.partcraft.discovery import PartClusters
from pit.partcraft.training.base import text_encoder
from pit.partcraft.training.cache import PartCache, PartEncoders, Preparation, encode_pictures
from pit.partcraft.training.painter import PartPainter, new_mapper
from pit.partcraft.training.pictures import BY_CLUSTERS, coding_of, read_pictures
from pit.partcraft.training.recipes import PartRecipe
from pit.partcraft.training.texts import Tokens

SIZE, SEEN, PARTS, CODES = 64, 32, 3, 2
BACK, LEFT, RIGHT = range(PARTS)
COLORS = ((220, 40, 40), (40, 40, 220))  # of the left part, and of the right one
VOCABULARY, WIDTHS = 120, (24, 40)


def draw_picture(number: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A red part left of a blue one, before gray; every other picture has darker parts."""
    picture = Image.new("RGB", size, (128, 128 + number % 8, 128))
    draw, shade = ImageDraw.Draw(picture), 0.5 if number % 2 else 1
    for part, left in enumerate((8, 26)):
        color = tuple(int(value * shade) for value in COLORS[part])
        draw.rectangle((left, 12, left + 14, 27), color)
    return picture


def write_pictures(folder: Path, count: int = 6) -> Path:
    """As many pictures, in a folder for each shade."""
    for number in range(count):
        place = folder / f"{number % 2 + 1:03}.{'Dark' if number % 2 else 'Light_one'}"
        place.mkdir(parents=True, exist_ok=True)
        draw_picture(number).save(place / f"{number}.png")
    return folder


def features(pixels: Tensor) -> Tensor:
    """The colors of places, gray being no color."""
    return avg_pool2d(pixels, 4) * torch.tensor([0.229, 0.224, 0.225])[:, None, None] + torch.tensor(
        [0.485, 0.456, 0.406])[:, None, None] - 0.5


def color_clusters() -> PartClusters:
    """The parts of such pictures by their colors, and two shades of each."""
    def seen(color: tuple[int, int, int], shade: float = 1.0) -> list[float]:
        return [int(value * shade) / 255 - 0.5 for value in color]

    gray, colored = [0.001, 0.002, 0.001], [[seen(color), seen(color, 0.5)] for color in COLORS]
    parts = [torch.tensor(each).mean(0).tolist() for each in colored]
    pair = torch.tensor([[0.1, -1.0, 0.1], gray])
    coarse = torch.tensor([[-1.0] * 3, *parts])
    fine = torch.zeros(PARTS, CODES, 3)
    fine[BACK, 0] = torch.tensor(gray)
    fine[LEFT], fine[RIGHT] = torch.tensor(colored[0]), torch.tensor(colored[1])
    return PartClusters(pair, coarse, fine, foreground=0, background_part=BACK)


def color_encoders(version: str = "1") -> PartEncoders:
    """Latents are small pictures, features the colors of places."""
    def latents(pictures: Tensor) -> Tensor:
        mean = avg_pool2d(pictures, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1)
        return torch.cat([mean, torch.full_like(mean, 0.01)], dim=1)

    return PartEncoders({"tiny models": version}, latents, features, SEEN)


def encoded(folder: Path, count: int = 6, by: str = BY_CLUSTERS, **settings: object) -> PartCache:
    """A cache of such pictures."""
    clusters, pictures = color_clusters(), read_pictures(write_pictures(folder / "pictures", count))
    preparation = Preparation(**{"size": SIZE, "variants": 2, "mirrored": True} | settings)
    coding = coding_of(clusters, pictures, by)
    cache, skipped = encode_pictures(
        pictures, folder / "cache", color_encoders(), clusters, coding, preparation)
    assert not skipped
    return cache


def tiny_tokens(encoders: int = 1) -> Tokens:
    """Each letter is a token."""
    words = tuple(range(VOCABULARY, VOCABULARY + PARTS))
    pads = (VOCABULARY - 1, 0)[:encoders]
    return Tokens(lambda text: [ord(each) % 100 + 1 for each in text], VOCABULARY - 2, VOCABULARY - 1, words,
                  pads, 40)


def tiny_encoder(width: int):
    config = {
        "vocab_size": VOCABULARY, "hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 40, "bos_token_id": VOCABULARY - 2,
        "eos_token_id": VOCABULARY - 1,
    }
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    state = CLIPTextModelWithProjection(CLIPTextConfig(**config, projection_dim=16)).state_dict()
    return text_encoder(config, state)


def tiny_painter(recipe: PartRecipe, encoders: int = 1, seed: int = 0, codes: int = CODES) -> PartPainter:
    """A base with two levels, whose maps are half as large as the latent; with two encoders like SDXL."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        readers = [tiny_encoder(width) for width in WIDTHS[:encoders]]
        more = {
            "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 16 + 6 * 8,
        } if encoders == 2 else {}
        unet = UNet2DConditionModel(
            block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=sum(WIDTHS[:encoders]), **more,
        )
        mapper = new_mapper(PARTS, codes, readers, recipe.projections, seed)
    return PartPainter(unet, readers, mapper, tiny_tokens(encoders).words, recipe.map_level)
