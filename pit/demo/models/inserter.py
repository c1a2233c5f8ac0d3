"""The creatures' models that insert things, as one chain without ComfyUI, for training and measures."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from ...object_insertion.condition import LETTERBOX, object_context, object_pictures, object_pixels
from ...object_insertion.files import load_embedding_optimizer
from ...object_insertion.sampling import GUIDANCE, IMAGE_GUIDANCE, OFFSET, STEPS, guided, is_guided
from ...object_insertion.training.inserter import Inserter
from ...object_insertion.training.start import new_optimizer
from ...training.denoising import noise_schedule
from .chain import OnBatch, ignore
from .instruct import base_weights, instruct_state, is_kept, optimizer_file
from .loading import load_creature_autoencoder, load_creature_vision
from .sizes import ENCODER_SIZE, LATENT_CHANNELS, TEXT_SD15, VISION
from .unet import build_sd15_unet
from .vision import CreatureVision

FIRST = "conv_in.weight"


@dataclass(frozen=True)
class InsertionSettings:
    """How insertions are sampled.

    Attributes:
        ancestral: by the published sampler, Euler's ancestral one; otherwise by DPM-Solver++ of the second
            order with Karras' spacing (arXiv 2211.01095, 2206.00364).
    """

    steps: int = 30
    guidance: float = 3.0
    image_guidance: float = 1.0
    ancestral: bool = False


RECOMMENDED = InsertionSettings()
PUBLISHED = InsertionSettings(STEPS, GUIDANCE, IMAGE_GUIDANCE, ancestral=True)
QUERIES = 16


def build_instruct_unet() -> UNet2DConditionModel:
    """The UNet, whose input is noisy latents and behind them those of the scene, with random weights."""
    return build_sd15_unet(2 * LATENT_CHANNELS)


def new_inserter() -> Inserter:
    """What training starts from: the shipped base, which does not look at the scene, and a new optimizer.

    Raises:
        WeightFileError: the base is missing, damaged or of another version.
    """
    unet, state = build_instruct_unet(), base_weights()
    first = state[FIRST]
    state[FIRST] = torch.cat([first, torch.zeros_like(first)], dim=1)
    unet.load_state_dict(state)
    for key, weight in unet.named_parameters():
        weight.requires_grad_(not is_kept(key))
    return Inserter(new_optimizer(VISION["channels"][-1], TEXT_SD15["hidden_size"]), unet)


class CreatureInserter:
    """Everything that inserts things, on the CPU in fp32.

    Attributes:
        model: optimizer and UNet.
    """

    def __init__(self, optimizer: Path | None = None) -> None:
        """Load the shipped weights, with another Embedding Optimizer if there is one.

        Raises:
            WeightFileError: a file is missing, damaged or of another version.
        """
        self.vision, self.autoencoder = load_creature_vision(), load_creature_autoencoder()
        unet = build_instruct_unet()
        unet.load_state_dict(instruct_state())
        self.model = Inserter(load_embedding_optimizer(optimizer or optimizer_file()).float(), unet)
        self.model.eval().requires_grad_(False)

    @torch.no_grad()
    def contexts(self, objects: list[Image.Image], seed: int = 0, queries: int = QUERIES) -> Tensor:
        """What the UNet reads of pictures of objects, `[N, 77, C]`."""
        features = object_features(self.vision, objects).split(1)
        # One by one, since many queries take many times the memory of an object.
        return torch.cat([object_context(self.model.optimizer, each, seed, queries) for each in features])

    @torch.no_grad()
    def encode(self, pictures: Tensor, batch: int = 16) -> Tensor:
        """Pictures `[N, 3, H, W]` in 0..1, both sides multiples of 16, to latents `[N, 12, h, w]`."""
        return torch.cat([self.autoencoder.encode(chunk * 2 - 1) for chunk in pictures.split(batch)])

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: int = 16) -> Tensor:
        """Latents `[N, 12, h, w]` to pictures `[N, 3, 16 h, 16 w]` in 0..1."""
        return torch.cat([self.autoencoder.pictures(chunk) for chunk in latents.split(batch)])

    def insert(
        self, scenes: Tensor, contexts: Tensor, seed: int, settings: InsertionSettings = RECOMMENDED,
        batch: int = 16, on_batch: OnBatch = ignore,
    ) -> Tensor:
        """Scenes with an object in each, as pictures `[N, 3, 16 h, 16 w]` in 0..1.

        Args:
            scenes: latents `[N, 12, h, w]`.
            contexts: of the objects, `[N, 77, C]`.
            seed: picture i is that of seed + i, whatever else is inserted along with it.
            on_batch: called with the number of pictures after each batch.
        """
        chunks, pictures = zip(scenes.split(batch), contexts.split(batch), strict=True), []
        for number, (scene, context) in enumerate(chunks):
            pictures.append(self.decode(self.sample(scene, context, seed + number * batch, settings)))
            on_batch(len(scene))
        return torch.cat(pictures)

    @torch.no_grad()
    def sample(self, scene: Tensor, context: Tensor, seed: int, settings: InsertionSettings) -> Tensor:
        """Latents `[N, 12, h, w]` of scenes with objects in them; arguments as in `insert`."""
        scheduler = scheduler_of(settings)
        generators = [torch.Generator().manual_seed(seed + number) for number in range(len(scene))]
        noise = [torch.randn(scene.shape[1:], generator=generator) for generator in generators]
        x = torch.stack(noise) * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            found = self.noise(scheduler.scale_model_input(x, time), time, scene, context, settings)
            x = scheduler.step(found, time, x, generator=generators).prev_sample
        return x

    def noise(
        self, x: Tensor, time: Tensor, scene: Tensor, context: Tensor, settings: InsertionSettings
    ) -> Tensor:
        """The noise that is followed from `x`, by as few passes as count."""
        scales, null = (settings.guidance, settings.image_guidance), torch.zeros_like(context)
        branches = [(scene, context)]
        if is_guided(*scales):
            branches.append((scene, null))
            if settings.image_guidance != 1:
                branches.append((torch.zeros_like(scene), null))
        scenes, contexts = (torch.cat(each) for each in zip(*branches, strict=True))
        inputs = x.repeat(len(branches), 1, 1, 1)
        found = self.model.predicted(inputs, time.expand(len(inputs)), scenes, contexts).chunk(len(branches))
        # Of an image_guidance of 1, nothing is left of what is seen with neither.
        return guided(found[0], found[min(1, len(found) - 1)], found[-1], *scales)


def object_features(vision: CreatureVision, pictures: list[Image.Image]) -> Tensor:
    """Features `[N, 64, 192]` of pictures of objects, prepared as by **Encode Object**."""
    seen = object_pictures(pictures, LETTERBOX, ENCODER_SIZE)
    pixels = object_pixels(seen, size=ENCODER_SIZE)
    return vision.features(pixels.to(vision.position.weight.device))


def scheduler_of(
    settings: InsertionSettings,
) -> EulerAncestralDiscreteScheduler | DPMSolverMultistepScheduler:
    """diffusers' scheduler, with its steps."""
    config = noise_schedule().config
    if settings.ancestral:
        scheduler = EulerAncestralDiscreteScheduler.from_config(
            config, timestep_spacing="leading", steps_offset=OFFSET
        )
    else:
        scheduler = DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True)
    scheduler.set_timesteps(settings.steps)
    return scheduler
