"""The miniature InstructPix2Pix as ComfyUI's objects compute it, and the nodes of object insertion with it.

Its weights are those from before any training: both sides hold the same, whatever they are.
"""

from dataclasses import replace

import pytest
import torch

from pit.demo.models.sizes import LATENT_CHANNELS, LATENT_SIZE, PICTURE_SIZE
from tests.comfyui.nodes.object_insertion.shared import covering, nodes
from tests.demo.drawn import write_triplets
from tests.demo.instruct import write_untrained

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
CLOSE = 1e-4
LATENT = (LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("weights") / "untrained")


@pytest.fixture(scope="module")
def instruct(inside, folder):
    """MODEL, CLIP, VAE, CLIP_VISION, PIT_EMBEDDING_OPTIMIZER."""
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(inside.pack("pit.demo.models.weights"), "FOLDER", folder)
        yield inside.pack("nodes.creatures.instruct").LoadCreatureInstruct.execute().args


@pytest.fixture(scope="module")
def chain(folder):
    """The same in the classes in which they are trained."""
    from pit.demo.models import weights
    from pit.demo.models.inserter import CreatureInserter

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "FOLDER", folder)
        return CreatureInserter()


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(found, expected, close=CLOSE):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < close * expected.abs().max()
    assert expected.std() > 1e-3


def pictures(height=PICTURE_SIZE, width=PICTURE_SIZE, count=1, seed=0):
    return drawn(count, height, width, 3, seed=seed).sigmoid()


def encoded(inside, instruct, objects, **settings):
    node = nodes(inside, "encoding").EncodeObject
    given = {"seed": 3, "queries": 4, "variants": 1, "fit": "letterbox"} | settings
    return node.execute(instruct[4], instruct[3], objects, **given).args


def inserted(inside, instruct, scene, contexts, guidance=3.0, image_guidance=1.5, **settings):
    node = nodes(inside, "insert").InsertObject
    return node.execute(instruct[0], instruct[2], scene, *contexts, guidance, image_guidance, **settings).args


def sampled(inside, guider, latent, noise, steps=3, sampler="dpmpp_2m", spacing="karras"):
    schedule = nodes(inside, "models").InsertionSchedule
    sigmas = schedule.execute(guider.model_patcher, steps, spacing).args[0]
    return guider.sample(
        noise, latent["samples"], inside.comfy("samplers").sampler_object(sampler), sigmas,
        denoise_mask=latent.get("noise_mask"), disable_pbar=True, seed=3,
    )


def test_comfyui_takes_it_for_an_instructpix2pix(inside, instruct):
    base = instruct[0].model
    assert isinstance(base, inside.comfy("model_base").SD15_instructpix2pix)
    assert base.diffusion_model.input_blocks[0][0].weight.shape[1] == 2 * LATENT_CHANNELS
    assert base.latent_format.latent_channels == LATENT_CHANNELS
    for node in ("Insert Object", "Train Embedding Optimizer"):
        nodes(inside, "models").check_model(node, instruct[0])


@pytest.mark.parametrize("timestep", [999, 500, 20])
def test_the_unet_predicts_the_same_noise(instruct, chain, timestep):
    noisy, scene, context = drawn(2, *LATENT), drawn(2, *LATENT, seed=1), drawn(2, 77, 96)
    times = torch.full((2,), timestep)
    unet = instruct[0].get_model_object("diffusion_model")
    found = unet(torch.cat([noisy, scene], dim=1), times, context)
    expected = chain.model.predicted(noisy, times, scene, context)
    assert_same(found, expected)
    assert not torch.allclose(expected, chain.model.predicted(noisy, times, 0 * scene, context), atol=1e-3)


def test_objects_become_the_same_contexts(inside, instruct, chain):
    from pit.images import to_pil

    objects = pictures(80, 50, count=2)
    context, null = encoded(inside, instruct, objects)
    assert_same(context[0][0], chain.contexts(to_pil(objects), seed=3, queries=4))
    assert not null[0][0].any()


def test_a_copy_with_weights_of_its_own_has_the_same(inside, instruct, folder, monkeypatch):
    """As ComfyUI makes one to train a LoRA, and for a second GPU."""
    monkeypatch.setattr(inside.pack("pit.demo.models.weights"), "FOLDER", folder)
    make, given = instruct[0].cached_patcher_init
    copied = make(*given).model.diffusion_model.state_dict()
    state = instruct[0].model.diffusion_model.state_dict()
    assert all(torch.equal(copied[key], value) for key, value in state.items())


def test_the_nodes_insert_as_the_trained_models_do(inside, instruct, chain):
    """Through ComfyUI's sampling: scene, guidance, schedule, and the published start, step by step."""
    from pit.demo.models.inserter import InsertionSettings, scheduler_of

    scene, contexts = pictures(), encoded(inside, instruct, pictures(64, 64))
    guider, latent, place, *_ = inserted(inside, instruct, scene, contexts)
    noise = drawn(1, *LATENT, seed=4)
    found = sampled(inside, guider, latent, noise, 4, "euler", "as published")
    settings = InsertionSettings(4, 3.0, 1.5, ancestral=True)
    scheduler, scenes = scheduler_of(settings), chain.encode(scene.movedim(-1, 1))
    x, sigmas = noise * scheduler.init_noise_sigma, scheduler.sigmas
    for time, sigma, after in zip(scheduler.timesteps, sigmas, sigmas[1:], strict=False):
        inputs = x / (sigma**2 + 1) ** 0.5
        x = x + chain.noise(inputs, time, scenes, contexts[0][0][0], settings) * (after - sigma)
    assert_same(found, x, close=1e-3)
    result = nodes(inside, "insert").PutBack.execute(instruct[2].decode(found), place).args[0]
    assert_same(result, chain.decode(x).movedim(1, -1), close=1e-2)


@pytest.mark.parametrize("height, width", [(256, 256), (250, 313), (17, 9), (600, 900)])
def test_scenes_of_any_size_come_back_in_it(inside, instruct, height, width):
    contexts = encoded(inside, instruct, pictures(64, 64))
    settings = {"working_size": 96}
    guider, latent, place, *_ = inserted(inside, instruct, pictures(height, width), contexts, **settings)
    assert all(side % 16 == 0 for side in place.padded)
    noise = drawn(*latent["samples"].shape)
    found = instruct[2].decode(sampled(inside, guider, latent, noise, steps=1))
    result = nodes(inside, "insert").PutBack.execute(found, place).args[0]
    assert result.shape == (1, height, width, 3) and result.isfinite().all()


def test_outside_of_a_region_the_scene_is_kept_to_the_pixel(inside, instruct):
    scene, region = pictures(150, 170), covering(150, 170, (90, 60, 130, 100))
    contexts = encoded(inside, instruct, pictures(64, 64, count=2))
    guider, latent, place, *_ = inserted(inside, instruct, scene, contexts, region=region, working_size=128)
    assert latent["noise_mask"].shape[-2:] == latent["samples"].shape[-2:]
    found = instruct[2].decode(sampled(inside, guider, latent, drawn(*latent["samples"].shape)))
    for picture in nodes(inside, "insert").PutBack.execute(found, place).args[0]:
        assert torch.equal(picture[region[0] == 0], scene[0][region[0] == 0])
        assert (picture[region[0] == 1] - scene[0][region[0] == 1]).abs().max() > 0.05


def test_many_objects_in_one_scene_and_many_seeds_of_one(inside, instruct):
    contexts = encoded(inside, instruct, pictures(64, 64, count=2), variants=2)
    guider, latent, *_ = inserted(inside, instruct, pictures(64, 64), contexts)
    assert latent["samples"].shape == (4, LATENT_CHANNELS, 4, 4)
    assert sampled(inside, guider, latent, drawn(4, LATENT_CHANNELS, 4, 4)).isfinite().all()


def test_models_that_do_not_belong_together_are_refused(inside, instruct, creature_sd15):
    scene, contexts = pictures(64, 64), encoded(inside, instruct, pictures(64, 64))
    tiny = inside.tiny.tiny_vae()
    with pytest.raises(ValueError, match="with 12 latent channels, got one with 4"):
        inserted(inside, [instruct[0], None, tiny], scene, contexts)
    with pytest.raises(ValueError, match="with 24 input channels, got a text-to-image model with 12"):
        inserted(inside, [creature_sd15[0], None, instruct[2]], scene, contexts)
    with pytest.raises(ValueError, match="of width 192 as its CLIP_VISION, got a .* of width 64"):
        encoded(inside, [*instruct[:3], inside.tiny.tiny_clip_vision(), instruct[4]], scene)


@pytest.mark.parametrize("trains", ["optimizer", "projections"])
def test_an_optimizer_can_be_trained_on_it(inside, instruct, trains):
    write_triplets(inside.base / "input" / "creature_triplets", 3, 0)
    node = nodes(inside, "train").TrainEmbeddingOptimizer
    settings = {
        "folder": "creature_triplets", "preset": "recommended", "steps": 2, "learning_rate": 1e-3,
        "start_from": "nothing", "size": 64, "save_every": 2, "seed": 0, "batch": 2, "variants": 1,
    }
    model, _, vae, clip_vision, _ = instruct
    name = f"creature_{trains}"
    optimizer, patched, _ = node.execute(model, vae, clip_vision, name=name, trains=trains, **settings).args
    assert (optimizer.module.input_dim, optimizer.module.output_dim) == (192, 96)
    assert bool(patched.patches) == (trains == "projections")
    contexts = encoded(inside, [*instruct[:4], optimizer], pictures(64, 64))
    guider, latent, *_ = inserted(inside, [patched, None, vae], pictures(64, 64), contexts)
    assert sampled(inside, guider, latent, drawn(1, LATENT_CHANNELS, 4, 4)).isfinite().all()
    with pytest.raises(ValueError, match="multiple of 16, got 72"):
        node.execute(model, vae, clip_vision, name="odd", trains=trains, **settings | {"size": 72})


def test_training_learns_what_the_model_predicts(inside, instruct, monkeypatch):
    """Noise here; another model of this kind may predict v."""
    seen = []
    task = inside.pack("pit.object_insertion.training.task")

    class Seen(Exception):
        pass

    def made(inserter, cache, recipe, settings, schedule, scale):
        seen.append((schedule.config.prediction_type, scale))
        raise Seen

    monkeypatch.setattr(task, "InsertionTask", made)
    train, recipes = nodes(inside, "train"), inside.pack("pit.object_insertion.training.recipes")
    by_velocity = instruct[0].clone()
    sampling = inside.comfy("model_sampling")
    kind = type("Velocity", (sampling.ModelSamplingDiscrete, sampling.V_PREDICTION), {})
    by_velocity.add_object_patch("model_sampling", kind(instruct[0].model.model_config))
    cache = type("Cache", (), {"blank": torch.zeros(64, 192)})
    settings = inside.pack("pit.training.recipes").RunSettings(inside.base / "unused")
    for model in (instruct[0], by_velocity):
        with pytest.raises(Seen):
            train.train(None, model, instruct[2], cache, None, replace(recipes.RECOMMENDED), settings)
    assert seen == [("epsilon", 1.0), ("v_prediction", 1.0)]
