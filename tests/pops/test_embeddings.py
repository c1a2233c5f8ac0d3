"""What operators read: conditions and pixel values as published, and embeddings that know their space."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from pit.pops.embeddings import (
    CROPPED,
    LETTERBOXED,
    NORMALIZED,
    SQUASHED,
    Embedding,
    check_fits,
    check_same_encoder,
    in_one_batch,
    normalized,
    picture_condition,
    pixel_values,
    raw,
    word_condition,
)
from tests.golden import Golden, assert_equal
from tests.pops.test_prior import golden_prior, seeded
from tests.pops.tiny import WIDTH, random_operator

PAIRS = {
    "both": [[1, 1], [1, 1]], "drop_a": [[0, 1], [0, 1]], "drop_b": [[1, 0], [1, 0]],
    "drop_ab": [[0, 0], [0, 0]], "mixed": [[0, 1], [1, 0]],
}


def embedding(seed: int = 1, count: int = 2, width: int = WIDTH, **facts) -> Embedding:
    made = {"negative": seeded(9, 1, width), "encoder": "ViT-bigG", "source": f"picture {seed}"} | facts
    return Embedding(seeded(seed, count, width), **made)


@pytest.fixture
def io(golden: Golden) -> dict[str, torch.Tensor]:
    return golden.tensors("pops_tiny_io")


@pytest.fixture
def encoder(golden: Golden) -> CLIPVisionModelWithProjection:
    sizes = golden.facts("pops_tiny_config")["image_encoder"]
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes))
    model.load_state_dict(golden.below("pops_tiny_encoders", "image_encoder."))
    return model.eval()


@pytest.mark.parametrize("kept", PAIRS.values(), ids=PAIRS)
def test_a_pair_is_the_published_condition(request, golden, io, kept):
    name = request.node.callspec.id
    prior = golden_prior(golden)
    a, b = (prior.normalized(io[f"pre.embed_{side}"]) for side in "ab")
    expected = io[f"pre.binary_{name}.hidden"]
    found = picture_condition([a, b], torch.tensor(kept))
    assert torch.equal(found == 0, expected == 0)
    if expected.any():
        assert_equal(found, expected)


def test_an_embedding_without_its_picture_is_the_published_condition(golden, io):
    prior = golden_prior(golden)
    a, b = (prior.normalized(io[f"pre.embed_{side}"]) for side in "ab")
    assert_equal(picture_condition([a, b]), io["pre.vector_in_a.hidden"])
    assert_equal(picture_condition([a, None]), io["pre.binary_drop_b.hidden"])
    assert_equal(picture_condition([None, b]), io["pre.binary_drop_a.hidden"])


def test_a_word_is_the_published_condition(golden, io):
    length = int(io["instruct.attention_mask"].sum())
    picture = golden_prior(golden).normalized(io["pre.embed_a"][:1])
    words = [io["instruct.text_last_hidden_state"][0, :length]]
    condition, mask = word_condition(picture, words)
    assert_equal(condition, io["pre.instruct.hidden"])
    assert mask.all()


@torch.no_grad()
def test_crops_of_clothes_are_the_published_condition(golden, io, encoder):
    crops = golden_prior(golden).normalized(encoder(pixel_values=io["clothes.crops"]).image_embeds)
    assert_equal(picture_condition([crop[None] for crop in crops]), io["pre.clothes.hidden"])


@torch.no_grad()
@pytest.mark.parametrize("mode", ["texture", "union", "scene"])
def test_what_a_training_dropped_is_the_published_condition(golden, io, encoder, mode):
    prior = golden_prior(golden)
    a, b = (prior.normalized(encoder(pixel_values=io[f"drop.source_{side}"]).image_embeds) for side in "ab")
    assert_equal(picture_condition([a, b], ~io[f"drop.{mode}.dropped"]), io[f"drop.{mode}.hidden"])


@torch.no_grad()
def test_the_negative_embedding_is_that_of_zero_pixels(io, encoder):
    assert_equal(encoder(pixel_values=torch.zeros_like(io["pre.image_a"][:1])).image_embeds, io["zero_embed"])


@pytest.mark.parametrize("fit, name", [(SQUASHED, "infer"), (CROPPED, "train")])
def test_pixel_values_are_the_published_ones(io, fit, name):
    picture = Image.fromarray(io["image.uint8_hwc"].numpy())
    expected = io[f"image.{name}_pixel_values"]
    assert_equal(pixel_values([picture], fit, expected.shape[-1])[0], expected)


def test_a_letterboxed_picture_is_whole_on_white():
    white = pixel_values([Image.new("RGB", (4, 4), "white")])[0]
    seen = pixel_values([Image.new("RGB", (100, 50), "black")], LETTERBOXED)[0]
    assert torch.equal(seen[:, :50], white[:, :50]) and torch.equal(seen[:, -50:], white[:, -50:])
    black = pixel_values([Image.new("RGB", (4, 4), "black")])[0]
    assert_equal(seen[:, 60:160], black[:, 60:160])


def test_transparency_is_white_in_every_fit():
    clear, white = Image.new("RGBA", (30, 20), (255, 0, 0, 0)), Image.new("RGB", (30, 20), "white")
    for fit in (SQUASHED, CROPPED, LETTERBOXED):
        assert torch.equal(pixel_values([clear], fit), pixel_values([white], fit))


def test_a_picture_is_left_as_it_was():
    picture = Image.fromarray(np.zeros((2000, 1500, 3), dtype=np.uint8))
    pixel_values([picture], LETTERBOXED)
    assert picture.size == (1500, 2000)


@pytest.mark.parametrize("pictures, fit, message", [
    ([Image.new("RGB", (8, 8))], "stretched", "one of squashed, cropped, letterboxed, got 'stretched'"),
    ([], SQUASHED, "Expected at least one picture"),
    ([Image.new("RGB", (6000, 1))], CROPPED, "sides differ by at most 500 to 1"),
])
def test_pictures_that_cannot_be_encoded_are_refused(pictures, fit, message):
    with pytest.raises(ValueError, match=message):
        pixel_values(pictures, fit)


def test_a_strength_leads_from_the_mean_of_all_pictures_to_the_picture():
    a, b = seeded(1, 2, WIDTH), seeded(2, 1, WIDTH)
    found = picture_condition([a, b], [0.25, 1.0])
    assert_equal(found, torch.stack([a / 4, b.expand(2, -1)], dim=1))


@pytest.mark.parametrize("slots, strengths, message", [
    ([], None, "Expected 1 to 12 pictures, got 0"),
    ([seeded(1, 1, 8)] * 13, None, "Expected 1 to 12 pictures, got 13. Leave some out."),
    ([None, None], None, "Expected at least one embedding, got none"),
    ([seeded(1, 2, 8), seeded(1, 3, 8)], None, "as many embeddings in each input, or one, got 2 and 3"),
    ([seeded(1, 0, 8)], None, "as many embeddings in each input, or one, got 0"),
    ([seeded(1, 2, 8)], [1.0, 1.0], "a finite strength for each of 1 pictures"),
    ([seeded(1, 2, 8)], [float("nan")], "a finite strength for each of 1 pictures, got"),
])
def test_conditions_that_make_no_sense_are_refused(slots, strengths, message):
    with pytest.raises(ValueError, match=message):
        picture_condition(slots, strengths)


def test_words_of_different_lengths_are_one_batch():
    picture, words = seeded(1, 1, WIDTH), [seeded(2, 3, WIDTH), seeded(3, 5, WIDTH)]
    condition, mask = word_condition(picture, words)
    assert condition.shape == (2, 6, WIDTH) and mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert torch.equal(condition[:, 0], picture.expand(2, -1))
    assert torch.equal(condition[0, 1:4], words[0]) and torch.equal(condition[1, 1:], words[1])
    assert torch.equal(word_condition(seeded(1, 3, WIDTH), words[:1])[0][2, 1:], words[0])
    assert not word_condition(picture, words, 0.0)[0][:, 0].any()


@pytest.mark.parametrize("words, message", [
    ([], "at least one word, got none"), ([torch.zeros(0, 8)], "at least one word, got none"),
    ([torch.zeros(2, 8)] * 3, "got 2 and 3"),
])
def test_words_that_are_none_or_too_many_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        word_condition(torch.zeros(2, 8), words)


def test_a_batch_of_conditions_keeps_their_lengths():
    tokens, mask = in_one_batch([torch.ones(2, 4), torch.ones(1, 4)])
    assert tokens[..., 0].tolist() == [[1, 1], [1, 0]] and mask.tolist() == [[True, True], [True, False]]


def test_nothing_is_normalized_twice():
    operator, given = random_operator(), embedding()
    inside = replace(given, values=normalized(given, operator), space=NORMALIZED)
    assert torch.equal(normalized(inside, operator), inside.values)
    assert_equal(raw(inside, operator), given.values)
    assert torch.equal(raw(given, operator), given.values)


def test_embeddings_of_another_encoder_are_refused_by_name():
    check_same_encoder(embedding(1), embedding(2), embedding(3, negative=None))
    # The same encoder in half precision.
    check_same_encoder(embedding(1), embedding(2, negative=seeded(9, 1, WIDTH).bfloat16().float()))
    other = embedding(2, negative=seeded(8, 1, WIDTH), encoder="another one", source="the second picture")
    with pytest.raises(ValueError, match=r"picture 1 \(ViT-bigG, width 24\).*second picture \(another one, "):
        check_same_encoder(embedding(1), other)
    with pytest.raises(ValueError, match="width 24.*width 16.*same CLIP vision model"):
        check_same_encoder(embedding(1), embedding(2, width=16, negative=None))


def test_embeddings_that_do_not_fit_a_reader_are_refused_by_name():
    check_fits(embedding(), WIDTH, "texturing")
    with pytest.raises(ValueError, match=r"texturing expected .* of width 1280, got .*picture 1"):
        check_fits(embedding(), 1280, "texturing")
    for width, advice in ((1280, "with, ViT-bigG as published"), (1024, "with, ViT-H as"), (9, "with")):
        with pytest.raises(ValueError, match=rf"{advice}[^,]*\.$"):
            check_fits(embedding(), width, "texturing")
    broken = embedding()
    broken.values[1, 3] = float("nan")
    with pytest.raises(ValueError, match="texturing expected finite numbers, got NaN .*picture"):
        check_fits(broken, WIDTH, "texturing")


def test_words_that_are_narrower_than_pictures_are_followed_by_zeros():
    picture, word = torch.ones(1, 6), torch.full((2, 4), 2.0)
    condition, mask = word_condition(picture, [word])
    assert condition.tolist() == [[[1] * 6, [2] * 4 + [0] * 2, [2] * 4 + [0] * 2]] and mask.all()
    with pytest.raises(ValueError, match="width up to 6, got 7"):
        word_condition(picture, [torch.ones(2, 7)])
