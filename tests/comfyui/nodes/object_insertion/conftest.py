"""Tiny models of object insertion, and its nodes as functions."""
from __future__ import annotations

import pytest
import torch

from tests.comfyui.nodes.object_insertion.shared import nodes, pictures
from tests.comfyui.nodes.published import write_optimizer


@pytest.fixture(scope="module")
def optimizer(inside):
    path = write_optimizer(inside.base / "models" / "object_insertion" / "a.pt")
    return nodes(inside, "encoding").load_optimizer(path, path.name)[0]


@pytest.fixture(scope="module")
def clip_vision(inside):
    return inside.tiny.tiny_clip_vision()


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_instruct()


@pytest.fixture(scope="module")
def vae(inside):
    return inside.tiny.tiny_vae()


@pytest.fixture
def shown():
    """The files of the pictures that Encode Object has shown last."""
    return []


@pytest.fixture
def encode(inside, optimizer, clip_vision, shown):
    """Runs Encode Object; returns its two conditionings."""
    def run(image=None, seed=0, queries=1, variants=1, **settings):
        image = pictures() if image is None else image
        given = {"optimizer": optimizer, "clip_vision": clip_vision} | settings
        with torch.inference_mode():
            output = nodes(inside, "encoding").EncodeObject.execute(
                given.pop("optimizer"), given.pop("clip_vision"), image, seed, queries, variants, **given
            )
        shown[:] = [inside.base / "temp" / each["filename"] for each in output.ui.as_dict()["images"]]
        return output.args

    return run


@pytest.fixture
def insert(inside, model, vae, encode):
    """Runs Insert Object on a random scene of 24 x 32."""
    def run(scene=None, guidance=7.0, image_guidance=1.5, contexts=None, **settings):
        contexts = encode() if contexts is None else contexts
        scene = pictures(24, 32) if scene is None else scene
        given = {"model": model, "vae": vae} | settings
        with torch.inference_mode():
            return nodes(inside, "insert").InsertObject.execute(
                given.pop("model"), given.pop("vae"), scene, *contexts, guidance, image_guidance, **given
            ).args

    return run


@pytest.fixture
def sample(inside):
    """What ComfyUI samples with a guider and a latent, and from which noise."""
    def run(guider, latent, steps=4, sampler="euler", seed=3):
        schedule = nodes(inside, "models").InsertionSchedule
        noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            sigmas = schedule.execute(guider.model_patcher, steps).args[0]
            samples = guider.sample(
                noise, latent["samples"], inside.comfy("samplers").sampler_object(sampler), sigmas,
                denoise_mask=latent.get("noise_mask"), disable_pbar=True, seed=seed,
            )
        return samples, noise, sigmas

    return run
