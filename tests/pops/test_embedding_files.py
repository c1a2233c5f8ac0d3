"""Embeddings as files: what is kept is what comes back, others' tensors are read, and the rest is named."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from pit.pops.embedding_files import read_embedding, save_embedding
from pit.pops.embeddings import NORMALIZED, RAW
from tests.pops.test_embeddings import embedding
from tests.pops.tiny import WIDTH
from tests.refusal import assert_refused


class KandinskyPriorPipelineOutput:
    """Under the name of diffusers' class, whose pickles hold the two tensors in a dict."""

    def __init__(self) -> None:
        self.image_embeds = self.negative_image_embeds = torch.zeros(1, WIDTH)


def test_an_embedding_comes_back_with_all_that_is_known_of_it(tmp_path):
    kept = embedding(notes={"operator": "texturing"})
    for given in (kept, replace(kept, negative=None), replace(kept, space=NORMALIZED)):
        save_embedding(tmp_path / "a.safetensors", given)
        found = read_embedding(tmp_path / "a.safetensors", "a")
        assert torch.equal(found.values, given.values) and found.space == given.space
        assert found.encoder == given.encoder and found.notes == given.notes
        assert found.source == f"a, {given.source}"
        assert (found.negative is None) == (given.negative is None) and not found.of_another_encoder(given)


@pytest.mark.parametrize("content", [
    {"image_embeds": torch.ones(2, 8), "negative_image_embeds": torch.zeros(1, 8)}, torch.ones(2, 8),
    torch.ones(8), {"embedding": torch.ones(2, 8)},
], ids=["both", "rows", "row", "named"])
def test_plain_tensors_of_others_are_read_as_raw_unless_told(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    found = read_embedding(tmp_path / "a.pth", "a")
    assert found.space == RAW and found.width == 8 and found.values.eq(1).all()
    assert read_embedding(tmp_path / "a.pth", "a", NORMALIZED).space == NORMALIZED


def test_half_precision_becomes_float32(tmp_path):
    torch.save(torch.ones(1, 8).half(), tmp_path / "a.pth")
    assert read_embedding(tmp_path / "a.pth", "a").values.dtype == torch.float32


@pytest.mark.parametrize("old_format", [True, False])
def test_a_published_result_is_not_opened_and_says_what_to_do(tmp_path, old_format):
    torch.save(
        KandinskyPriorPipelineOutput(), tmp_path / "a_b_s_18_cfg_8_img_emb.pth",
        _use_new_zipfile_serialization=not old_format,
    )
    assert_refused(
        read_embedding, tmp_path / "a_b_s_18_cfg_8_img_emb.pth", "got a KandinskyPriorPipelineOutput",
        "not opened", "Encode Image Embedding", "weights_only=False", "negative_image_embeds", name="a",
    )


@pytest.mark.parametrize("state, message", [
    ({"image_embeds": torch.full((1, 8), float("nan"))}, "expected finite numbers in image_embeds"),
    ({"image_embeds": torch.ones(1, 8).int()}, "expected floating-point numbers in image_embeds"),
    ({"image_embeds": torch.ones(1, 2, 8)}, "expected image_embeds of the shape [B, E]"),
    ({"image_embeds": torch.ones(0, 8)}, "expected image_embeds of the shape [B, E]"),
    ({"image_embeds": torch.ones(1, 8), "negative_image_embeds": torch.ones(1, 9)}, "as image_embeds, 8"),
    ({"image_embeds": torch.ones(1, 8), "more": torch.ones(1)}, "expected an image embedding"),
    ({"weight": torch.ones(1, 8)}, "expected an image embedding"),
    ({"values": torch.ones(1, 16, 8), "uncond": torch.ones(1, 16, 8)}, "got IP+ tokens"),
])
def test_other_files_are_named(tmp_path, state, message):
    save_file(state, tmp_path / "a.safetensors")
    assert_refused(read_embedding, tmp_path / "a.safetensors", message, name="a")


def test_an_unknown_space_is_refused(tmp_path):
    save_embedding(tmp_path / "a.safetensors", embedding(space="other"))
    assert_refused(read_embedding, tmp_path / "a.safetensors", "'raw' or 'normalized'", "'other'", name="a")
