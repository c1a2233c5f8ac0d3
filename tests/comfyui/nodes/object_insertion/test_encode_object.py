"""From pictures and masks to contexts, with ComfyUI's own CLIP vision."""
from __future__ import annotations

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pit.object_insertion.embedding_optimizer import LegacyEmbeddingOptimizer
from tests.comfyui.nodes.object_insertion.shared import covering, engine, nodes, pictures
from tests.comfyui.nodes.published import FEATURE_DIM, write_optimizer
from tests.golden import assert_equal

TINY = "object_insertion_tiny_io"


def test_the_context_is_what_the_optimizer_makes_of_the_last_hidden_states(inside, golden):
    """Object, CLIP and optimizer of the golden data, with a query of ours."""
    io, config = golden.tensors(TINY), golden.facts("object_insertion_tiny_config")
    sizes = {"model_type": "clip_vision_model", "num_channels": 3} | config["image_encoder"]
    vision = inside.comfy("clip_vision").ClipVisionModel(sizes)
    vision.load_sd(golden.below("object_insertion_tiny_state", "image_encoder."))
    load = nodes(inside, "encoding").load_optimizer
    optimizer, report = load(golden.path("object_insertion_tiny_emb_opt.pt"), "emb_opt.pt")
    assert report == "emb_opt.pt: 4 layers, with a random query"
    with torch.inference_mode():
        pixels = io["img.object_pixel_values"]
        tokens = nodes(inside, "encoding").clip_tokens(vision, optimizer.module.reads, pixels)
        assert_equal(tokens, io["img.clip_last_hidden_state"])
        image = io["img.object_uint8"][None].float() / 255
        found = nodes(inside, "encoding").EncodeObject.execute(optimizer, vision, image, 7, 2, 1).args[0]
        queries = engine(inside, "condition").queries(7, 2, optimizer.module.output_dim)
        each = [optimizer.module(io["img.clip_last_hidden_state"], query[None]) for query in queries]
    assert_equal(found[0][0], torch.stack(each).mean(0))


def test_a_seed_decides_the_context_and_variants_go_on_from_it(encode):
    assert torch.equal(encode(seed=4)[0][0][0], encode(seed=4)[0][0][0])
    objects = pictures(count=2)
    together = encode(objects, seed=4, variants=3, queries=2)[0][0][0]
    assert together.shape == (6, 77, 48)
    for row in range(6):
        number, variant = divmod(row, 3)
        alone = encode(objects[number:number + 1], seed=4 + variant, queries=2)[0][0][0]
        torch.testing.assert_close(together[row:row + 1], alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_settings_of_the_picture_reach_the_encoder(encode):
    wide = pictures(20, 50)
    plain = encode(wide)[0][0][0]
    others = [{"fit": "squash"}, {"fit": "letterbox"}, {"pixel_scale": "as trained"}]
    for settings in others:
        assert (encode(wide, **settings)[0][0][0] - plain).abs().max() > 1e-4, settings


def test_the_node_shows_what_the_encoder_sees(encode, shown):
    red = torch.tensor([1.0, 0, 0]).expand(2, 20, 60, 3)
    encode(red, fit="letterbox")
    assert len(shown) == 2
    picture = Image.open(shown[0])
    assert picture.size == (28, 28)
    assert picture.getpixel((14, 1)) == (255, 255, 255) and picture.getpixel((14, 14)) == (255, 0, 0)


def test_objects_of_other_sizes_come_first_in_the_batch(encode):
    first, second = encode(pictures(20, 20))[0], encode(pictures(30, 50, 2), seed=3)[0]
    together = encode(pictures(30, 50, 2), seed=3, other_objects=first)[0][0][0]
    assert torch.equal(together, torch.cat([first[0][0], second[0][0]]))


@pytest.mark.parametrize("others, got", [
    ([[torch.ones(1, 77, 64), {}]], r"got \[\[77, 64\]\]"), ([[torch.ones(1, 154, 48), {}]], r"got \[\[154"),
    ([[torch.ones(1, 77, 48), {}]] * 2, r"got \[\[77, 48\], \[77, 48\]\]"), ([], r"got \[\]"),
])
def test_other_contexts_that_do_not_go_together_are_refused(encode, others, got):
    with pytest.raises(ValueError, match=rf"one context of the shape \[77, 48\] .* {got}"):
        encode(other_objects=others)


def test_comfyui_loads_and_frees_the_optimizer(inside, optimizer, encode):
    management = inside.comfy("model_management")
    encode()
    loaded = [each.model for each in management.current_loaded_models]
    assert any(each is optimizer.patcher for each in loaded)
    management.unload_all_models()
    assert not management.current_loaded_models and encode()[0][0][0].isfinite().all()


def test_a_mask_cuts_the_object_out_onto_white(inside, encode):
    scene, mask = pictures(40, 40), covering(40, 40, (10, 5, 30, 25))
    cut = encode(scene, mask=mask)[0][0][0]
    assert torch.equal(cut, encode(scene[:, 5:25, 10:30])[0][0][0])
    # As Load Image gives the transparency of a picture that is cut out already.
    clear = torch.cat([scene, mask[..., None]], dim=-1)
    assert torch.equal(encode(clear, mask=1 - mask)[0][0][0], cut)


def test_each_object_may_have_a_mask_of_its_own_or_all_the_same(encode):
    scenes, masks = pictures(40, 40, 2), covering(40, 40, (0, 0, 20, 20), (10, 5, 30, 25))
    together = encode(scenes, mask=masks)[0][0][0]
    alone = encode(scenes[1:], mask=masks[1:])[0][0][0]
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)
    assert len(encode(scenes, mask=masks[:1])[0][0][0]) == 2
    with pytest.raises(ValueError, match="one for each of 2 pictures, got 3"):
        encode(scenes, mask=torch.cat([masks, masks[:1]]))


def test_the_legacy_optimizer_reads_the_hidden_states_before_the_last(inside, clip_vision, encode):
    torch.manual_seed(2)
    tokens = (28 // 14) ** 2 + 1
    legacy = LegacyEmbeddingOptimizer(FEATURE_DIM, 48, tokens)
    path = inside.base / "legacy.safetensors"
    save_file({key: value.contiguous() for key, value in legacy.state_dict().items()}, path)
    optimizer, report = nodes(inside, "encoding").load_optimizer(path, path.name)
    assert report.endswith("legacy, without a query")
    with torch.inference_mode():
        condition, given = engine(inside, "condition"), inside.pack("pit.images").to_pil(pictures())
        pixels = condition.object_pixels(condition.object_pictures(given, size=28), size=28)
        states = clip_vision.model(pixel_values=pixels, intermediate_output=-2)[1]
        torch.testing.assert_close(encode(optimizer=optimizer)[0][0][0], legacy(states), rtol=1e-4, atol=1e-5)


def test_weights_in_half_precision_stay_so_and_compute_in_single(inside, tmp_path, encode):
    path = write_optimizer(tmp_path / "half.pt")
    state = {key: value.half() for key, value in torch.load(path, weights_only=True).items()}
    torch.save(state, path)
    half = nodes(inside, "encoding").load_optimizer(path, "half.pt")[0]
    assert {weight.dtype for weight in half.module.parameters()} == {torch.float16}
    found = encode(optimizer=half)[0][0][0]
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, encode()[0][0][0], rtol=0, atol=2e-3)


def test_cancel_ends_an_encoding_at_the_next_object(inside, optimizer, cancel_at, encode, monkeypatch):
    calls, forward = [], optimizer.module.forward
    monkeypatch.setattr(optimizer.module, "forward", lambda *given: (calls.append(1), forward(*given))[1])
    cancel_at(1)  # when the bar moves for the first time, after CLIP
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        encode(pictures(count=4), variants=10)
    assert len(calls) == 1
