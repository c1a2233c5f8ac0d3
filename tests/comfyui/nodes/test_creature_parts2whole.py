"""The creatures' Parts2Whole in ComfyUI: as it was trained, in latents of its own, and trained further."""
from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from tests.demo.untrained_whole import write_untrained

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
SIZE = 256
EMPTY = {"samples": torch.zeros(2, 4, SIZE // 8, SIZE // 8), "downscale_ratio_spacial": 8}
"""As Empty Latent Image gives it."""


@pytest.fixture(scope="module")
def weights(inside, tmp_path_factory):
    """The pack with untrained weights in place of the shipped ones."""
    folder = write_untrained(tmp_path_factory.mktemp("whole") / "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inside.pack("pit.demo.models.weights"), "FOLDER", folder)
        yield folder


@pytest.fixture(scope="module")
def loaded(inside, weights):
    """MODEL, CLIP, VAE, CLIP_VISION, PIT_PARTS2WHOLE."""
    with torch.inference_mode():
        args = inside.pack("nodes.creatures.parts2whole").LoadCreatureParts2Whole.execute().args
        return SimpleNamespace(**dict(zip(("model", "clip", "vae", "vision", "parts"), args, strict=True)))


@pytest.fixture(scope="module")
def request_of(inside):
    """Two references with masks, and a pose."""
    drawn = inside.pack("pit.demo.measure.whole_trials")
    return drawn.draw_whole_trials(3, 1, 2, ["white"])[0].request()


@pytest.fixture(scope="module")
def chain(inside, weights):
    """The same models in the classes that they were trained in."""
    return inside.pack("pit.demo.models.whole_pictures").CreatureWhole()


def nodes(inside, name):
    return inside.pack(f"nodes.parts2whole.{name}")


@pytest.fixture
def encoded(inside, loaded, request_of):
    """What Encode References gives."""
    def run(wiring="as trained", latent=EMPTY):
        make = nodes(inside, "references").ReferencePart.execute
        parts = {
            f"reference{number}": make(each.image, "face", each.label, each.mask).args[0]
            for number, each in enumerate(request_of.references)
        }
        with torch.inference_mode():
            return nodes(inside, "references").EncodeReferences.execute(
                loaded.parts, loaded.clip, loaded.vae, loaded.vision, latent, parts, wiring)

    return run


def picture_of(inside, image):
    return inside.pack("pit.images").to_tensor([image])


@pytest.fixture
def pose(inside, loaded, request_of):
    with torch.inference_mode():
        execute = nodes(inside, "pose").PoseMap.execute
        return execute(loaded.parts, picture_of(inside, request_of.pose), EMPTY, 1.0).args[0]


def assert_close(found, expected, tolerance=1e-3):
    assert found.shape == expected.shape
    assert (found.float() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("wiring", ["as trained", "as published"])
def test_references_are_read_as_the_trained_classes_read_them(inside, encoded, chain, request_of, wiring):
    output = encoded(wiring)
    found, pictures, masks = output.args
    settings = inside.pack("pit.demo.models.whole_pictures").WholeSettings(wiring=wiring)
    given = chain.conditions([request_of], settings)
    assert pictures.shape == (2, SIZE, SIZE, 3) and masks.shape == (2, SIZE, SIZE)
    assert masks.all() if wiring == "as published" else not masks.all()
    assert_close(found.images, given.images)
    for block, read in found.tokens.items():
        expected = chain.denoiser.unet.get_submodule(f"{block}.attn1").to_k(read.tokens.float())
        assert_close(expected, given.references[block].keys, 5e-3)


def test_masks_are_shown_in_steps_of_latent_pixels(encoded):
    masks = encoded().args[2]
    cells = masks.unflatten(1, (16, 16)).unflatten(3, (16, 16))
    assert torch.equal(cells.amax((2, 4)), cells.amin((2, 4)))


def test_latents_of_the_model_itself_have_the_same_size(encoded):
    own = {"samples": torch.zeros(1, 12, SIZE // 16, SIZE // 16)}
    first, second = (encoded(latent=latent).args[0] for latent in (EMPTY, own))
    for block, read in first.tokens.items():
        assert torch.equal(read.tokens, second.tokens[block].tokens)


def test_the_sampler_predicts_what_the_trained_model_predicts(
    inside, loaded, encoded, pose, chain, request_of
):
    applied = nodes(inside, "apply").ApplyParts2Whole.execute(
        loaded.model, loaded.parts, encoded().args[0], 1.0, 0.0, 1.0, pose).args[0]
    whole = inside.pack("pit.demo.models.whole_pictures")
    given = chain.conditions([request_of], whole.RECOMMENDED)
    samplers, sampling = inside.comfy("samplers"), applied.get_model_object("model_sampling")
    words = [[[given.text, {}]], [[given.negative, {}]]]
    guider = samplers.CFGGuider(applied)
    guider.set_conds(*words)
    guider.set_cfg(3.0)
    noise = torch.randn(1, 12, 16, 16, generator=torch.Generator().manual_seed(1))
    sigma = sampling.sigmas[500]
    with torch.inference_mode():
        found = guider.sample(
            noise, torch.zeros_like(noise), samplers.sampler_object("euler"),
            torch.stack([sigma, sigma.new_tensor(0.0)]), disable_pbar=True, seed=0)
        predict = inside.pack("pit.parts2whole.sample").predicted_noise
        expected = noise * (sigma**2 + 1).sqrt() - sigma * predict(chain.denoiser, noise, 500, given, 3.0)
    assert_close(found, expected, 5e-3)


def test_the_stock_graph_draws_pictures_of_256_pixels(inside, loaded, encoded, pose):
    import nodes as stock

    with torch.inference_mode():
        applied = nodes(inside, "apply").ApplyParts2Whole.execute(
            loaded.model, loaded.parts, encoded().args[0], 1.0, 0.0, 1.0, pose).args[0]
        words = [stock.CLIPTextEncode().encode(loaded.clip, text)[0] for text in ("a creature", "")]
        made = stock.KSampler().sample(
            applied, 0, 2, 3.0, "euler_ancestral", "normal", *words, dict(EMPTY))[0]
        image = stock.VAEDecode().decode(loaded.vae, made)[0]
    assert image.shape == (2, SIZE, SIZE, 3) and image.isfinite().all()


def test_the_model_has_the_schedule_it_was_trained_with(inside, loaded):
    sigmas = loaded.model.get_model_object("model_sampling").sigmas
    assert_close(sigmas, inside.pack("pit.parts2whole.schedule").sigmas(), 1e-4)
    assert loaded.model.model.model_config.native_size == SIZE
    assert not hasattr(loaded.model.model, "concat_keys") or not loaded.model.model.concat_keys


def test_copies_have_weights_of_their_own(loaded):
    make, given = loaded.model.cached_patcher_init
    again = make(*given)
    ours, theirs = (each.model.diffusion_model.out[2].weight for each in (again, loaded.model))
    assert torch.equal(ours, theirs) and ours.data_ptr() != theirs.data_ptr()


@pytest.fixture
def creatures(inside):
    """A dataset in the published layout, of drawn creatures."""
    trials = inside.pack("pit.demo.measure.whole_trials").draw_whole_trials(5, 3, 2, ["white"])
    pictures = inside.pack("pit.demo.measure.pictures")
    to_pil, folder = inside.pack("pit.images").to_pil, inside.base / "input" / "creatures"
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (trial, target) in enumerate(
        zip(trials, pictures.drawn(trial.composition for trial in trials), strict=True)
    ):
        request = trial.request()
        files = {f"{number}_target.png": target, f"{number}_pose.png": request.pose}
        line = {
            "target": f"{number}_target.png", "caption": request.prompt, "appearance": {}, "mask": {},
            "structure": {"densepose": f"{number}_pose.png"}, "target_id": str(number),
        }
        for each in request.references:
            line["appearance"][each.label] = f"{number}_{each.label}.png"
            line["mask"][each.label] = f"{number}_{each.label}_mask.png"
            files[line["appearance"][each.label]] = to_pil(each.image)[0]
            files[line["mask"][each.label]] = to_pil(each.mask[..., None])[0]
        for name, picture in files.items():
            picture.save(folder / name)
        lines.append(json.dumps(line))
    (folder / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return "creatures"


@pytest.mark.parametrize("given", [True, False], ids=["further", "new"])
def test_it_is_trained_in_its_own_latents_and_read_back(inside, loaded, creatures, given):
    train = nodes(inside, "train").TrainParts2Whole.execute
    name = f"creatures_{given}"
    with torch.inference_mode():
        trained, parts, _ = train(
            loaded.model, loaded.clip, loaded.vae, loaded.vision, creatures, name, "published",
            "reference lora", 2, 1e-3, SIZE, SIZE, 2, 0, rank=2, batch=1, accumulation=1, variants=1,
            parts2whole=loaded.parts if given else None,
        ).args
        again, read = nodes(inside, "loading").LoadParts2Whole.execute(name).args
    assert parts.guider.latent_pixel == read.guider.latent_pixel == 16
    assert read.image_attention.token_dim == 256 and read.word_dim == 96
    for model in (trained, again):
        latents = model.model.latent_format
        assert (latents.latent_channels, latents.spacial_downscale_ratio) == (12, 16)
        assert latents.process_in(1.0) == 1.0
    ours, theirs = (each.model.state_dict() for each in (trained, again))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_sides_that_are_no_multiple_of_a_latent_pixel_are_refused(inside, loaded, creatures):
    with torch.inference_mode(), pytest.raises(ValueError, match="multiples of 16, got 264x256"):
        nodes(inside, "train").TrainParts2Whole.execute(
            loaded.model, loaded.clip, loaded.vae, loaded.vision, creatures, "odd", "published", "lora", 2,
            1e-3, 264, SIZE, 2, 0)
