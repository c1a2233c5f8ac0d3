"""Training the renderer: UNet, text encoders and both IP-Adapters together, the resampler among them."""
from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ...ip_adapter.resampler import Resampler
from ...training.denoising import noise_schedule
from ..drawing.captions import caption, plain_caption
from ..drawing.composition import Composition, compose
from ..models.preview import TokenPreview
from ..models.reader import CLASSES
from ..models.sizes import RESAMPLER, TOKEN_DIM, TOKENS_PER_PICTURE
from ..models.unet import PREDICTION, Renderer
from .data import ALONE, EMPTY, KINDS, POSED, THINGS, WITH_THINGS, training_picture
from .encoder import attribute_loss, disturbed, pixel_values, preview_loss, spread_loss
from .stage import Run, Stage, train_stage
from .truth import Truth, weights_by_kind

# Rows with IP+ tokens, and rows with tokens of the base adapter.
PLUS_ROWS, BASE_ROWS = 28, 16
STAGE = Stage("unet", steps=6000, batch=PLUS_ROWS + BASE_ROWS, learning_rate=1e-3, warmup=200, decay=0.4)
MOST_SNR = 5.0
TOKEN_NOISE, EMBEDDING_NOISE = 0.4, 0.25
# The negative branch of guidance has neither tokens nor words, or a negative prompt without tokens, or the
# same tokens as the other branch without words: the UNet must know all three.
DROP_BOTH, DROP_TOKENS, DROP_TEXT = 0.08, 0.05, 0.10
CLEAN_SHARE = 0.5  # of the rows: the creature alone on white, where every tint of the ground shows
# Of the other rows with tokens of the base adapter.
SHARES = {ALONE: 0.25, WITH_THINGS: 0.35, POSED: 0.15, THINGS: 0.20, EMPTY: 0.05}
WORDLESS = 0.7  # of the rows of the base adapter: its embedding holds scene and things as well


@dataclass(frozen=True)
class RendererData:
    """What the renderer learns from, N rows of each.

    Attributes:
        pictures, clean: latents `[N, 12, 16, 16]`.
        features: of the clean creatures, `[N, 64, 192]`.
        nothing: features of an all-zero picture, `[1, 64, 192]`.
        embeddings, clean_embeddings: of the same pictures, `[N, 256]`.
        compositions, clean_compositions: what they show.
        views, labels: of the clean creatures, uint8 `[N, 64, 64, 3]` and int8 `[N, A]`.
        truth: about the pictures.
        importance, clean_importance: how much the error counts at each place of the pictures, `[N, 16, 16]`.
    """

    pictures: Tensor
    clean: Tensor
    features: Tensor
    nothing: Tensor
    embeddings: Tensor
    clean_embeddings: Tensor
    compositions: list[Composition]
    clean_compositions: list[Composition]
    views: np.ndarray
    labels: np.ndarray
    truth: Truth
    importance: Tensor
    clean_importance: Tensor


class TaughtRenderer(nn.Module):
    """The renderer, the resampler, and what keeps its tokens readable: a head and the preview."""

    def __init__(self, operations=nn) -> None:
        super().__init__()
        self.renderer = Renderer()
        self.resampler = Resampler(**RESAMPLER)
        self.attributes = operations.Linear(TOKENS_PER_PICTURE * TOKEN_DIM, sum(CLASSES))
        self.preview = TokenPreview()


@dataclass(frozen=True)
class Rows:
    """The rows of one step: those with IP+ tokens come first.

    Attributes:
        latents: `[B, 12, 16, 16]`.
        captions: of all rows.
        plus: numbers of the pictures of the first rows, `[M]`.
        embeddings: of the pictures of the other rows, with noise, `[B - M, 256]`.
        importance: how much the error counts at each place, `[B, 16, 16]`.
    """

    latents: Tensor
    captions: list[str]
    plus: Tensor
    embeddings: Tensor
    importance: Tensor


def train_unet(run: Run, data: RendererData, start: dict[str, dict[str, Tensor]]) -> TaughtRenderer:
    """Train the renderer to predict v from noisy latents, captions and tokens.

    Args:
        start: weights of the resampler, of the head and of the preview as the encoder's stage has left them.
    """
    torch.manual_seed(run.seed)
    model = TaughtRenderer()
    for name, state in start.items():
        getattr(model, name).load_state_dict(state)
    model.renderer.unet.to(memory_format=torch.channels_last)
    model.to(run.device)
    schedule = noise_schedule(PREDICTION, zero_snr=True)
    density = timestep_density(schedule)
    fitting, often = fitting_rows(data.truth), weights_by_kind(data.truth.kinds, SHARES)
    predict = torch.compile(model.renderer.predict, dynamic=False) if run.compiled else model.renderer.predict

    def loss_at(step: int, generator: torch.Generator) -> Tensor:
        rows = draw_rows(data, fitting, often, random.Random(f"{run.seed}/{step}"), generator)
        noise = torch.randn(rows.latents.shape, generator=generator)
        timesteps = torch.multinomial(density, STAGE.batch, replacement=True, generator=generator)
        noisy = schedule.add_noise(rows.latents, noise, timesteps)
        wanted = schedule.get_velocity(rows.latents, noise, timesteps).to(run.device)
        noisy = noisy.to(run.device, memory_format=torch.channels_last)
        no_tokens, captions = dropped(rows.captions, generator)
        with run.autocast():
            features = torch.cat([data.features[rows.plus].float(), data.nothing]).to(run.device)
            tokens, uncond = model.resampler(features).float().split([PLUS_ROWS, 1])
            strength = TOKEN_NOISE * torch.rand(PLUS_ROWS, 1, 1, generator=generator)
            given = disturbed(tokens, strength.to(run.device), generator)
            given = torch.where(no_tokens[:PLUS_ROWS, None, None].to(run.device), uncond, given)
            embeddings = rows.embeddings.masked_fill(no_tokens[PLUS_ROWS:, None], 0)
            base = model.renderer.base_projection(embeddings.to(run.device))
            words = model.renderer.text(captions)
            predicted = predict(noisy, timesteps.to(run.device), words, given, base).float()
            errors = (predicted - wanted).square().mean(dim=1)
            loss = (rows.importance.to(errors) * errors).mean()
            return loss + reading_loss(model, tokens, data, rows.plus, step, generator)

    return train_stage(run, STAGE, model, loss_at)


def reading_loss(
    model: TaughtRenderer, tokens: Tensor, data: RendererData, rows: Tensor, step: int,
    generator: torch.Generator,
) -> Tensor:
    """What keeps tokens as a prior and the preview need them, as in the stage of the encoder."""
    noisy = disturbed(tokens, 0.5, generator).flatten(1)
    labels = torch.from_numpy(data.labels[rows.numpy()].astype(np.int64))
    logits = model.attributes(noisy)
    loss = 0.05 * attribute_loss(logits, labels.to(logits.device)) + 0.05 * spread_loss(tokens)
    if step % 3 == 0:
        # Read off tokens that stay as they are: the preview follows them, and does not lead them.
        views = pixel_values(data.views[rows.numpy()])
        loss = loss + preview_loss(model.preview, noisy.detach(), views.to(logits.device))
    return loss


def fitting_rows(truth: Truth) -> Tensor:
    """The pictures that show the creature as its tokens do, unposed: numbers `[M]`."""
    kinds = torch.tensor([KINDS.index(ALONE), KINDS.index(WITH_THINGS)])
    return torch.isin(truth.kinds, kinds).nonzero().flatten()


def draw_rows(
    data: RendererData, fitting: Tensor, often: Tensor, words: random.Random, generator: torch.Generator
) -> Rows:
    """Draw pictures for both adapters, with captions that are new at each step."""
    count = len(data.pictures)
    plus = torch.randint(count, (PLUS_ROWS,), generator=generator)
    others = fitting[torch.randint(len(fitting), (PLUS_ROWS,), generator=generator)]
    base = torch.multinomial(often, BASE_ROWS, replacement=True, generator=generator)
    clean = torch.rand(STAGE.batch, generator=generator) < torch.tensor(
        [CLEAN_SHARE] * PLUS_ROWS + [CLEAN_SHARE / 2] * BASE_ROWS
    )
    plus = torch.where(clean[:PLUS_ROWS], plus, others)
    rows = torch.cat([plus, base])
    latents = torch.where(clean[:, None, None, None], data.clean[rows], data.pictures[rows]).float()
    of_base = clean[PLUS_ROWS:, None]
    embeddings = torch.where(of_base, data.clean_embeddings[base], data.embeddings[base]).float()
    noise = EMBEDDING_NOISE * torch.rand(BASE_ROWS, 1, generator=generator)
    captions = []
    for number, (row, is_clean) in enumerate(zip(rows.tolist(), clean.tolist(), strict=True)):
        shown = (data.clean_compositions if is_clean else data.compositions)[row]
        captions.append(words_for(shown, number >= PLUS_ROWS, words))
    importance = torch.where(clean[:, None, None], data.clean_importance[rows], data.importance[rows])
    return Rows(latents, captions, plus, disturbed(embeddings, noise, generator), importance)


def words_for(shown: Composition, by_embedding: bool, words: random.Random) -> str:
    """A caption, mostly a plain one: then only the tokens tell what the creature is like."""
    if by_embedding and words.random() < WORDLESS:
        return ""
    return plain_caption(shown) if words.random() < 0.65 else caption(shown, words)


def timestep_density(schedule: DDPMScheduler) -> Tensor:
    """How often each timestep is trained, `[1000]`: evenly, but more rarely where hardly any noise is left.

    An error of v weighs SNR + 1 times as much as the same error of the clean latents. Drawn like this, it
    weighs `MOST_SNR` + 1 times as much at most, in the spirit of min-SNR weighting (arXiv 2303.09556).
    """
    # What could be learned beyond that is finer than what the latents hold.
    signal = schedule.alphas_cumprod
    return ((MOST_SNR + 1) * (1 - signal)).clamp(max=1)


def dropped(captions: list[str], generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """Leave out tokens, words or both now and then, so that guidance has a negative branch.

    Returns:
        Which rows go without tokens, bool `[B]`; and the captions that remain.
    """
    # One number decides: below 0.08 both, up to 0.13 the tokens, above 0.9 the words.
    draw = torch.rand(len(captions), generator=generator)
    no_text = (draw < DROP_BOTH) | (draw > 1 - DROP_TEXT)
    kept = ["" if empty else text for text, empty in zip(captions, no_text.tolist(), strict=True)]
    return draw < DROP_BOTH + DROP_TOKENS, kept


def compositions(seed: int, count: int) -> tuple[list[Composition], list[Composition]]:
    """What the pictures of the data set show, and the same creatures alone on white."""
    pictures = [training_picture(seed, index) for index in range(count)]
    return [picture.composition for picture in pictures], [compose(picture.creature) for picture in pictures]
