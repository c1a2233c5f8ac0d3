"""What the creatures' Parts2Whole makes of references and poses, as the measures draw it."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image
from torch import Tensor

from ...images import clip_pixel_values, to_pil, to_tensor
from ...parts2whole.attention import KeysAndValues
from ...parts2whole.parts import AS_TRAINED, Placed, Reference, Wiring, placed, wiring
from ...parts2whole.pose import pose_features, pose_picture
from ...parts2whole.references import reading
from ...parts2whole.sample import Conditions, predicted_noise
from ...parts2whole.training.step import TRAINING_SCHEDULE
from ...parts2whole.unets import Denoiser, write_references
from .chain import LATENT_SHAPE, OnBatch, ignore
from .loading import load_creature_autoencoder, load_creature_vision
from .sizes import ENCODER_SIZE, PICTURE_SIZE
from .whole import load_whole, load_words

SIZE = (PICTURE_SIZE, PICTURE_SIZE)


@dataclass(frozen=True)
class Request:
    """A picture to make: its references, each for one part, its pose if it has one, and its prompt."""

    references: tuple[Reference, ...]
    pose: Image.Image | None
    prompt: str


@dataclass(frozen=True)
class WholeSettings:
    """How wholes are drawn.

    Attributes:
        wiring: by its name, as in **Encode References**.
        references, tokens: whether references are read, and their image tokens.
    """

    wiring: str = AS_TRAINED
    references: bool = True
    tokens: bool = True
    guidance: float = 3.0
    steps: int = 25


RECOMMENDED = WholeSettings()


class CreatureWhole:
    """Everything that makes wholes, on the CPU in fp32."""

    def __init__(self) -> None:
        """Load the shipped weights.

        Raises:
            WeightFileError: a file is missing, damaged or of another version.
        """
        parts = load_whole()
        self.reference_unet, self.guider = parts.reference_unet, parts.pose_guider
        self.denoiser, self.text = Denoiser(parts.unet, parts.decoupled), load_words()
        self.autoencoder, self.vision = load_creature_autoencoder(), load_creature_vision()

    @torch.no_grad()
    def draw(
        self, requests: Sequence[Request], seed: int, settings: WholeSettings = RECOMMENDED, batch: int = 16,
        on_batch: OnBatch = ignore,
    ) -> Tensor:
        """Pictures `[N, 3, 256, 256]` in 0..1.

        Args:
            requests: all with the same number of references, and all or none with a pose.
            seed: picture i is that of seed + i, whatever else is drawn along with it.
            on_batch: called with the number of pictures after each batch.
        """
        pictures = []
        for start in range(0, len(requests), batch):
            few = requests[start:start + batch]
            generators = [torch.Generator().manual_seed(seed + start + place) for place in range(len(few))]
            latents = self.sample(self.conditions(few, settings), generators, settings)
            pictures.append(self.autoencoder.pictures(latents))
            on_batch(len(few))
        return torch.cat(pictures)

    def sample(
        self, given: Conditions, generators: list[torch.Generator], settings: WholeSettings
    ) -> Tensor:
        """Latents `[B, 12, 16, 16]`, by the ancestral Euler sampler, as in the bundled workflow."""
        scheduler = EulerAncestralDiscreteScheduler(**TRAINING_SCHEDULE)
        scheduler.set_timesteps(settings.steps)
        noise = torch.stack([torch.randn(LATENT_SHAPE, generator=generator) for generator in generators])
        x = noise * scheduler.init_noise_sigma
        for time in scheduler.timesteps:
            seen = scheduler.scale_model_input(x, time)
            found = predicted_noise(self.denoiser, seen, time, given, settings.guidance)
            x = scheduler.step(found, time, x, generator=generators).prev_sample
        return x

    def conditions(self, requests: Sequence[Request], settings: WholeSettings) -> Conditions:
        """What the pictures are made from."""
        wired, seen = wiring(settings.wiring), [placed(each.references, *SIZE) for each in requests]
        told = [self.told(each, wired) for each in requests]
        images = torch.stack([self.tokens(each) for each in seen])
        text, images = wired.tokens(torch.cat([text for _, text in told]), images)
        poses = [pose_picture(to_tensor([each.pose]), *SIZE) for each in requests if each.pose]
        return Conditions(
            text, self.text([""]), images if settings.tokens else None,
            pose_features(self.guider, torch.cat(poses)) if poses else None,
            self.read(seen, [labels for labels, _ in told], wired) if settings.references else None,
        )

    def told(self, request: Request, wired: Wiring) -> tuple[Tensor, Tensor]:
        """The embedded labels `[R, 77, C]` and the embedded prompt `[1, 77, C]`, as they are wired."""
        labels = self.text([reference.label for reference in request.references])
        return wired.texts(labels, self.text([request.prompt]))

    def tokens(self, seen: Placed) -> Tensor:
        """An image token of each reference, `[R, 256]`."""
        pictures = to_pil(seen.pictures.movedim(1, -1))
        return self.vision.embed(clip_pixel_values(pictures, ENCODER_SIZE))

    def read(
        self, seen: Sequence[Placed], labels: Sequence[Tensor], wired: Wiring
    ) -> dict[str, KeysAndValues]:
        """References as the layers attend to them."""
        pictures, masks = (torch.cat(each) for each in zip(*seen, strict=True))
        written = write_references(
            self.reference_unet, self.autoencoder.encode(pictures * 2 - 1), torch.cat(list(labels)),
            wired.masks_of(masks), wired.rounded,
        )
        return self.denoiser.keys_and_values(reading(written, pictures=len(seen)))
