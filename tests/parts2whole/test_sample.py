"""Steps of sampling: guidance, batches, start and end, image tokens; one graph; memory after writing."""

import copy
import gc
import weakref

import pytest
import torch
from torch import Tensor

from pit.parts2whole.attention import IMAGE_TOKENS, padded_image_tokens
from pit.parts2whole.references import reading
from pit.parts2whole.sample import Conditions, guided, predicted_noise
from pit.parts2whole.unets import Denoiser, write_references
from tests.parts2whole.cases import golden_case

T = 500
CLOSE = {"atol": 2e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def case(golden):
    return golden_case(golden, "two")


@pytest.fixture(scope="module")
def written(case, published):
    return case.written(published.reference_unet)


@pytest.fixture(scope="module")
def given(case, published, denoiser, written) -> Conditions:
    pose = published.pose_guider(case.given["pose"]).detach()
    references = denoiser.keys_and_values(reading(written))
    return Conditions(case.text, torch.zeros_like(case.text), case.images, pose, references)


def changed(given: Conditions, **changes) -> Conditions:
    return Conditions(**vars(given) | changes)


def latents(count: int) -> Tensor:
    return torch.randn(count, 4, 8, 12, generator=torch.Generator().manual_seed(1))


def test_guidance_extrapolates_from_rows_that_read_nothing(denoiser, given):
    noisy = latents(1)
    ours = predicted_noise(denoiser, noisy, T, given, 3.5)
    positive = predicted_noise(denoiser, noisy, T, given, 1.0)
    alone = changed(given, text=given.negative, images=None, references=None)
    negative = predicted_noise(denoiser, noisy, T, alone, 1.0)
    torch.testing.assert_close(ours, guided(negative, positive, 3.5), **CLOSE)


def test_guidance_1_computes_one_half(denoiser, given):
    rows = []
    hook = denoiser.unet.conv_out.register_forward_hook(lambda module, inputs, out: rows.append(len(out)))
    predicted_noise(denoiser, latents(2), T, given, 1.0)
    predicted_noise(denoiser, latents(2), T, given, 2.0)
    hook.remove()
    assert rows == [2, 4]


def test_every_picture_of_a_batch_is_as_if_alone(denoiser, given):
    noisy = latents(3)
    together = predicted_noise(denoiser, noisy, T, given, 3.5)
    for row in range(3):
        alone = predicted_noise(denoiser, noisy[row:row + 1], T, given, 3.5)
        torch.testing.assert_close(together[row:row + 1], alone, **CLOSE)


@pytest.mark.parametrize(("timestep", "start", "end", "act"), [
    (999, 0.0, 1.0, True), (0, 0.0, 1.0, True), (999, 0.1, 1.0, False), (850, 0.1, 1.0, True),
    (500, 0.0, 0.4, False), (700, 0.0, 0.4, True),
])
def test_references_act_between_start_and_end(denoiser, given, timestep, start, end, act):
    between = changed(given, start=start, end=end)
    without = changed(given, images=None, references=None)
    ours = predicted_noise(denoiser, latents(1), timestep, between)
    expected = predicted_noise(denoiser, latents(1), timestep, given if act else without)
    assert torch.equal(ours, expected)


@pytest.mark.parametrize(("start", "end"), [
    (0.5, 0.5), (0.6, 0.4), (-0.1, 1.0), (0.0, 1.1), (float("nan"), 1.0),
])
def test_an_interval_that_is_empty_is_refused(given, start, end):
    with pytest.raises(ValueError, match="start to be less than end"):
        changed(given, start=start, end=end)


def test_each_of_references_pose_images_and_text_matters(denoiser, given):
    whole = predicted_noise(denoiser, latents(1), T, given)
    for name in ("references", "pose", "images"):
        assert (predicted_noise(denoiser, latents(1), T, changed(given, **{name: None})) - whole).norm() > 0.1
    assert (predicted_noise(denoiser, latents(1), T, changed(given, text=-given.text)) - whole).norm() > 0.1


@pytest.mark.parametrize("count", [0, 2, IMAGE_TOKENS, 9])
def test_image_tokens_are_filled_up_to_six_and_never_cut(count):
    embeds = torch.randn(2, count, 8)
    tokens = padded_image_tokens(embeds)
    assert tokens.shape == (2, max(count, IMAGE_TOKENS), 8)
    assert torch.equal(tokens[:, :count], embeds) and not tokens[:, count:].any()


def test_every_one_of_nine_image_tokens_counts(denoiser, given):
    images = torch.randn(1, 9, given.text.shape[-1], generator=torch.Generator().manual_seed(2))
    whole = predicted_noise(denoiser, latents(1), T, changed(given, images=images))
    for number in range(9):
        others = images.clone()
        others[:, number] = 0
        fewer = predicted_noise(denoiser, latents(1), T, changed(given, images=others))
        assert (fewer - whole).norm() > 1e-3


def test_without_decoupled_attention_image_tokens_follow_the_words(published, given):
    plain = Denoiser(copy.deepcopy(published.unet))
    together = changed(given, text=torch.cat([given.text, given.images], 1), images=None)
    torch.testing.assert_close(
        predicted_noise(plain, latents(1), T, given, 1.0),
        predicted_noise(plain, latents(1), T, together, 1.0), **CLOSE,
    )


def test_references_are_written_in_one_batch_and_each_as_if_alone(case, published, written):
    batches = []
    hook = published.reference_unet.conv_in.register_forward_hook(
        lambda module, inputs, out: batches.append(len(out))
    )
    parts = [case.references(what) for what in ("latents", "text", "mask")]
    write_references(published.reference_unet, *parts)
    assert batches == [2]
    alone = write_references(published.reference_unet, *(part[1:] for part in parts))
    hook.remove()
    for block, each in alone.items():
        # A network of random weights amplifies what differs in the last digit; another reference is 1 away.
        torch.testing.assert_close(written[block].features[1:], each.features, atol=2e-3, rtol=0)


def test_masks_of_another_size_are_refused(case, published):
    parts = [case.references(what) for what in ("latents", "text", "mask")]
    with pytest.raises(ValueError, match="size of the picture that is encoded"):
        write_references(published.reference_unet, *parts[:2], parts[2][..., :40])


def test_nothing_holds_the_reference_unet_after_writing(case, published):
    unet = copy.deepcopy(published.reference_unet)
    gone = weakref.ref(unet)
    with torch.no_grad():
        kept = case.written(unet)
    del unet
    gc.collect()
    assert gone() is None and kept


def test_gradient_checkpointing_changes_no_gradient(case, published):
    grads = []
    for checkpointed in (False, True):
        writer, reader, decoupled = copy.deepcopy(
            (published.reference_unet, published.unet, published.decoupled)
        )
        denoiser = Denoiser(reader, decoupled).train()
        for unet in (writer.train(), reader):
            unet.requires_grad_(True)
            if checkpointed:
                unet.enable_gradient_checkpointing()
        references = denoiser.keys_and_values(reading(case.written(writer)))
        denoiser(latents(1), T, case.text, case.images, None, references).square().mean().backward()
        grads.append([each.conv_in.weight.grad for each in (writer, reader)])
    for plain, recomputed in zip(*grads, strict=True):
        assert plain.any()
        torch.testing.assert_close(recomputed, plain, **CLOSE)


def test_a_step_runs_in_half_precision(case, published, denoiser, given, written):
    unet, decoupled, writer = copy.deepcopy((published.unet, published.decoupled, published.reference_unet))
    half = Denoiser(unet, decoupled)
    for module in (half, writer):
        module.half()
    *inputs, masks = (case.references(what) for what in ("latents", "text", "mask"))
    strengths = [1.0, 0.5]
    read = reading(write_references(writer, *(each.half() for each in inputs), masks), strengths)
    text, negative, images = (each.half() for each in (given.text, given.negative, given.images))
    halved = Conditions(text, negative, images, given.pose, half.keys_and_values(read))
    whole = changed(given, references=denoiser.keys_and_values(reading(written, strengths)))
    ours = predicted_noise(half, latents(1).half(), T, halved, 1.0)
    expected = predicted_noise(denoiser, latents(1), T, whole, 1.0)
    assert ours.dtype == torch.float16
    assert (ours.float() - expected).norm() < 0.1 * expected.norm()


def test_a_step_compiles_into_one_graph(denoiser, given):
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    both = torch.cat([given.negative, given.text])
    arguments = (
        latents(2), torch.tensor(T), both, torch.cat([given.images * 0, given.images]), given.pose,
        given.references, [False, True],
    )
    with torch.no_grad():
        torch.testing.assert_close(compiled(*arguments), denoiser(*arguments), **CLOSE)
