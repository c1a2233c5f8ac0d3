"""The shipped preview is a small picture of the creature that the tokens were made from."""
from __future__ import annotations

import torch
from torch.nn import functional

from pit.demo.drawing.draw import whole_view
from pit.demo.measure.trials import draw_trials
from pit.demo.models.chain import CreatureChain
from pit.demo.models.preview import TokenPreview
from pit.demo.models.sizes import PREVIEW_SIZE
from pit.demo.models.weights import PREVIEW, read_weights
from pit.images import to_tensor


@torch.no_grad()
def test_a_preview_looks_like_its_own_creature_and_like_no_other():
    preview = TokenPreview()
    preview.load_state_dict(read_weights(PREVIEW))
    views = [whole_view(trial.creature) for trial in draw_trials(3, 12, 1, 0.0)]
    shown = preview.pictures(CreatureChain().encode(views))
    assert shown.shape == (12, PREVIEW_SIZE, PREVIEW_SIZE, 3) and 0 <= shown.min() <= shown.max() <= 1
    small = functional.interpolate(to_tensor(views).permute(0, 3, 1, 2), PREVIEW_SIZE, mode="area")
    errors = (shown[:, None] - small.permute(0, 2, 3, 1)).square().mean(dim=(2, 3, 4))
    assert errors.argmin(dim=1).tolist() == list(range(12))
    assert errors.diagonal().mean() < 0.2 * errors.mean()
