"""References: what is refused, how they are placed, and how each wiring tells the networks of them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pit.images import to_pil
from pit.parts2whole.parts import (
    AS_PUBLISHED,
    AS_TRAINED,
    CROP,
    FITS,
    LETTERBOX,
    STRETCH,
    Reference,
    check_references,
    placed,
    wiring,
)


def image(height: int = 40, width: int = 24, channels: int = 3) -> Tensor:
    values = torch.linspace(0.2, 0.8, height * width * channels)
    return values.reshape(1, height, width, channels)


def square_mask(height: int = 40, width: int = 24) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, height // 2 - 5:height // 2 + 5, width // 2 - 5:width // 2 + 5] = 1
    return mask


@pytest.mark.parametrize(("references", "message"), [
    ([], "at least one reference picture, got none"),
    ([Reference(image(), " ")], "label for reference 1, got none"),
    ([Reference(image(), "face"), Reference(image(), " Face ")], "got ' Face ' for references 1 and 2"),
    ([Reference(image(), "face", square_mask(24, 40))], "size of 'face', 24x40, got the shape .1, 24, 40"),
    ([Reference(image(), "face", square_mask().expand(2, -1, -1))], "one mask of the size of 'face'"),
    ([Reference(image(), "face", square_mask()[0, 0])], "one mask of the size of 'face'"),
    ([Reference(image(), "face", torch.zeros(1, 40, 24))], "a mask that shows some of 'face', got an empty"),
    ([Reference(image(channels=4) * 0, "face")], "got an empty"),
    ([Reference(image() * torch.nan, "face")], "NaN or infinity"),
    ([Reference(image(), "face", square_mask() * torch.nan)], "NaN or infinity"),
    ([Reference(image().repeat(2, 1, 1, 1), "face")], "one picture of 'face', got 2"),
    ([Reference(image(), "face", strength=-1.0)], "strength of 'face' to be 0 or more, got -1"),
    ([Reference(image(), "face", strength=float("nan"))], "strength of 'face'"),
    ([Reference(image(), "f" * 5000), Reference(image(), "f" * 5000)], "references 1 and 2"),
])
def test_references_that_make_no_sense_are_refused(references, message):
    with pytest.raises(ValueError, match=message) as caught:
        placed(references, 64, 64)
    assert len(str(caught.value)) <= 1000


@pytest.mark.parametrize("size", [(60, 64), (64, 60), (0, 64), (64, -8)])
def test_sides_must_be_multiples_of_8(size):
    with pytest.raises(ValueError, match=f"multiples of 8, got {size[0]}x{size[1]}"):
        placed([Reference(image(), "face")], *size)


def test_an_unknown_fit_is_refused():
    with pytest.raises(ValueError, match="letterbox, crop, stretch .*got 'fill'"):
        placed([Reference(image(), "face")], 64, 64, "fill")


def test_free_words_and_any_number_of_references_are_taken():
    check_references([Reference(image(), f"the {number}th tentacle") for number in range(20)])


@pytest.mark.parametrize("fit", FITS)
def test_all_references_have_the_size_of_the_picture(fit):
    pictures, masks = placed(
        [Reference(image(), "face"), Reference(image(30, 90, 4), "shoes", square_mask(30, 90))], 64, 48, fit
    )
    assert pictures.shape == (2, 3, 48, 64) and masks.shape == (2, 1, 48, 64)
    for each in (pictures, masks):
        assert each.dtype == torch.float32 and each.min() >= 0 and each.max() <= 1


def test_letterboxing_adds_white_that_is_masked_out():
    pictures, masks = placed([Reference(torch.zeros(1, 40, 20, 3), "face")], 40, 40, LETTERBOX)
    inside = masks[0, 0] == 1
    assert inside[:, 10:30].all() and not inside[:, :10].any() and not inside[:, 30:].any()
    assert not pictures[0][:, inside].any() and (pictures[0][:, ~inside] == 1).all()
    reference = Reference(torch.zeros(1, 40, 20, 3), "face", torch.ones(1, 40, 20))
    _, masks = placed([reference], 40, 40, LETTERBOX)
    assert torch.equal(masks[0, 0] == 1, inside)


def test_cropping_takes_the_middle():
    values = torch.zeros(1, 40, 20, 3)
    values[:, 10:30] = 1
    pictures, masks = placed([Reference(values, "face")], 32, 32, CROP)
    assert pictures[..., 2:-2, :].min() > 0.99 and (masks == 1).all()


def test_a_mask_outside_of_the_crop_is_refused():
    mask = torch.zeros(1, 40, 20)
    mask[:, :4] = 1
    with pytest.raises(ValueError, match="some of 'face', got one that shows only what the crop cuts off"):
        placed([Reference(torch.zeros(1, 40, 20, 3), "face", mask)], 32, 32, CROP)
    assert placed([Reference(torch.zeros(1, 40, 20, 3), "face", mask)], 32, 32).masks.any()


def test_stretching_is_what_the_published_code_does():
    given, mask = image(40, 24, 4), square_mask()
    pictures, masks = placed([Reference(given, "face", mask)], 32, 32, STRETCH)
    picture = to_pil(given)[0].resize((32, 32))
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    white.paste(picture, mask=picture.split()[3])
    # Two ways to composite, which round differently.
    assert (pictures[0].movedim(0, -1).numpy() - np.asarray(white) / 255).__abs__().max() <= 1.01 / 255
    resized = Image.fromarray((mask[0].numpy() * 255).astype("uint8")).resize((32, 32))
    assert np.array_equal(masks[0, 0].numpy(), np.asarray(resized, "float32") / 255)


def test_alpha_is_the_mask_by_default():
    given = image(32, 32, 4)
    given[..., 3] = 0
    given[:, 8:16, 8:16, 3] = 1
    pictures, masks = placed([Reference(given, "face")], 32, 32, STRETCH)
    assert torch.equal(masks[0, 0], given[0, ..., 3])
    assert (pictures[0][:, masks[0, 0] == 0] == 1).all()


LABELS, PROMPT = torch.randn(3, 77, 8), torch.randn(2, 77, 8)
MASKS = torch.rand(3, 1, 16, 16)


def test_as_trained_each_has_its_own():
    chosen = wiring()
    assert chosen == wiring(AS_TRAINED)
    labels, prompt = chosen.texts(LABELS, PROMPT)
    assert torch.equal(labels, LABELS) and torch.equal(prompt, PROMPT)
    assert torch.equal(chosen.masks_of(MASKS), MASKS) and not chosen.rounded
    images = torch.randn(2, 9, 8)
    words, tokens = chosen.tokens(PROMPT, images)
    assert torch.equal(words, PROMPT) and torch.equal(tokens, images)


def test_as_published_the_first_label_is_everywhere_and_masks_are_nowhere():
    chosen = wiring(AS_PUBLISHED)
    labels, prompt = chosen.texts(LABELS, PROMPT)
    assert all(torch.equal(each, LABELS[0]) for each in (*labels, *prompt))
    assert (chosen.masks_of(MASKS) == 1).all() and chosen.rounded
    images = torch.randn(2, 9, 8)
    words, tokens = chosen.tokens(PROMPT, images)
    assert torch.equal(words, torch.cat([PROMPT, images[:, :3]], 1)) and torch.equal(tokens, images[:, 3:])
    assert torch.equal(chosen.tokens(PROMPT, images[:, :4])[1], images[:, :4])


def test_as_published_is_how_the_published_pipeline_wires_up(golden):
    run = golden.below("parts2whole_tiny_e2e", "e2e/")
    findings = golden.facts("parts2whole_tiny_config")["e2e_findings"]["mask_kw"]
    first = run["ref0_text"][1:]
    labels, prompt = wiring(AS_PUBLISHED).texts(torch.cat([first, torch.randn_like(first)]), first + 1)
    assert torch.equal(labels[1:], run["ref1_text"][1:])
    assert torch.equal(prompt, run["encoder"][1:, :prompt.shape[1]])
    assert findings["denoiser_text_is_face_label"] and all(findings["mask_all_ones"])


def test_another_wiring_is_refused():
    with pytest.raises(ValueError, match="as trained or as published as the wiring, got 'as drawn'"):
        wiring("as drawn")
