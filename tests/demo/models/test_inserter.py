"""The creatures' InstructPix2Pix: what of it is the base's own, its files, and how it samples."""

from dataclasses import replace

import pytest
import torch

from pit.demo.models import weights
from pit.demo.models.instruct import INSTRUCT, instruct_state, is_kept
from pit.demo.models.library import OPTIMIZER
from pit.files.weights import WeightFileError, read_state, write_state
from tests.demo.instruct import write_untrained

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
MOST_BYTES = 8_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("weights") / "untrained")


@pytest.fixture(autouse=True)
def in_place(folder, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", folder)


@pytest.fixture(scope="module")
def inserter(folder):
    from pit.demo.models.inserter import CreatureInserter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "FOLDER", folder)
        return CreatureInserter()


def given(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 12, 4, 4, generator=generator), torch.randn(count, 77, 96, generator=generator)


def test_both_files_together_are_small(folder):
    assert sum((folder / name).stat().st_size for name in (INSTRUCT, OPTIMIZER)) <= MOST_BYTES


def test_what_is_not_in_the_file_is_that_of_the_base(folder):
    state, _ = read_state(folder / INSTRUCT)
    base = weights.with_prefix(weights.float_weights(weights.SD15), "unet.")
    found = instruct_state()
    assert found.keys() == base.keys() and not any(map(is_kept, state))
    assert all(torch.equal(found[key], base[key]) for key in base if key not in state)
    assert found["conv_in.weight"].shape[1] == 2 * base["conv_in.weight"].shape[1]


def test_what_training_starts_from_draws_as_the_base_whatever_the_scene():
    from pit.demo.models.chain import load_text_renderer
    from pit.demo.models.inserter import new_inserter

    (scene, context), model, base = given(2), new_inserter(), load_text_renderer()
    times = torch.tensor([100, 700])
    with torch.no_grad():
        expected = base.predict(scene, times, context)
        torch.testing.assert_close(model.predicted(scene, times, 3 * scene, context), expected)
    learned = {name for name, weight in model.unet.named_parameters() if weight.requires_grad}
    assert learned == {name for name, _ in model.unet.named_parameters() if not is_kept(name)}


def test_a_file_that_was_trained_on_another_base_is_refused(folder, tmp_path, monkeypatch):
    state, metadata = read_state(folder / INSTRUCT)
    for name in (weights.SD15, OPTIMIZER):
        (tmp_path / name).symlink_to(folder / name)
    write_state(tmp_path / INSTRUCT, state, metadata | {"base": "another"})
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    with pytest.raises(WeightFileError, match="to be made from the creature_sd15.safetensors beside it"):
        instruct_state()


def test_a_picture_depends_on_its_own_seed_alone(inserter):
    from pit.demo.models.inserter import PUBLISHED, RECOMMENDED

    scenes, contexts = given(3)
    for settings in (replace(RECOMMENDED, steps=3), replace(PUBLISHED, steps=3)):
        together = inserter.sample(scenes, contexts, 5, settings)
        alone = inserter.sample(scenes[2:], contexts[2:], 7, settings)
        torch.testing.assert_close(together[2:], alone, rtol=1e-3, atol=1e-3)
        assert torch.equal(together, inserter.sample(scenes, contexts, 5, settings))


@pytest.mark.parametrize("guidance, image_guidance, passes", [(3.0, 1.0, 2), (7.0, 1.5, 3), (1.0, 1.5, 1)])
def test_guidance_is_the_published_one_in_as_few_passes_as_count(inserter, guidance, image_guidance, passes):
    from pit.demo.models.inserter import InsertionSettings
    from pit.object_insertion.sampling import guided

    (scene, context), (x, _) = given(1), given(1, seed=1)
    seen = []
    hook = inserter.model.unet.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    time, none = torch.tensor(400), torch.zeros_like(context)
    found = inserter.noise(x, time, scene, context, InsertionSettings(1, guidance, image_guidance))
    hook.remove()
    three = (scene, context), (scene, none), (0 * scene, none)
    each = [inserter.model.predicted(x, time[None], *branch) for branch in three]
    torch.testing.assert_close(found, guided(*each, guidance, image_guidance), rtol=1e-3, atol=1e-4)
    assert seen == [passes]


def test_steps_are_those_of_the_published_scheduler():
    from pit.demo.models.inserter import PUBLISHED, RECOMMENDED, scheduler_of
    from pit.object_insertion.sampling import leading_sigmas, leading_timesteps

    scheduler = scheduler_of(PUBLISHED)
    assert scheduler.timesteps.tolist() == leading_timesteps(100).tolist()
    torch.testing.assert_close(scheduler.sigmas, leading_sigmas(100), rtol=1e-4, atol=1e-5)
    assert len(scheduler_of(RECOMMENDED).timesteps) == 30


def test_more_queries_make_the_context_depend_less_on_the_seed(inserter):
    from PIL import Image

    objects = [Image.new("RGB", (40, 60), color) for color in ("red", "blue")]
    spread = [
        torch.stack([inserter.contexts(objects, seed, count) for seed in range(6)]).var(dim=0).mean()
        for count in (1, 16)
    ]
    assert spread[1] < 0.2 * spread[0]
    assert inserter.contexts(objects).shape == (2, 77, 96)
