"""Object insertion inside ComfyUI: its own guider and samplers, and the way back into a scene."""
from __future__ import annotations

from io import BytesIO

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.comfyui.nodes.graphs import node
from tests.comfyui.nodes.object_insertion.shared import covering, engine, folder_of, nodes, pictures
from tests.golden import assert_equal

TINY = "object_insertion_tiny_io"


def counted(model):
    """The model, and a list that grows by the rows of each of its calls."""
    rows = []

    def call(apply, args):
        rows.append(len(args["input"]))
        return apply(args["input"], args["timestep"], **args["c"])

    counted = model.clone()
    counted.set_model_unet_function_wrapper(call)
    return counted, rows


def reference(model, context, scene, noise, steps, guidance, image_guidance):
    """The published loop, in as few lines as it takes, with Euler's steps."""
    times = [(1000 // steps) * number + 1 for number in reversed(range(steps))]
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)[times]
    sigmas = [*(((1 - kept) / kept) ** 0.5).tolist(), 0.0]
    guided = guidance > 1 and image_guidance >= 1
    contexts = torch.cat([context, context * 0, context * 0])
    scenes = torch.cat([scene, scene, scene * 0])
    x = noise * (sigmas[0] ** 2 + 1) ** 0.5
    for t, sigma, after in zip(times, sigmas, sigmas[1:], strict=False):
        inputs = torch.cat([(x / (sigma**2 + 1) ** 0.5).expand(3, -1, -1, -1), scenes], dim=1)
        both, alone, none = model.model.diffusion_model(inputs, torch.full((3,), t), contexts).chunk(3)
        eps = none + guidance * (both - alone) + image_guidance * (alone - none) if guided else both
        x = x + eps * (after - sigma)
    return x / 0.18215


@pytest.mark.parametrize("guidance, image_guidance, passes", [
    (7.0, 1.5, 3), (3.0, 1.0, 2), (2.5, 2.5, 2), (1.0, 1.5, 1), (1.0, 1.0, 1), (0.0, 1.5, 1), (7.0, 0.9, 1),
])
def test_sampling_follows_the_published_loop_with_as_few_passes_as_count(
    encode, insert, sample, model, guidance, image_guidance, passes
):
    watched, rows = counted(model)
    contexts = encode()
    guider, latent, *_ = insert(contexts=contexts, guidance=guidance, image_guidance=image_guidance,
                                model=watched)
    found, noise, _ = sample(guider, latent)
    assert sum(rows) == 4 * passes
    scene = guider.original_conds["positive"][0]["concat_latent_image"]
    with torch.inference_mode():
        expected = reference(model, contexts[0][0][0], scene, noise, 4, guidance, image_guidance)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_the_blank_picture_may_stand_for_no_object(encode, insert, sample):
    zeros, blank = encode(), encode(null="blank picture")
    assert torch.equal(zeros[0][0][0], blank[0][0][0])
    assert not zeros[1][0][0].any() and blank[1][0][0].any() and blank[1][0][0].shape == (1, 77, 48)
    first, second = (sample(*insert(contexts=contexts)[:2])[0] for contexts in (zeros, blank))
    assert (first - second).abs().max() > 1e-3


def test_any_sampler_and_the_published_one_take_the_schedule(insert, sample):
    for sampler in ("euler_ancestral", "dpmpp_2m", "heun"):
        found, _, sigmas = sample(*insert()[:2], sampler=sampler)
        assert found.isfinite().all() and len(sigmas) == 5
    assert len(sample(*insert()[:2], steps=1)[2]) == 2


def test_each_object_of_a_batch_gets_the_picture_that_it_gets_alone(encode, insert, sample):
    objects = pictures(count=3, seed=8)
    together = sample(*insert(contexts=encode(objects))[:2])[0]
    assert len(together) == 3
    noise = torch.randn(together.shape, generator=torch.Generator().manual_seed(3))
    for number in range(3):
        guider, latent, *_ = insert(contexts=encode(objects[number:number + 1]))
        alone = sampled_from(guider, latent, noise[number:number + 1], sample)
        torch.testing.assert_close(together[number:number + 1], alone, rtol=1e-3, atol=1e-3)


def sampled_from(guider, latent, noise, sample):
    """The same from this noise."""
    inner = guider.sample
    guider.sample = lambda given, *rest, **more: inner(noise, *rest, **more)
    return sample(guider, latent)[0]


def test_scenes_and_objects_go_together_one_to_one(encode, insert, sample):
    scenes = pictures(24, 32, count=2)
    guider, latent, place, *_ = insert(scenes, contexts=encode(pictures(count=2, seed=8)))
    assert latent["samples"].shape == (2, 4, 3, 4) and len(place.scenes) == 2
    assert sample(guider, latent)[0].isfinite().all()
    assert len(insert(scenes)[1]["samples"]) == 2
    with pytest.raises(ValueError, match="one scene, or one for each of 3 objects, got 2"):
        insert(scenes, contexts=encode(pictures(count=3)))


def finish(inside, vae, place, samples):
    with torch.inference_mode():
        return nodes(inside, "insert").PutBack.execute(vae.decode(samples), place).args[0]


@pytest.mark.parametrize("height, width", [(24, 32), (23, 37), (1, 9), (63, 4097)])
def test_a_scene_of_any_size_comes_back_in_it(inside, vae, insert, sample, height, width):
    guider, latent, place, *_ = insert(pictures(height, width))
    result = finish(inside, vae, place, sample(guider, latent, steps=1)[0])
    assert result.shape == (1, height, width, 3) and result.isfinite().all()


def test_outside_of_a_region_the_scene_is_kept_to_the_pixel(inside, vae, encode, insert, sample):
    scene, region = pictures(93, 121), covering(93, 121, (50, 30, 70, 44))
    contexts = encode(pictures(count=3))
    guider, latent, place, *_ = insert(scene, region=region, working_size=40, contexts=contexts)
    result = finish(inside, vae, place, sample(guider, latent)[0])
    assert len(result) == 3
    for picture in result:
        assert torch.equal(picture[region[0] == 0], scene[0][region[0] == 0])
        assert (picture[region[0] == 1] - scene[0][region[0] == 1]).abs().max() > 0.05


def test_the_latents_outside_of_a_region_are_those_of_the_scene(insert, sample):
    guider, latent, place, both, _, _ = insert(pictures(40, 40), region=covering(40, 40, (8, 8, 16, 16)))
    assert latent["noise_mask"].sum() == 1
    found, held = sample(guider, latent)[0], both[0][1]["concat_latent_image"]
    outside = latent["noise_mask"].expand_as(found) == 0
    torch.testing.assert_close(found[outside], held[outside])
    assert (found[~outside] - held[~outside]).abs().max() > 1e-2


def test_masked_latents_get_the_noise_of_their_level_and_only_the_start_more(inside, model):
    """Another node may set a mask on the empty latents: what it holds must not keep any noise at the end."""
    started = inside.pack("nodes.bridge.noise").with_published_start(model)
    plain, ours = (each.get_model_object("model_sampling").noise_scaling for each in (model, started))
    noise, empty, sigma = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.tensor([0.5])
    assert torch.equal(ours(sigma, noise, empty), plain(sigma, noise, empty))
    assert torch.equal(ours(sigma, noise, empty, False), plain(sigma, noise, empty, True))
    assert torch.equal(ours(sigma, noise, noise, False), plain(sigma, noise, noise, False))
    assert model.get_model_object("model_sampling") is not started.get_model_object("model_sampling")


def test_masks_of_every_shape_are_regions(insert):
    region = covering(24, 32, (8, 8, 16, 16))
    expected = insert(region=region)[1]["noise_mask"]
    for shape in ((24, 32), (1, 1, 24, 32)):
        assert torch.equal(insert(region=region.reshape(shape))[1]["noise_mask"], expected)


def test_a_transparent_or_gray_scene_is_put_on_white(insert):
    clear = torch.cat([pictures(24, 32), torch.zeros(1, 24, 32, 1)], dim=-1)
    assert torch.equal(insert(clear)[2].scenes, torch.ones(1, 24, 32, 3))
    assert insert(pictures(24, 32)[..., :1])[2].scenes.shape == (1, 24, 32, 3)


@pytest.mark.golden_keys(TINY, r"sched\.sigmas_\d+")
def test_the_schedule_is_the_published_one(inside, golden, model, key):
    schedule = nodes(inside, "models").InsertionSchedule
    found = schedule.execute(model, int(key.rpartition("_")[2])).args[0]
    assert_equal(found, golden.tensors(TINY)[key])


def test_the_schedule_has_no_level_twice(inside, model):
    sigmas = nodes(inside, "models").InsertionSchedule.execute(model, 1000).args[0]
    assert len(sigmas) == 1000 and (sigmas[:-1] > sigmas[1:]).all()


def test_the_published_bias_takes_the_place_of_the_models_own(inside, model, insert, sample):
    bias = torch.linspace(-0.1, 0.1, 32)
    save_file({"conv_in.bias": bias}, folder_of(inside) / "bias.safetensors")
    patched = nodes(inside, "models").PatchBias.execute(model, "bias.safetensors").args[0]
    changed = inside.tiny.tiny_instruct()
    changed.model.diffusion_model.input_blocks[0][0].bias.data.copy_(bias)
    found, expected, plain = (sample(*insert(model=each)[:2])[0] for each in (patched, changed, model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 1e-3
    again = nodes(inside, "models").PatchBias.execute(patched, "bias.safetensors").args[0]
    torch.testing.assert_close(sample(*insert(model=again)[:2])[0], expected, rtol=1e-4, atol=1e-4)


def insertion_graph(**changes):
    graph = {
        "vision": node("Tiny_Models", vision_width=64),
        "tiny": node("Tiny_Insertion"),
        "optimizer": node("PiT_LoadEmbeddingOptimizer", file="tiny.pt", nan_as_zero=False),
        "object": node("Tiny_Image", count=2, height=40, width=30, channels=3),
        "scene": node("Tiny_Image", count=1, height=45, width=61, channels=3),
        "encode": node("PiT_EncodeObject", optimizer=["optimizer", 0], clip_vision=["vision", 3],
                       image=["object", 0], seed=1, queries=2, variants=1),
        "insert": node("PiT_InsertObject", model=["tiny", 0], vae=["tiny", 1], scene=["scene", 0],
                       object_context=["encode", 0], null_context=["encode", 1], guidance=7.0,
                       image_guidance=1.5),
        "noise": node("RandomNoise", noise_seed=5),
        "sampler": node("KSamplerSelect", sampler_name="euler_ancestral"),
        "sigmas": node("PiT_InsertionSchedule", model=["tiny", 0], steps=3),
        "sample": node("SamplerCustomAdvanced", noise=["noise", 0], guider=["insert", 0],
                       sampler=["sampler", 0], sigmas=["sigmas", 0], latent_image=["insert", 1]),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["tiny", 1]),
        "back": node("PiT_PutBack", image=["decode", 0], place=["insert", 2]),
        "save": node("SaveImage", images=["back", 0], filename_prefix="inserted"),
    }
    for name, value in changes.items():
        place, _, key = name.partition("__")
        graph[place]["inputs"][key] = value
    return graph


def test_the_whole_chain_runs_in_a_server_and_repeats_itself(lab):
    first, other = saved(lab, insertion_graph()), saved(lab, insertion_graph(encode__seed=2))
    # With an input that makes no difference here, so that nothing comes from ComfyUI's cache.
    again = saved(lab, insertion_graph(insert__margin=0.25))
    assert [picture.size for picture in first] == [(61, 45)] * 2
    assert first[0].tobytes() != first[1].tobytes()
    assert [each.tobytes() for each in again] == [each.tobytes() for each in first]
    assert [each.tobytes() for each in other] != [each.tobytes() for each in first]


def saved(lab, graph):
    result = lab.queue(graph)
    assert result.status == "success", result.error
    return [Image.open(BytesIO(lab.view(image))) for image in result.outputs["save"]["images"]]


def test_errors_leave_the_server_alive(lab):
    graph = insertion_graph(insert__region=["object", 2])
    failed = lab.queue(graph)
    assert failed.status != "success" and "got an empty mask" in str(failed.error)
    failed = lab.queue(insertion_graph(optimizer__file="missing.pt"))
    assert failed.status != "success" and "python -m pit download object-insertion" in str(failed.error)
    assert lab.queue(insertion_graph()).status == "success"


def test_the_names_of_a_converted_unet_are_those_that_comfyui_loads(inside, golden):
    """ComfyUI itself renames no such UNet, but knows the names, and the kind of model by its shapes."""
    shapes = golden.facts("object_insertion_full_keys")["unet"]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    detection = inside.comfy("model_detection")
    assert detection.unet_config_from_diffusers_unet(state) is None
    renamed = engine(inside, "unet_layout").in_comfyui_layout(state)
    config = detection.model_config_from_unet(dict(renamed), "")
    assert type(config).__name__ == "SD15_instructpix2pix"
    names = inside.comfy("utils").unet_to_diffusers(config.unet_config)
    assert all(renamed[names[key]] is value for key, value in state.items())
    with torch.device("meta"):
        loaded = config.get_model({}).diffusion_model.state_dict()
    assert {key: value.shape for key, value in loaded.items()} == {
        key: value.shape for key, value in renamed.items()}
