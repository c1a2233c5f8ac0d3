"""What IP-Prior Sample does beyond the published sampler: order, intervals, memory, previews, types."""
from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

SIZE = 128


@pytest.fixture(scope="module")
def prior(inside):
    return inside.prior()


@pytest.fixture
def parts(inside):
    slots = torch.cat([inside.tokens(3).values, inside.tokens(1, seed=1).values])
    empty = inside.tokens(1, seed=1).values
    return inside.engine("slots").Parts(slots, empty, empty, source="the parts of a test")


@pytest.fixture
def sample(inside, prior, parts):
    def run(concepts=4, seed=0, solver="euler", prior=prior, **settings):
        node = inside.nodes("prior").SamplePrior
        with torch.inference_mode():
            return node.execute(prior, parts, seed, concepts, 4, 2.0, solver, 0.6, **settings).args[0].values

    return run


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_shuffled_parts_depend_on_the_seed_of_the_concept_alone(sample):
    together = sample(order="shuffled", seed=3)
    for number in range(4):
        close(together[number:number + 1], sample(1, order="shuffled", seed=3 + number))
    assert any((a - b).abs().max() > 0.01 for a, b in zip(together, sample(seed=3), strict=True))


def test_a_batch_too_large_for_memory_is_halved_until_it_fits(inside, sample, monkeypatch):
    whole, module, sizes = sample(5, start=inside.tokens(5)), inside.nodes("prior"), []
    sample_prior = module.sample_prior

    def short_of_memory(prior, parts, **settings):
        sizes.append(len(parts))
        if len(parts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return sample_prior(prior, parts, **settings)

    monkeypatch.setattr(module, "sample_prior", short_of_memory)
    close(sample(5, start=inside.tokens(5)), whole)
    assert sizes == [5, 3, 2, 2, 1]


def test_one_concept_too_large_for_memory_and_other_errors_are_told(inside, sample, monkeypatch):
    def fail(error, *_, **__):
        raise error

    for error in (torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("mat1 and mat2 do not fit")):
        monkeypatch.setattr(inside.nodes("prior"), "sample_prior", partial(fail, error))
        with pytest.raises(type(error), match=str(error)):
            sample(2)


def test_guidance_can_end_early_and_must_not_end_before_it_begins(sample):
    whole = sample()
    assert torch.equal(sample(guidance_start=0.0, guidance_end=1.0), whole)
    assert (sample(guidance_end=0.5) - whole).abs().max() > 1e-3
    with pytest.raises(ValueError, match="guidance_start to be less than guidance_end, got 0.7 and 0.3"):
        sample(guidance_start=0.7, guidance_end=0.3)


def test_a_negative_part_is_led_away_from(sample, inside, parts, prior):
    weighed = parts.weighed(0, -1.0)
    node = inside.nodes("prior").SamplePrior
    with torch.inference_mode():
        away = node.execute(prior, weighed, 0, 4, 4, 2.0, "euler", 0.6).args[0].values
        without = node.execute(prior, parts.weighed(0, 0.0), 0, 4, 4, 2.0, "euler", 0.6).args[0].values
    assert (away - without).abs().max() > 1e-3


class NoPictures:
    """Stands in for a preview whose pictures are as broken as its tokens."""

    def __init__(self, patcher):
        self.model, self.patcher = self, patcher

    def pictures(self, tokens):
        return tokens[:, None, :2, :3]


def test_damaged_weights_are_told_with_the_step(inside, sample, monkeypatch):
    damaged = inside.prior()
    with torch.no_grad():
        damaged.patcher.model.final_layer.linear.weight.fill_(float("nan"))
    monkeypatch.setattr(inside.comfy("model_management"), "load_models_gpu", lambda *_, **__: None)
    for prior in (damaged, replace(damaged, preview=NoPictures(damaged.patcher))):
        with pytest.raises(FloatingPointError, match="not finite at step 1 of 4"):
            sample(prior=prior)


class Shown:
    """Stands in for the page: keeps the pictures that the progress bar is given."""

    def __init__(self, inside):
        self.utils, self.pictures = inside.comfy("utils"), []

    def __enter__(self):
        self.utils.set_progress_bar_global_hook(self)
        return self.pictures

    def __exit__(self, *_):
        self.utils.set_progress_bar_global_hook(None)

    def __call__(self, value, total, preview, **_):
        if preview is not None:
            self.pictures.append((value, total, preview[1]))


def test_the_creature_models_show_what_the_concepts_come_to(inside):
    outputs = inside.pack("nodes.creatures.loading").LoadCreatureModels.execute().args
    prior, adapter, clip_vision = outputs[5], outputs[4], outputs[3]
    picture = torch.ones(1, 64, 64, 3)
    with torch.inference_mode():
        parts = inside.nodes("parts").EncodeParts.execute(
            clip_vision, adapter, {"part0": picture}, "centred", 0, 0.0, False, 3).args[0]
        with Shown(inside) as pictures:
            inside.nodes("prior").SamplePrior.execute(prior, parts, 0, 5, 8, 2.0, "euler", 0.6)
    value, total, wall = pictures[-1]
    assert (value, total, wall.size) == (8, 8, (3 * SIZE, 2 * SIZE))
    colours = wall.crop((0, 0, SIZE, SIZE)).getcolors(maxcolors=10**6)
    assert len(colours) > 100, "a creature was expected"
    assert wall.crop((2 * SIZE, SIZE, 3 * SIZE, 2 * SIZE)).getextrema() == ((255, 255),) * 3


def test_other_priors_move_the_bar_alone(inside, sample):
    with Shown(inside) as pictures:
        sample()
    assert pictures == []


@pytest.mark.parametrize("hidden_dim, has_bf16, expected", [
    (2048, True, torch.bfloat16), (2048, False, torch.float32), (192, True, torch.float32),
])
def test_wide_priors_work_in_bfloat16_where_the_processor_does(
    inside, monkeypatch, hidden_dim, has_bf16, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bf16}, raising=False)
    assert inside.nodes("loading").prior_dtype(hidden_dim) == expected


def test_a_prior_in_bfloat16_samples_nearly_the_same(inside, sample, monkeypatch):
    monkeypatch.setattr(inside.nodes("loading"), "prior_dtype", lambda width: torch.bfloat16)
    narrow = inside.prior()
    assert {weight.dtype for weight in narrow.patcher.model.parameters()} == {torch.bfloat16}
    found, expected = sample(prior=narrow), sample()
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.03 * expected.norm()
