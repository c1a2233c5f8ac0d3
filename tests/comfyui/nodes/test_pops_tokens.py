"""Image embeddings through a base IP-Adapter into the tiny SDXL."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from pit.ip_adapter.projection import ImageProjection
from tests.comfyui.nodes.pops import WIDTH, Pops
from tests.comfyui.nodes.published import TOKEN_DIM, key_value_state
from tests.golden import assert_equal

TOKENS = 4


def projection(seed: int = 3) -> ImageProjection:
    torch.manual_seed(seed)
    return ImageProjection(WIDTH, TOKEN_DIM, TOKENS).requires_grad_(False)


@pytest.fixture(scope="module")
def pops(inside, tmp_path_factory) -> Pops:
    return Pops(inside, tmp_path_factory.mktemp("pops"))


@pytest.fixture(scope="module")
def load(pops):
    """Writes a base IP-Adapter and loads it."""
    def made(seed: int = 3):
        path = pops.folder / f"ip-adapter_{seed}.safetensors"
        state = {f"image_proj.{key}": value for key, value in projection(seed).state_dict().items()}
        save_file(state | {f"ip_adapter.{key}": value for key, value in key_value_state().items()}, path)
        return pops.nodes("tokens").load_base_adapter(path, path.name)

    return made


def tokens_of(pops, embedding, adapter):
    return pops.run("EmbeddingToTokens", embedding, adapter, module="tokens")


def test_an_embedding_becomes_four_tokens_beside_those_of_zeros(pops, load):
    adapter, embedding = load(), pops.embedding(3)
    tokens = tokens_of(pops, embedding, adapter)
    assert_equal(tokens.values, projection()(embedding.values))
    assert_equal(tokens.uncond, projection()(torch.zeros(1, WIDTH)))
    assert tokens.values.shape == (3, TOKENS, TOKEN_DIM) and tokens.adapter == adapter.stamp


def test_sdxl_renders_them_each_in_its_own_image(pops, load, inside, tiny_model):
    adapter = load()
    tokens = tokens_of(pops, pops.embedding(2), adapter)
    found = inside.predict(inside.apply(tiny_model, adapter, tokens), images=2)
    plain = inside.predict(tiny_model, images=2)
    assert (found - plain).abs().max() > 1e-3
    assert_equal(inside.predict(inside.apply(tiny_model, adapter, tokens, 0.0), images=2), plain)
    swapped = replace(tokens, values=tokens.values.flip(0))
    swapped = inside.predict(inside.apply(tiny_model, adapter, swapped), images=2)
    # Rows 0 and 1 are positive, with the tokens of their images; 2 and 3 negative, with those of zeros.
    assert (found - swapped)[:2].abs().max() > 1e-3
    assert_equal(swapped[2:], found[2:])


def test_another_base_adapter_is_refused_where_tokens_are_used(pops, load, inside, tiny_model):
    tokens = tokens_of(pops, pops.embedding(), load())
    inside.apply(tiny_model, load(), tokens)
    with pytest.raises(ValueError, match="Expected the IP-Adapter that made the tokens"):
        inside.apply(tiny_model, load(4), tokens)


def test_what_does_not_fit_is_refused(pops, load, inside, tiny_adapter):
    embedding, adapter = pops.embedding(), load()
    with pytest.raises(ValueError, match="expected a base IP-Adapter, such as .* got ip_adapter"):
        tokens_of(pops, embedding, tiny_adapter)
    with pytest.raises(ValueError, match="expected a raw embedding, got a normalized one"):
        tokens_of(pops, replace(embedding, space="normalized"), adapter)
    narrow = replace(embedding, values=embedding.values[:, :9])
    with pytest.raises(ValueError, match=f"expected image embeddings of width {WIDTH}, got .* width 9"):
        tokens_of(pops, narrow, adapter)
    with pytest.raises(ValueError, match="Expected an IP-Adapter-plus.*Connect Load IP-Adapter\\+ here"):
        inside.nodes("parts").EncodeImage.execute(pops.vision, adapter, torch.rand(1, 40, 30, 3))


def test_four_tokens_are_not_saved_where_they_could_not_be_loaded(pops, load, inside):
    tokens = tokens_of(pops, pops.embedding(), load())
    with pytest.raises(ValueError, match="Expected 16 tokens of each picture to save, got 4"):
        inside.nodes("tokens").SaveTokens.execute(tokens, "four")


def test_directions_blends_and_picks_take_them_as_any_tokens(pops, load, inside):
    adapter = load()
    both = tokens_of(pops, pops.embedding(2), adapter)
    nodes = inside.nodes("concepts")
    picked = nodes.PickConcepts.execute(both, "2").args[0]
    assert torch.equal(picked.values, both.values[1:])
    blended = nodes.BlendConcepts.execute(picked, picked, "0.5", "linear").args[0]
    assert_equal(blended.values, picked.values)
