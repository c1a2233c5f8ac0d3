"""The training of the creatures' part words, in a few steps: what it learns from, and what it writes."""

from dataclasses import replace

import pytest
import torch

from pit.demo.drawing.creature import PARTS, SPECIES
from pit.demo.models.chain import load_text_renderer
from pit.demo.models.part_files import CLUSTERS, WORDS
from pit.demo.models.part_words import PartArtist, part_painter
from pit.demo.part_places import GROUPS, Overlaps
from pit.demo.training import part_words as training
from pit.demo.training.stage import Run
from pit.files.lora import Lora, merge_lora
from pit.partcraft.cluster_files import read_part_clusters
from pit.partcraft.files import load_part_words
from pit.partcraft.training.painter import lora_of, new_mapper, prepare
from tests.demo.untrained_parts import use, write_untrained

SEED, MOST_BYTES = 3, 3_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("parts") / "weights")


@pytest.fixture(autouse=True)
def small(folder, monkeypatch):
    use(folder, monkeypatch)
    monkeypatch.setattr(training, "PICTURES", 2)
    monkeypatch.setattr(training, "CODES", 4)
    brief = {"steps": 2, "batch": 2}
    monkeypatch.setattr(training, "RECIPE", replace(training.RECIPE, **brief))
    monkeypatch.setattr(training, "BASELINES", {
        name: replace(recipe, **brief) for name, recipe in training.BASELINES.items()
    })


def test_words_and_baselines_are_learned_from_pictures_that_are_encoded_once(tmp_path, monkeypatch):
    run = Run(tmp_path, torch.device("cpu"), torch.float32, SEED)
    out = tmp_path / "weights"
    out.mkdir()
    training.train_part_words(run, out)
    words, clusters = load_part_words(out / WORDS), read_part_clusters(out / CLUSTERS)
    assert words.vocabulary.classes == tuple(sorted(SPECIES)) and words.mapper.num_parts == GROUPS
    assert len(words.lora) and words.dim == 96
    assert clusters.coarse.shape[0] == GROUPS and clusters.names is not None
    assert (out / WORDS).stat().st_size + (out / CLUSTERS).stat().st_size < MOST_BYTES
    pictures = PartArtist(words).draw([[""]], 0, steps=1)
    assert pictures.shape == (1, 3, 256, 256) and 0 <= pictures.min() <= pictures.max() <= 1
    encoders = training.creature_part_encoders(training.load_creature_dino())
    nothing = replace(encoders, latents=None, features=None)
    monkeypatch.setattr(training, "creature_part_encoders", lambda dino: nothing)
    assert training.encoded(run).cache.fingerprint


def test_the_baselines_differ_from_the_recipe_in_one_thing():
    lossless, inverted = training.BASELINES.values()
    assert lossless.attention_weight == 0 and inverted.projections == 0
    assert replace(lossless, attention_weight=training.RECIPE.attention_weight) == training.RECIPE
    assert replace(inverted, projections=training.RECIPE.projections) == training.RECIPE


def test_groups_are_called_after_the_parts_that_they_lie_over():
    truth = torch.arange(GROUPS).repeat_interleave(torch.tensor([40] + [4] * 9))[None, None]
    labels = (truth + 3) % GROUPS
    labels[truth == 9] = 3  # the last part is taken for background
    names = training.part_names(Overlaps.of(labels, truth))
    assert names == [*PARTS[6:8], "", "", *PARTS[:6]]


def test_a_merged_lora_acts_as_in_training():
    base = load_text_renderer()
    painter, _ = part_painter(base, new_mapper(GROUPS, 4, [base.text.clip_l], 1, SEED))
    prepare(painter, replace(training.RECIPE, precision="fp32"), SEED)
    with torch.no_grad():
        for name, value in painter.unet.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.1)
    merged = load_text_renderer().unet
    merge_lora(merged, Lora(lora_of(painter), {}, ()))
    noisy, context = torch.randn(1, 12, 16, 16), torch.randn(1, 77, 96)
    with torch.no_grad():
        ours, theirs, plain = (
            unet(noisy, torch.tensor([500]), context).sample
            for unet in (merged, painter.unet, load_text_renderer().unet)
        )
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, plain, atol=1e-3)
