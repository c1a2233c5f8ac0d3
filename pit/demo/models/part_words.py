"""The creatures' base of SD 1.5's structure with part words: what they are learned on, and what they draw."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Dinov2Model

from ...encoders.dino import dino_features, load_dino
from ...files.lora import Lora, merge_lora
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
from .chain import TEXT_GUIDANCE, OnBatch, ancestral, ignore, in_batches, load_text_renderer
from .loading import load_creature_autoencoder
from .part_files import CLUSTER_FILES, DINO, NAME, WORD_FILES
from .unet import TextRenderer
from .weights import AUTOENCODER, check_base, weight_file

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
    """The shipped part words.

    Raises:
        WeightFileError: they are missing, damaged, or were trained on another base.
    """
    words = load_part_words(WORD_FILES[NAME])
    check_base(WORD_FILES[NAME], "part_words")
    return words


def creature_part_encoders(dino: Dinov2Model) -> PartEncoders:
    """What encodes pictures for the training of part words; errors as in `load_creature_dino`."""
    models = {"creature models": "".join(sha256_of(weight_file(name)) for name in (AUTOENCODER, DINO))}
    return PartEncoders(
        models, load_creature_autoencoder().mean_and_spread, lambda pixels: dino_features(dino, pixels),
        dino.config.image_size,
    )


def part_painter(base: TextRenderer, mapper: TokenMapper) -> tuple[PartPainter, Tokens]:
    """The base with part words, and how its texts become tokens."""
    tokens = clip_tokens(mapper.num_parts, encoders=1)
    encoder = with_projection(base.text.clip_l)
    return PartPainter(base.unet, [encoder], mapper, tokens.words, MAP_LEVEL), tokens


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
        merge_lora(base.unet, Lora(words.lora, {}, ()))
        self.words, self.autoencoder = words, load_creature_autoencoder()
        self.painter, self.tokens = part_painter(base, words.mapper)
        self.painter.eval().requires_grad_(False)

    @torch.no_grad()
    def read(self, prompts: Sequence[Prompt]) -> Tensor:
        """What the UNet reads of prompts: `[N, 77, C]`.

        Raises:
            ValueError: a word stands for a mixture of several codes.
        """
        mapper = self.words.mapper
        codes = torch.full((len(prompts), mapper.num_parts), mapper.num_codes)
        texts = []
        for row, prompt in enumerate(prompts):
            for word in (piece for piece in prompt if isinstance(piece, PartWord)):
                if len(word.codes) != 1:
                    raise ValueError(f"Expected one code for each part, got {len(word.codes)} for a part.")
                codes[row, word.part] = word.codes[0]
            texts.append([piece.part if isinstance(piece, PartWord) else piece for piece in prompt])
        ids = torch.stack([self.tokens.ids(text) for text in texts])
        return self.painter.read(ids, codes, torch.zeros(len(prompts), 6))[0]

    def draw(
        self, prompts: Sequence[Prompt], seed: int, *, steps: int = 25, batch: int = 16,
        guidance_scale: float = TEXT_GUIDANCE, on_batch: OnBatch = ignore,
    ) -> Tensor:
        """Pictures of prompts, `[N, 3, 256, 256]` in 0..1."""
        def draw(rows: slice, generator: torch.Generator) -> Tensor:
            chunk = prompts[rows]
            context = self.read([*chunk, *[[""]] * len(chunk)])

            def predict(x: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
                return self.painter.unet(x, time, context).sample.chunk(2)

            return ancestral(predict, len(chunk), generator, steps, guidance_scale, "epsilon")

        return in_batches(self.autoencoder, len(prompts), seed, batch, draw, on_batch)
