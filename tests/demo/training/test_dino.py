"""The training of the miniature DINO, in a few steps: what its losses reward, and what it writes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize, one_hot

from pit.demo.measure.parts_found import free_creatures
from pit.demo.models.dino import SEEN
from pit.demo.models.part_files import DINO
from pit.demo.models.weights import VERSION
from pit.demo.training import dino as training
from pit.demo.training import stage
from pit.demo.training.stage import Run
from pit.encoders.dino import load_dino
from pit.files.weights import read_state

SEED, MOST_BYTES = 3, 2_000_000


class Stopped(Exception):
    """Stands for a run that is cut off."""


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(training, "STAGE", replace(training.STAGE, steps=3, batch=2, warmup=1))


@pytest.fixture(scope="module")
def data():
    from pit.demo.drawing.draw import draw_creature

    return {"clean": np.stack([np.asarray(draw_creature(each, 256)) for each in free_creatures(SEED, 4)])}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def run_in(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return Run(folder, torch.device("cpu"), torch.float32, SEED)


# Views ----------------------------------------------------------------------------------------------------


def test_both_views_show_the_same_where_they_say_so():
    ramp = torch.linspace(0, 1, 256)
    picture = torch.stack([ramp.expand(256, 256), ramp[:, None].expand(256, 256), torch.zeros(256, 256)])
    first, second = (training.placements(1, generator(seed)) for seed in (1, 2))
    seen = [training.middles_of(training.placed(picture[None], where)) for where in (first, second)]
    places = torch.nn.functional.affine_grid(
        (torch.linalg.inv(first) @ second)[:, :2], [1, 1, 16, 16], align_corners=False)
    moved, inside = training.moved(seen[0], places)
    sure = (places.abs().amax(dim=3) < 0.9).flatten(1)
    assert (inside[sure] == 1).all() and sure.sum() > 100
    torch.testing.assert_close(moved[sure], seen[1][sure], atol=0.01, rtol=0)


def test_other_colors_leave_black_white_and_lines(data):
    shown = torch.from_numpy(data["clean"]).permute(0, 3, 1, 2) / 255
    found = training.recolored(shown, generator())
    assert ((found - shown).abs().amax(dim=1) > 0.2).float().mean() > 0.05
    white = (shown > 0.999).all(dim=1, keepdim=True).expand_as(shown)
    torch.testing.assert_close(found[white], shown[white], atol=0.01, rtol=0)
    flat = training.line_drawing(torch.full((1, 3, 32, 32), 0.3))
    assert (flat == 0.5).all() and training.line_drawing(shown).amin() < 0.1


def test_a_hue_stays_in_the_shade():
    colors = torch.tensor([[0.9, 0.2, 0.1], [0.6, 0.13, 0.07], [0.1, 0.2, 0.9], [0.5, 0.5, 0.5]])
    alike = training.likeness_of(training.hues_of(colors)[None])[0]
    assert alike[0, 1] > 0.5 and alike[0, 2] < 1e-4 and alike[0, 3] < 1e-4 and alike[0, 0] == 1


def test_the_ground_is_what_is_joined_to_the_border():
    picture = torch.ones(1, 3, SEEN, SEEN)
    picture[..., 56:168, 56:168] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    picture[..., 98:126, 98:126] = 1  # as white as the ground, but inside
    picture[..., 180:200, 60:160] = 0.85  # a shadow
    border, figures = training.figures_in(picture)
    expected = torch.zeros(16, 16)
    expected[4:12, 4:12] = 1
    assert torch.equal(figures.view(16, 16), expected) and (border == 1).all()


# Losses ---------------------------------------------------------------------------------------------------


def test_pointing_at_places_of_one_color_is_rewarded():
    color = torch.randint(4, (2, 256), generator=generator())
    likeness = (color[:, :, None] == color[:, None]).float()
    pointed_at = torch.rand(2, 256, generator=generator(1)).topk(64, dim=1).indices
    rarity = torch.ones(2, 256)

    def loss(parts):
        return training.pointing_loss(normalize(parts, dim=2), likeness, rarity, pointed_at).item()

    right, none = loss(one_hot(color, 24).float()), loss(torch.ones(2, 256, 24))
    assert right < 0.1 * none and 1.2 < none < 1.6  # near the logarithm of 4 colors


def test_a_style_that_tells_pictures_apart_is_rewarded():
    own = normalize(torch.randn(3, 1, 8, generator=generator()), dim=2).expand(-1, 256, -1)
    weights = torch.ones(3, 256)
    assert training.style_loss(own, own, weights) < 0.1
    assert training.style_loss(own, own.roll(1, dims=0), weights) > 1


def test_numbers_are_drawn_to_their_lengths():
    right = {
        kind: [normalize(torch.randn(1, 4, count, generator=generator()), dim=2) * training.LENGTHS[kind]]
        for kind, count in training.TOLD.items()
    }
    wrong = {kind: [2 * each for each in views] for kind, views in right.items()}
    assert training.length_loss(right) < 1e-4 < 0.1 < training.length_loss(wrong)


# Training -------------------------------------------------------------------------------------------------


def test_a_resumed_training_equals_an_uninterrupted_one_and_is_read_as_a_dinov2(tmp_path, data, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "weights").mkdir(parents=True)
    training.train_dino(run_in(tmp_path / "a"), data, tmp_path / "a" / "weights")
    monkeypatch.setattr(stage, "SAVE_SECONDS", -1)
    draw, steps = training.draw_views, []

    def stop(*arguments):
        steps.append(1)
        if len(steps) == 3:
            raise Stopped
        return draw(*arguments)

    monkeypatch.setattr(training, "draw_views", stop)
    with pytest.raises(Stopped):
        training.train_dino(run_in(tmp_path / "b"), data, tmp_path / "b" / "weights")
    training.train_dino(run_in(tmp_path / "b"), data, tmp_path / "b" / "weights")
    assert len(steps) == 4
    (whole, metadata), (resumed, _) = (read_state(tmp_path / name / "weights" / DINO) for name in "ab")
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert metadata["version"] == VERSION
    assert (tmp_path / "a" / "weights" / DINO).stat().st_size < MOST_BYTES
    assert load_dino(tmp_path / "a" / "weights" / DINO).config.image_size == SEEN


def test_training_lowers_the_loss(tmp_path, data):
    torch.manual_seed(0)
    model, run = training.TaughtDino(), run_in(tmp_path)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)  # the rate of the warm-up
    losses = []
    for _ in range(5):
        loss = training.loss_of(run, model, training.draw_views(data["clean"], generator()), generator())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] and all(value.grad is not None for value in model.colors.parameters())
