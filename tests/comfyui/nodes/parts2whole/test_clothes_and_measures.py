"""Clothes Parser and Measure Pictures: by tiny networks of the real classes, and what they refuse."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import SegformerForSemanticSegmentation

from pit.images import to_pil
from pit.parts2whole.clothes import load_segmenter, masks_by_name, segment
from pit.parts2whole.parts import LABELS
from pit.parts2whole.scores import dino_pixel_values
from tests.comfyui.nodes.graphs import node
from tests.comfyui.nodes.parts2whole.shared import nodes
from tests.encoders.test_dino import tiny
from tests.parts2whole.test_clothes import write_segmenter
from tests.parts2whole.test_scores import write_lpips


def picture(height=32, width=48, count=1, seed=0):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def segmenter(inside):
    folder = inside.base / "models" / "clothes_segmenter" / "tiny"
    assert isinstance(write_segmenter(folder), SegformerForSemanticSegmentation)
    return folder


@pytest.fixture
def parse(inside):
    def run(image, file, masks=(), names=""):
        named = {f"mask{number}": mask for number, mask in enumerate(masks)}
        with torch.inference_mode():
            return nodes(inside, "clothes").ClothesParser.execute(image, file, named, names)

    return run


def test_a_segmenter_makes_the_six_masks(segmenter, parse):
    image = picture(count=2).mul(255).round() / 255
    output = parse(image, f"{segmenter.name}/model.safetensors")
    expected = masks_by_name(segment(load_segmenter(segmenter), image))
    assert len(output.args) == len(LABELS) == 6 and any(mask.any() for mask in output.args)
    assert all(torch.equal(ours, expected[label]) for ours, label in zip(output.args, LABELS, strict=True))
    assert len(output.ui.as_dict()["images"]) == 2


def test_masks_by_name_are_united(parse):
    shoes = torch.zeros(2, 32, 48)
    shoes[0, :4] = shoes[1, -4:] = 1
    output = parse(picture(), "masks by name", [shoes, torch.ones(1, 32, 48)], "shoes\n\n Face \n")
    found = dict(zip(LABELS, output.args, strict=True))
    assert torch.equal(found["shoes"], shoes.amax(0, keepdim=True)) and found["face"].all()
    assert not any(found[label].any() for label in LABELS if label not in ("shoes", "face"))
    both = parse(picture(count=2), "masks by name", [shoes], "shoes").args[LABELS.index("shoes")]
    assert torch.equal(both, shoes)


@pytest.mark.parametrize("given", [{"masks__mask0": ["image", 1]}, {}])
def test_a_graph_parses_masks_by_name(lab, given):
    graph = {
        "image": node("Tiny_Image", count=1, height=32, width=48, channels=3),
        "parse": node(
            "PiT_ClothesParser", image=["image", 0], file="masks by name", names="face", **given,
        ),
        "picture": node("MaskToImage", mask=["parse", LABELS.index("face")]),
        "show": node("PreviewImage", images=["picture", 0]),
    }
    result = lab.queue(graph)
    if given:
        assert result.status == "success" and len(result.outputs["show"]["images"]) == 1, result.error
    else:
        assert "expected a name for each of 0 masks, got 1" in str(result.error)


@pytest.mark.parametrize(("masks", "names", "message"), [
    ([], "", "a name for each of 0 masks, got 0"),
    ([torch.ones(1, 32, 48)], "face\nhair", "a name for each of 1 masks, got 2"),
    ([torch.ones(1, 48, 32)], "face", "called face of the size of the picture, 48x32.*got 32x48"),
    ([torch.full((1, 32, 48), torch.nan)], "face", "called face.*without NaN"),
    ([torch.ones(1, 32, 48)], "a dog", "names among .*got a dog"),
])
def test_masks_that_make_no_sense_are_refused(parse, masks, names, message):
    with pytest.raises(ValueError, match=message):
        parse(picture(), "masks by name", masks, names)


def test_masks_for_another_number_of_pictures_are_refused(parse):
    with pytest.raises(ValueError, match="expected 2 masks called face, one for each picture, got 3"):
        parse(picture(count=2), "masks by name", [torch.ones(3, 32, 48)], "face")


def test_a_missing_segmenter_is_named(inside):
    valid = nodes(inside, "clothes").ClothesParser.validate_inputs
    assert valid("masks by name") is True and valid(None) is True
    assert "python -m pit download clothes-segmenter" in valid("other.safetensors")


def encoder(kind="clip_vision_model", place=2):
    """Tells pictures apart by their mean colors."""
    def seen(pixel_values):
        means = pixel_values.mean((2, 3))
        return (means[:, None].expand(-1, 4, -1), None, means) if place == 0 else (None, None, means)

    return SimpleNamespace(model_type=kind, image_size=28, patcher=None, load_device="cpu", model=seen)


@pytest.fixture
def measure(inside, monkeypatch):
    module = nodes(inside, "measure")
    management = module.comfy.model_management
    load = management.load_models_gpu
    monkeypatch.setattr(management, "load_models_gpu", lambda models: load([each for each in models if each]))

    def run(pictures, references, **given):
        with torch.inference_mode():
            return module.MeasurePictures.execute(pictures, references, **given).args[0]

    return run


def flat(*colors):
    return torch.tensor(colors)[:, None, None].expand(-1, 64, 64, -1).clone()


RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def test_every_picture_is_compared_with_its_own_reference(measure):
    """Not with the nearest one: swapped references are as far away as they are."""
    given = {"clip_vision": encoder(), "dino": encoder("dinov2", 0)}
    same = measure(flat(RED, BLUE), flat(RED, BLUE), **given)
    assert "CLIP: 100.0000 (mean of 2)" in same and "DINO: 1.0000" in same
    swapped = measure(flat(RED, BLUE), flat(BLUE, RED), **given)
    assert "100.0000" not in swapped and "DINO: 1.0000" not in swapped
    assert "picture 2: CLIP" in swapped


def test_dino_is_measured_by_the_encoder_of_load_dino(inside, measure):
    """By the mean over all its tokens, after the last norm, as transformers gives them."""
    network = tiny(patch_size=4)
    folder = inside.base / "models" / "clip_vision"
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    save_file(state, folder / "measuring_dino.safetensors")
    inside.pack("nodes.bridge.folders").folder_paths.filename_list_cache.clear()
    with torch.inference_mode():
        dino = inside.pack("nodes.partcraft.dino").LoadDino.execute("measuring_dino.safetensors").args[0]
    pictures, references = picture(40, 52, 2, seed=1), picture(40, 52, 2, seed=2)
    with torch.no_grad():
        tokens = [
            network(dino_pixel_values(to_pil(batch), 56)).last_hidden_state.mean(1)
            for batch in (pictures, references)
        ]
    expected = torch.nn.functional.cosine_similarity(*tokens)
    report = measure(pictures, references, dino=dino)
    assert [f"DINO {each:.4f}" in report for each in expected] == [True, True] and expected.max() < 0.9999


def test_lpips_takes_its_two_files_and_a_target(inside, measure):
    alexnet, linear = write_lpips(inside.base / "models" / "lpips")
    files = {"alexnet": alexnet.name, "lpips": linear.name}
    pictures = picture(64, 64, 2)
    assert "LPIPS: 0.0000 (mean of 2)" in measure(pictures, pictures, target=pictures, **files)
    assert "LPIPS: 0.0000" not in measure(pictures, pictures, target=pictures[:1], **files)
    for target, message in ((None, "a target for LPIPS, got none"),
                            (picture(64, 32), "size of the pictures, 64x64.*got 32x64")):
        with pytest.raises(ValueError, match=message):
            measure(pictures, pictures, target=target, **files)


@pytest.mark.parametrize(("given", "message"), [
    ({}, "something to measure with, got nothing"),
    ({"clip_vision": encoder("dinov2")}, "a CLIP as clip_vision, got a dinov2"),
    ({"dino": encoder()}, "a DINOv2 as dino, got a clip_vision_model"),
])
def test_encoders_of_another_kind_are_refused(measure, given, message):
    with pytest.raises(ValueError, match=message):
        measure(flat(RED), flat(RED), **given)


def test_another_number_of_references_is_refused(measure):
    with pytest.raises(ValueError, match="one reference, or one for each of 1 pictures, got 2"):
        measure(flat(RED), flat(RED, BLUE), clip_vision=encoder())
