"""Make the pictures of the README that neither a template nor a benchmark makes.

Two are new: parts with what becomes of them, and how concepts are steered. The sets of parts are chosen,
the seeds are not: they are 0, 1, 2 and so on. Two are rows of what benchmarks have put into docs/. Run in
the folder of the pack, inside dev.py's environment; it takes a minute or two:

    python -m dev.readme_pictures
"""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks import labelled, presets
from dev import ROOT
from pit.concepts.concepts import blend
from pit.demo.measure.report import as_images
from pit.demo.measure.suite import RECOMMENDED
from pit.demo.measure.trials import FREE, Trial, draw_trials
from pit.demo.models.chain import CreatureChain
from pit.demo.models.sizes import TOKEN_DIM
from pit.piece_it_together.sample import concept_noise, sample_prior

TRIALS = draw_trials(0, 16, 3, FREE, purpose="pictures")
SHOWN = (3, 0, 14, 2)  # a beach, a meadow, a desert, the snow; the first has wings
CONCEPTS = 6
# In pixels; pictures are drawn larger.
PICTURE, PART, GAP, RADIUS, LABEL = 160, 128, 8, 16, 210
INK, QUALITY = "#333333", 86
WEIGHTS = (-1.0, 0.0, 0.5, 0.6, 0.7, 1.0)
AMOUNTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
STRENGTH, VARIED_FROM_SEED = 0.75, 100
DOCS = ROOT / "docs"
# New picture: the picture whose rows it shows, the height of its title, that of a row, and which rows.
SHORTENED = {
    "ip_lora_short": ("ip_lora", labelled.TITLE, labelled.CELL, (2, 3)),
    "training_short": ("presets", 0, presets.CELL, (0, 1, 2, 6)),
}


class Studio:
    """The creature models, at the recommended guidance."""

    def __init__(self) -> None:
        self.chain = CreatureChain()

    def concepts(self, trial: Trial, count: int) -> Tensor:
        """What the first seeds make of the parts of a trial, `[count, 16, D]`."""
        return self.sample(self.parts(trial), concept_noise(0, count, TOKEN_DIM))

    def parts(self, trial: Trial) -> Tensor:
        """`[P, 16, D]`."""
        return self.chain.encode_parts(trial.part_pictures())

    @torch.no_grad()
    def sample(self, parts: Tensor, noise: Tensor, **options) -> Tensor:
        """Concepts `[B, 16, D]` of parts `[P, 16, D]`, one for each noise `[B, 16, D]`."""
        conditions = self.chain.slots(parts).expand(len(noise), -1, -1)
        return sample_prior(
            self.chain.prior, conditions, empty_tokens=self.chain.empty, noise=noise,
            guidance_scale=RECOMMENDED.guidance_scale, **options,
        )

    def weighted(self, trial: Trial, part: int, weight: float) -> Tensor:
        """The first concept with another weight of one part, as Part Weight has it, `[1, 16, D]`."""
        parts, empty = self.parts(trial), self.chain.empty
        seen, unseen = parts.clone(), empty.expand(len(parts), -1, -1).clone()
        towards = empty[0] + abs(weight) * (parts[part] - empty[0])
        seen[part], unseen[part] = (towards, empty[0]) if weight > 0 else (empty[0], towards)
        noise = concept_noise(0, 1, TOKEN_DIM)
        return self.sample(seen, noise, negative_parts=unseen.flatten(0, 1)[None])

    def varied(self, trial: Trial, count: int) -> Tensor:
        """The first concept, and variations of it, `[count, 16, D]`."""
        first, noise = self.concepts(trial, 1), concept_noise(VARIED_FROM_SEED, count - 1, TOKEN_DIM)
        start = first.expand(count - 1, -1, -1)
        varied = self.sample(self.parts(trial), noise, init_tokens=start, strength=STRENGTH)
        return torch.cat([first, varied])

    def render(self, tokens: Tensor, caption: str) -> list[Image.Image]:
        """Pictures of tokens `[B, 16, D]`, all from the same noise, as large as they are shown."""
        drawn = (as_images(self.chain.render(each[None], [caption], 0))[0] for each in tokens)
        return [each.resize((PICTURE, PICTURE), Image.Resampling.LANCZOS) for each in drawn]


def rounded(picture: Image.Image) -> Image.Image:
    """With round corners on white."""
    scale = 4
    mask = Image.new("L", [side * scale for side in picture.size])
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, RADIUS * scale, fill=255)
    white = Image.new("RGB", picture.size, "white")
    return Image.composite(picture, white, mask.resize(picture.size, Image.Resampling.LANCZOS))


def parts_to_creatures(studio: Studio) -> Image.Image:
    """A row for each set of parts: part + part + part, an arrow, and what the first seeds make of them."""
    trials = [TRIALS[number] for number in SHOWN]
    step, between = PICTURE + GAP, 30
    left = 3 * (PART + between) + 24
    sheet = Image.new("RGB", (left + CONCEPTS * step, len(trials) * step - GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(28)
    for row, trial in enumerate(trials):
        middle = row * step + PICTURE // 2
        for column, part in enumerate(trial.part_pictures()):
            x = column * (PART + between)
            sheet.paste(part.resize((PART, PART), Image.Resampling.LANCZOS), (x, middle - PART // 2))
            if column:
                pen.text((x - between / 2, middle), "+", INK, font, anchor="mm")
        arrow = left - 46
        pen.line((arrow, middle, arrow + 24, middle), INK, 3)
        pen.polygon([(arrow + 34, middle), (arrow + 22, middle - 7), (arrow + 22, middle + 7)], INK)
        for column, picture in enumerate(studio.render(studio.concepts(trial, CONCEPTS), trial.caption)):
            sheet.paste(rounded(picture), (left + column * step, row * step))
    return sheet


def steering(studio: Studio) -> Image.Image:
    """One concept with other weights of its wings, its variations, and its blends with another."""
    trial, other = (TRIALS[number] for number in SHOWN[:2])
    wings = trial.parts.index("wings")
    weighted = torch.cat([studio.weighted(trial, wings, weight) for weight in WEIGHTS])
    ends = studio.concepts(trial, 1), studio.concepts(other, 1)
    rows = {
        "weight of the wings": (weighted, [f"{weight:g}" for weight in WEIGHTS]),
        "variations of it": (studio.varied(trial, CONCEPTS), ["picked", *map(str, range(1, CONCEPTS))]),
        "blend with another": (blend(*ends, AMOUNTS, True), [f"{amount:g}" for amount in AMOUNTS]),
    }
    step, title = PICTURE + GAP, 26
    sheet = Image.new("RGB", (LABEL + CONCEPTS * step, len(rows) * (step + title)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(20)
    for row, (label, (tokens, names)) in enumerate(rows.items()):
        top = row * (step + title) + title
        pen.text((0, top + PICTURE / 2), label, INK, font, anchor="lm")
        for column, picture in enumerate(studio.render(tokens, trial.caption)):
            x = LABEL + column * step
            pen.text((x + PICTURE / 2, top - title / 2), names[column], INK, font, anchor="mm")
            sheet.paste(rounded(picture), (x, top))
    return sheet


def shortened(picture: Image.Image, title: int, height: int, rows: tuple[int, ...]) -> Image.Image:
    """The title of a picture, and some of its rows."""
    short = Image.new("RGB", (picture.width, title + len(rows) * height), "white")
    short.paste(picture.crop((0, 0, picture.width, title)))
    for place, row in enumerate(rows):
        top = title + row * height
        short.paste(picture.crop((0, top, picture.width, top + height)), (0, title + place * height))
    return short


def main() -> None:
    studio = Studio()
    pictures = {make.__name__: make(studio) for make in (parts_to_creatures, steering)}
    for name, (whole, *layout) in SHORTENED.items():
        pictures[name] = shortened(Image.open(DOCS / f"{whole}.jpg"), *layout)
    for name, picture in pictures.items():
        picture.save(DOCS / f"{name}.jpg", quality=QUALITY, subsampling=0, optimize=True)


if __name__ == "__main__":
    main()
