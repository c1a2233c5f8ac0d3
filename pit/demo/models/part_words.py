"""The creatures' base of SD 1.5's structure with part words: what they are learned on, and what they draw."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import Dinov2Model

from ...encoders.dino import dino_features, load_dino
from ...files.lora import UNET_PREFIX
from ...files.whole import sha256_of
from ...partcraft.cluster_files import read_part_clusters
from ...partcraft.discovery import PartClusters
from ...partcraft.files import PartWords, load_part_words
from ...partcraft.mapper import TokenMapper
from ...partcraft.prompt import PartWord
from ...partcraft.training.base import with_projection
from ...partcraft.training.cache import PartEncoders
from ...partcraft.training.painter import PartPainter
from ...partcraft.training.texts import Tokens, clip_tokens
from .autoencoder import CreatureAutoencoder
from .chain import TEXT_GUIDANCE, ancestral, ignore, load_text_renderer
from .part_files import CLUSTER_FILES, DINO, NAME, WORD_FILES
from .unet import TextRenderer
from .weights import AUTOENCODER, SD15, float_weights, weight_file

# Maps of attention are as large as the latents: 16 x 16, which is what DINO sees as well.
MAP_LEVEL = 1
Prompt = Sequence[str | PartWord]


def load_creature_dino() -> Dinov2Model:
    """The shipped DINO, in fp32 on the CPU.

    Raises:
        WeightFileError: it is missing, damaged or of another version.
    """
    return load_dino(weight_file(DINO)).float().eval()


def load_creature_clusters() -> PartClusters:
    """The parts that the shipped DINO has found. Raises WeightFileError for a missing or damaged file."""
    return read_part_clusters(CLUSTER_FILES[NAME])


def load_creature_words() -> PartWords:
    """The shipped part words; errors as in `load_creature_clusters`."""
    return load_part_words(WORD_FILES[NAME])


def load_creature_autoencoder() -> CreatureAutoencoder:
    """The shipped autoencoder, in fp32 on the CPU; errors as in `load_creature_dino`."""
    autoencoder = CreatureAutoencoder()
    autoencoder.load_state_dict(float_weights(AUTOENCODER))
    return autoencoder.eval().requires_grad_(False)


def part_base_stamp() -> str:
    """A text that is different for every version of the base; errors as in `load_creature_dino`."""
    return sha256_of(weight_file(SD15))


def creature_part_encoders(dino: Dinov2Model) -> PartEncoders:
    """What encodes pictures for the training of part words; errors as in `load_creature_dino`."""
    autoencoder = load_creature_autoencoder()

    def latents(pixels: Tensor) -> Tensor:
        # Without spread: this autoencoder always gives the same latents of a picture.
        found = autoencoder.encode(pixels)
        return torch.cat([found, torch.zeros_like(found)], dim=1)

    models = {"creature models": "".join(sha256_of(weight_file(name)) for name in (AUTOENCODER, DINO))}
    return PartEncoders(
        models, latents, lambda pixels: dino_features(dino, pixels), dino.config.image_size
    )


def part_painter(base: TextRenderer, mapper: TokenMapper) -> tuple[PartPainter, Tokens]:
    """The base with part words, and how its texts become tokens."""
    tokens = clip_tokens(mapper.num_parts, encoders=1)
    encoder = with_projection(base.text.clip_l)
    return PartPainter(base.unet, [encoder], mapper, tokens.words, MAP_LEVEL), tokens


def merge_lora(unet: nn.Module, lora: dict[str, Tensor]) -> None:
    """Add a LoRA in kohya's layout to the linear layers of a diffusers UNet, in place."""
    for name, layer in unet.named_modules():
        key = UNET_PREFIX + name.replace(".", "_")
        if f"{key}.lora_up.weight" in lora:
            down, up = (lora[f"{key}.lora_{factor}.weight"].float() for factor in ("down", "up"))
            layer.weight.data += up @ down * (lora[f"{key}.alpha"].float() / len(down))


class PartArtist:
    """Draws prompts with part words, as Apply PartCraft and KSampler do; in fp32 on the CPU."""

    def __init__(self, words: PartWords):
        """
        Args:
            words: with their LoRA; made for the shipped base.
        Raises:
            WeightFileError: the shipped base is missing, damaged or of another version.
        """
        base = load_text_renderer()
        merge_lora(base.unet, words.lora)
        self.words, self.autoencoder = words, load_creature_autoencoder()
        self.painter, self.tokens = part_painter(base, words.mapper)
        self.painter.eval().requires_grad_(False)

    @torch.no_grad()
    def read(self, prompts: Sequence[Prompt]) -> Tensor:
        """What the UNet reads of prompts, each with at most one word for a part: `[N, 77, C]`."""
        mapper = self.words.mapper
        codes = torch.full((len(prompts), mapper.num_parts), mapper.num_codes)
        texts = []
        for row, prompt in enumerate(prompts):
            for word in (piece for piece in prompt if isinstance(piece, PartWord)):
                codes[row, word.part] = word.codes[0]
            texts.append([piece.part if isinstance(piece, PartWord) else piece for piece in prompt])
        ids = torch.stack([self.tokens.ids(text) for text in texts])
        return self.painter.read(ids, codes, torch.zeros(len(prompts), 6))[0]

    @torch.no_grad()
    def draw(
        self, prompts: Sequence[Prompt], seed: int, *, steps: int = 25, batch: int = 16,
        guidance_scale: float = TEXT_GUIDANCE, on_batch: Callable[[int], None] = ignore,
    ) -> Tensor:
        """Pictures of prompts, `[N, 3, 256, 256]` in 0..1."""
        pictures = []
        for start in range(0, len(prompts), batch):
            chunk = prompts[start:start + batch]
            context = self.read([*chunk, *[[""]] * len(chunk)])

            def predict(x: Tensor, time: Tensor, context: Tensor = context) -> tuple[Tensor, Tensor]:
                return self.painter.unet(x, time, context).sample.chunk(2)

            # A generator for each batch: its pictures do not depend on how many came before.
            generator = torch.Generator().manual_seed(seed + start)
            latents = ancestral(predict, len(chunk), generator, steps, guidance_scale, "epsilon")
            pictures.append((self.autoencoder.decode(latents) / 2 + 0.5).clamp(0, 1))
            on_batch(len(chunk))
        return torch.cat(pictures)
