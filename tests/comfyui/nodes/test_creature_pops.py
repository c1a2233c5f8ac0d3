"""The creatures' operators in ComfyUI: the nodes give what the measures compute.

Their weights are random ones here, of a small size: only the order of sums may differ.
"""

import pytest
import torch
from PIL import Image

from pit.demo.examples import PICTURES
from pit.demo.models import operators as engine
from pit.demo.models.chain import load_renderer
from pit.demo.models.sizes import EMBEDDING_DIM, TEXT_G
from pit.images import on_white, to_tensor
from pit.pops.files import OperatorConfig, OperatorFile, save_operator
from pit.pops.prior import PriorTransformer

pytest.importorskip("diffusers", reason="the creature models are trained with diffusers")
CLOSE = 1e-4
SEED, STEPS, GUIDANCE = 3, 4, 2.0
PHRASES = ["red", "no horns", "cyclops eyes"]


@pytest.fixture(scope="module")
def encoders():
    return engine.shipped_encoders()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Operators in the files that the loader reads."""
    folder, config = tmp_path_factory.mktemp("operators"), OperatorConfig(EMBEDDING_DIM, 16, 1, 2, 64, 77)
    torch.manual_seed(0)
    state = PriorTransformer(EMBEDDING_DIM, 16, 1, 2).state_dict()
    for mode in engine.OPERATORS:
        save_operator(folder / engine.operator_file(mode), OperatorFile(config, state, mode, GUIDANCE))
    return folder


@pytest.fixture
def operators(folder, monkeypatch):
    monkeypatch.setattr(engine, "weight_file", lambda name: folder / name)
    monkeypatch.setattr(engine, "STEPS", STEPS)
    return engine.CreatureOperators()


@pytest.fixture
def loaded(inside, folder):
    """The operator of a mode, from the loader."""
    def load(mode):
        name = engine.operator_file(mode)
        return inside.pack("nodes.pops.loading").load_operator(folder / name, name)

    return load


@pytest.fixture(scope="module")
def embeddings(inside, shipped):
    """Those of two pictures, from the node."""
    pictures = [on_white(Image.open(PICTURES / f"{name}.png")) for name in ("creature", "spots")]
    node = inside.pack("nodes.pops.embeddings").EncodeEmbedding
    with torch.inference_mode():
        return [node.execute(shipped[3], to_tensor([each]), "squashed").args[0] for each in pictures]


def run(inside, node, *inputs):
    with torch.inference_mode():
        return getattr(inside.pack("nodes.pops.operators"), node).execute(*inputs).args[0].values


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < CLOSE * expected.abs().max()


def test_words_are_those_of_the_training(inside, shipped, encoders):
    with torch.inference_mode():
        found = inside.pack("nodes.pops.words").word_states(shipped[1], PHRASES, EMBEDDING_DIM)
    for state, expected in zip(found, engine.word_states(encoders[1], PHRASES), strict=True):
        assert_same(state.cpu(), expected[:, :TEXT_G["hidden_size"]])


def test_two_pictures_are_combined_as_in_the_measures(inside, loaded, operators, embeddings):
    first, second = embeddings
    assert first.width == EMBEDDING_DIM and not first.of_another_encoder(second)
    for mode in ("texture", "scene", "union"):
        found = run(inside, "Combine", loaded(mode), SEED, 2, STEPS, GUIDANCE, 1.0, 1.0, first, second)
        both = (each.values.expand(2, -1) for each in embeddings)
        assert_same(found.cpu(), operators.combine(mode, *both, SEED, GUIDANCE))


def test_words_are_followed_as_in_the_measures(inside, shipped, loaded, operators, embeddings, encoders):
    found = run(
        inside, "Instruct", loaded("instruct"), embeddings[0], shipped[1], "\n".join(PHRASES), SEED, 1, STEPS,
        GUIDANCE, 1.0,
    )
    words = engine.word_states(encoders[1], PHRASES)
    assert_same(found.cpu(), operators.instruct(embeddings[0].values.expand(3, -1), words, SEED, GUIDANCE))


def test_parts_are_composed_as_in_the_measures(inside, loaded, operators, embeddings):
    parts = {f"part{number}": each for number, each in enumerate(embeddings)}
    found = run(inside, "Compose", loaded("clothes"), parts, SEED, 1, STEPS, GUIDANCE)
    together = torch.cat([each.values for each in embeddings])
    assert_same(found.cpu(), operators.compose([together], SEED, GUIDANCE))


def test_the_guidance_that_suits_them_is_that_of_0(inside, loaded, embeddings):
    for number, mode in enumerate(("texture", "scene")):
        guided = [
            run(inside, "Combine", loaded(mode), SEED, 1, STEPS, guidance, 1.0, 1.0, *embeddings)
            for guidance in (0.0, GUIDANCE, 8.0 - 7 * number)
        ]
        assert torch.equal(guided[0], guided[1]) and not torch.equal(guided[0], guided[2])


def test_what_they_make_becomes_tokens_of_the_base_adapter(inside, shipped, loaded, embeddings):
    node = inside.pack("nodes.pops.operators").Combine
    tokens = inside.pack("nodes.pops.tokens").EmbeddingToTokens
    with torch.inference_mode():
        made = node.execute(loaded("texture"), SEED, 1, STEPS, GUIDANCE, 1.0, 1.0, *embeddings).args[0]
        found = tokens.execute(made, shipped[6]).args[0].values
        expected = load_renderer().base_projection(made.values.cpu().float())
    assert_same(found.cpu(), expected)
