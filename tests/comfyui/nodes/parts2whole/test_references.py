"""Reference Part, Encode References, Pose Map: what they show, and what they refuse."""
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.comfyui.nodes.parts2whole.shared import nodes, stub_encoders

SIZE = 64, 96  # height and width of the picture to make


def picture(height=SIZE[0], width=SIZE[1], count=1, channels=3, seed=0):
    return torch.rand(count, height, width, channels, generator=torch.Generator().manual_seed(seed))


def left_half(height=SIZE[0], width=SIZE[1]):
    mask = torch.zeros(1, height, width)
    mask[..., :width // 2] = 1
    return mask


LATENT = {"samples": torch.zeros(1, 4, SIZE[0] // 8, SIZE[1] // 8)}


@pytest.fixture
def part(inside):
    def make(image=None, label="face", **settings):
        image = picture() if image is None else image
        return nodes(inside, "references").ReferencePart.execute(image, label, **settings).args[0]

    return make


@pytest.fixture
def encode(inside, parts):
    """Runs Encode References with encoders that only tell what they were given."""
    width = parts.image_attention.token_dim

    def run(*references, wiring="as trained", latent=LATENT, **changes):
        clip, vae, embeds = stub_encoders(width)
        vision = SimpleNamespace(
            model_type="clip_vision_model", image_size=28, patcher=None, load_device="cpu",
            model=lambda pixel_values: embeds(pixel_values))
        given = {"clip": clip, "vae": vae, "clip_vision": vision} | changes
        named = {f"reference{number}": each for number, each in enumerate(references)}
        with torch.inference_mode():
            return nodes(inside, "references").EncodeReferences.execute(
                parts, given["clip"], given["vae"], given["clip_vision"], latent, named, wiring,
                given.get("fit", "as wired"))

    return run


@pytest.fixture(autouse=True)
def no_model_of_the_stub(inside, monkeypatch):
    """The image encoder of these tests has no patcher."""
    management = nodes(inside, "references").comfy.model_management
    load = management.load_models_gpu
    monkeypatch.setattr(
        management, "load_models_gpu", lambda models, **more: load([m for m in models if m], **more))


def shown(inside, output):
    paths = [inside.base / "temp" / each["filename"] for each in output.ui.as_dict()["images"]]
    return np.stack([np.asarray(Image.open(path).convert("L")) for path in paths])


def test_every_mask_is_shown_as_the_network_sees_it(inside, encode, part):
    output = encode(part(mask=left_half()), part(label="shoes"))
    references, pictures, masks = output.args
    assert pictures.shape == (2, *SIZE, 3) and masks.shape == (2, *SIZE)
    # Grown by one token of eight pixels.
    expected = torch.zeros(SIZE)
    expected[:, :SIZE[1] // 2 + 8] = 1
    assert torch.equal(masks[0], expected) and masks[1].all()
    assert np.array_equal(shown(inside, output) / 255, masks.numpy())
    tokens = references.tokens["down_blocks.0.attentions.0.transformer_blocks.0"]
    # The half that is seen, the other folded into two, and all of the other reference.
    assert tokens.tokens.shape[1] == int(masks[0].sum() / 64) + 96 + 2


def test_as_published_masks_and_labels_of_their_own_do_not_count(encode, part):
    first = encode(part(mask=left_half()), part(label="shoes"), wiring="as published")
    other = encode(part(), part(label="a hat"), wiring="as published")
    assert first.args[2].all()
    for block, read in first.args[0].tokens.items():
        assert torch.equal(read.tokens, other.args[0].tokens[block].tokens)
    trained = encode(part(), part(label="shoes")).args[0]
    renamed = encode(part(), part(label="a hat")).args[0]
    assert any(not torch.equal(read.tokens, renamed.tokens[block].tokens)
               for block, read in trained.tokens.items())


def test_words_replace_the_label(part):
    assert part(words=" a long beard ").label == "a long beard" and part().label == "face"


def test_a_batch_gives_sets_of_their_own(encode, part):
    faces = picture(count=2)
    together = encode(part(faces), part(picture(seed=5), label="shoes")).args[0]
    assert together.sets == 2 and together.images.shape[1] == 2
    for number in range(2):
        alone = encode(part(faces[number:number + 1]), part(picture(seed=5), label="shoes")).args[0]
        torch.testing.assert_close(together.images[number:number + 1], alone.images)
        for block, read in alone.tokens.items():
            torch.testing.assert_close(together.tokens[block].tokens[number:number + 1], read.tokens,
                                       atol=1e-3, rtol=1e-3)


def test_the_same_inputs_give_the_same(encode, part):
    first, second = (encode(part(mask=left_half())).args[0] for _ in range(2))
    assert all(torch.equal(read.tokens, second.tokens[block].tokens) for block, read in first.tokens.items())


@pytest.mark.parametrize(("settings", "message"), [
    ({"mask": torch.zeros(1, *SIZE)}, "mask that shows some of 'face', got an empty one"),
    ({"mask": torch.ones(1, 64, 64)}, "mask of the size of 'face', 96x64, got the shape .1, 64, 64."),
    ({"mask": torch.ones(3, *SIZE)}, "one mask, or one for each of 1 pictures, got 3"),
    ({"image": picture() * torch.nan}, "NaN"),
    ({"mask": left_half() * torch.nan}, "NaN"),
    ({"strength": float("nan")}, "strength of 'face' to be 0 or more"),
    ({"words": "x" * 5000, "strength": -1.0}, "strength of 'x"),
])
def test_a_part_that_makes_no_sense_is_refused_at_once(part, settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        part(**settings)
    assert len(str(caught.value)) <= 1000


def test_what_does_not_go_together_is_refused(encode, part):
    with pytest.raises(ValueError, match="label of its own, got 'Face' for references 1 and 2"):
        encode(part(), part(words="Face"))
    with pytest.raises(ValueError, match="at least one reference"):
        encode()
    with pytest.raises(ValueError, match="all as many, got 2, 3"):
        encode(part(picture(count=2)), part(picture(count=3), label="shoes"))


def test_other_models_than_those_of_stable_diffusion_are_refused(encode, part, parts):
    width = parts.image_attention.token_dim
    clip, vae, embeds = stub_encoders(2 * width)
    with pytest.raises(ValueError, match=f"CLIP of Stable Diffusion 1.5, of width {width}, got one of"):
        encode(part(), clip=clip)
    long = SimpleNamespace(tokenize=lambda text, **_: text,
                           encode_from_tokens=lambda text: torch.zeros(1, 154, width))
    with pytest.raises(ValueError, match="label of at most 75 tokens, got 'face'"):
        encode(part(), clip=long)
    with pytest.raises(ValueError, match="with 4 latent channels, got one with 16"):
        encode(part(), vae=SimpleNamespace(latent_channels=16))
    vision = SimpleNamespace(model_type="clip_vision_model", image_size=28, patcher=None, load_device="cpu",
                             model=lambda pixel_values: embeds(pixel_values))
    with pytest.raises(ValueError, match=f"projects to width {width}, got {2 * width}.*download"):
        encode(part(), clip_vision=vision)
    with pytest.raises(ValueError, match="expected a clip_vision_model.*got a dinov2"):
        encode(part(), clip_vision=SimpleNamespace(model_type="dinov2"))


def test_values_that_are_not_finite_are_named(encode, part):
    vae = SimpleNamespace(latent_channels=4, spacial_compression_encode=lambda: 8,
                          encode=lambda pixels: torch.full((1, 4, 8, 12), torch.nan))
    with pytest.raises(FloatingPointError, match="finite values from the VAE"):
        encode(part(), vae=vae)


def test_cancel_ends_the_writing_within_a_pass(inside, encode, part, parts, cancel_at):
    management = inside.comfy("model_management")
    seen = cancel_at(1)
    with pytest.raises(management.InterruptProcessingException):
        encode(part())
    assert len(seen) == 1
    assert not any(each.model is parts.reference_unet for each in management.current_loaded_models)


@pytest.fixture
def pose(inside, parts):
    def run(image, strength=1.0):
        return nodes(inside, "pose").PoseMap.execute(parts, image, LATENT, strength)

    return run


def test_a_pose_is_shown_as_the_network_sees_it(inside, pose):
    image = picture(128, 192)
    output = pose(image)
    expected = Image.fromarray((image[0].numpy() * 255).round().astype("uint8")).resize(
        SIZE[::-1], Image.Resampling.LANCZOS)
    assert np.abs(shown(inside, output)[0].astype(int) - np.asarray(expected.convert("L"))).max() <= 1
    assert output.args[0].strength == 1.0


def test_a_pose_of_another_aspect_is_refused(pose):
    with pytest.raises(ValueError, match="aspect of the picture, 96x64, got 64x64"):
        pose(picture(64, 64))


def test_a_pose_follows_the_size_of_the_latents_and_its_strength(inside, pose):
    features = nodes(inside, "reading").features
    given = pose(picture(128, 192)).args[0]
    with torch.inference_mode():
        assert features(given, torch.zeros(1, 4, 8, 12)).shape[-2:] == (8, 12)
        whole = features(given, torch.zeros(1, 4, 16, 24))
        half = features(pose(picture(128, 192), 0.5).args[0], torch.zeros(1, 4, 16, 24))
        torch.testing.assert_close(half, whole / 2)
        with pytest.raises(ValueError, match="Pose Map: Expected a pose of the aspect"):
            features(given, torch.zeros(1, 4, 8, 8))
