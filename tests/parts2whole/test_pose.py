"""The pose guider and the pictures that it reads."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pit.parts2whole.pose import PoseGuider, pose_features, pose_picture


def test_features_have_the_size_of_latents():
    guider = PoseGuider(32, (4, 6, 8, 12))
    assert guider(torch.rand(2, 3, 64, 40)).shape == (2, 32, 8, 5)


def test_a_guider_that_is_new_changes_nothing():
    assert not PoseGuider(32, (4, 6, 8, 12))(torch.rand(1, 3, 32, 32)).any()


def test_the_strength_multiplies(published):
    pose = torch.rand(1, 3, 32, 32)
    whole = pose_features(published.pose_guider, pose)
    assert torch.allclose(pose_features(published.pose_guider, pose, 0.5), whole / 2) and whole.any()
    assert not whole.requires_grad


def test_other_operations_take_their_place():
    class Recorded(nn.Conv2d):
        made = 0

        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            Recorded.made += 1

    class Operations:
        Conv2d = Recorded

    PoseGuider(32, (4, 6, 8, 12), operations=Operations, device="meta")
    assert Recorded.made == 8


def test_a_pose_is_resized_by_lanczos():
    image = torch.rand(1, 40, 30, 3)
    given = Image.fromarray((image[0] * 255).round().byte().numpy())
    expected = np.asarray(given.resize((48, 64), Image.Resampling.LANCZOS), "float32") / 255
    pose = pose_picture(image, 48, 64)
    assert pose.shape == (1, 3, 64, 48) and np.allclose(pose[0].movedim(0, -1).numpy(), expected)


@pytest.mark.parametrize(("image", "message"), [
    (torch.rand(1, 40, 40, 3), "the aspect of the picture, 48x64, got 40x40. Crop or pad it"),
    (torch.rand(2, 64, 48, 3), "one picture of a pose, got 2"),
    (torch.rand(1, 64, 48, 3) * torch.inf, "NaN or infinity"),
])
def test_poses_that_make_no_sense_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        pose_picture(image, 48, 64)
