"""What one linear layer reads off embeddings, and what is drawn from them."""

from types import SimpleNamespace

import pytest
import torch

from pit.demo.drawing.creature import ATTRIBUTES, UNSEEN, creature_from_seed
from pit.demo.measure import embedding
from pit.demo.measure.embedding import accuracy, drawn_from_embeddings, over_the_ceiling, read_off, ridge
from pit.demo.measure.scores import NAMES, targets_of
from pit.demo.measure.suite import Encoded, Laboratory
from pit.demo.models.reader import CLASSES
from pit.demo.training.data import ALONE, WITH_THINGS
from tests.demo.measure.readings import reading_of

CREATURES = [creature_from_seed(seed, 0.0) for seed in range(4)]
TARGETS = torch.stack([targets_of(creature) for creature in CREATURES])


def test_ridge_regression_satisfies_its_normal_equations():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(40, width, generator=generator).double() for width in (5, 3))
    weights = ridge(x, y, 2.0)
    assert torch.allclose(x.T @ (y - x @ weights), 2.0 * weights, atol=1e-9)
    assert torch.allclose(ridge(x, x @ weights, 1e-9), weights, atol=1e-6)


def linear(count, seed):
    """Labels, some hidden, and embeddings that hold them in a turned space."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.stack([torch.randint(n, (count,), generator=generator) for n in CLASSES], dim=1)
    held = torch.cat([torch.eye(n)[column] for n, column in zip(CLASSES, labels.T, strict=True)], dim=1)
    turn = torch.randn(held.shape[1], 256, generator=torch.Generator().manual_seed(99))
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = UNSEEN
    return torch.cat([held @ turn, torch.ones(count, 1)], dim=1).double(), labels


def test_what_is_linear_in_embeddings_is_read_off_them(monkeypatch):
    monkeypatch.setattr(embedding, "embedded", lambda lab, count, kind, purpose: linear(count, len(purpose)))
    average, shares = accuracy(*read_off(None, 400, 100, ALONE))
    assert average.value > 0.99 and set(shares) == set(ATTRIBUTES)
    assert all(estimate.count < 100 for estimate in shares.values())


def test_what_embeddings_do_not_hold_is_not_read(monkeypatch):
    def unrelated(lab, count, kind, purpose):
        generator = torch.Generator().manual_seed(count)
        return torch.randn(count, 257, generator=generator).double(), linear(count, 2)[1]

    monkeypatch.setattr(embedding, "embedded", unrelated)
    assert accuracy(*read_off(None, 400, 100, ALONE))[0].value < 0.3


def test_each_attribute_counts_the_same():
    truth, found = torch.tensor([[0, 0], [0, UNSEEN], [0, UNSEEN]]), torch.tensor([[0, 1], [0, 0], [0, 0]])
    average, _ = accuracy(found.repeat(1, 9)[:, :len(NAMES)], truth.repeat(1, 9)[:, :len(NAMES)])
    assert average.value == pytest.approx(9 / 17)


@pytest.mark.parametrize("kind, size", [(ALONE, 64), (WITH_THINGS, 256)])
def test_pictures_are_embedded_with_a_constant_beside(kind, size):
    seen = []
    chain = SimpleNamespace(embed=lambda views: seen.extend(views) or torch.zeros(len(views), 256))
    found, labels = embedding.embedded(Laboratory(chain, None, 0), 3, kind, "test")
    assert [view.size for view in seen] == [(size, size)] * 3
    assert found.shape == (3, 257) and (found[:, -1] == 1).all() and labels.shape == (3, len(NAMES))


def test_all_is_drawn_on_white_and_compared_with_the_ceiling():
    asked = []

    def render_embeddings(embeddings, captions, seed, on_batch):
        asked.extend(captions)
        return torch.ones(len(embeddings), 3, 64, 64)

    exact = reading_of(TARGETS.clamp(min=0))
    chain = SimpleNamespace(
        embed=lambda views: torch.zeros(len(views), 256), render_embeddings=render_embeddings
    )
    lab = Laboratory(chain, SimpleNamespace(read=lambda pictures: exact), 0)
    chain.render = lambda tokens, captions, seed, weight, on_batch: asked.extend(captions)
    known = Encoded(CREATURES, TARGETS, torch.zeros(4, 16, 64), None)
    reading, white = drawn_from_embeddings(lab, known)
    assert asked == ["a creature"] * 4 and white.value == pytest.approx(0)
    assert over_the_ceiling(lab, reading, known).value == 1 and asked == ["a creature"] * 8
