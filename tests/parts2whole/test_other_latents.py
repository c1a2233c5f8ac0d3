"""Models in latents of other channels and larger pixels than Stable Diffusion's, with their own tokens."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from pit.files.unet_sizes import unet_config
from pit.parts2whole.files import load_parts2whole
from pit.parts2whole.parts import check_size, wiring
from pit.parts2whole.pose import CHANNELS, PoseGuider, channels_for
from pit.parts2whole.references import seen_mask, token_grid
from pit.parts2whole.training.learned import write_parts
from pit.parts2whole.training.start import new_parts
from pit.parts2whole.training.step import WholeModel
from pit.parts2whole.unets import empty_unet

CONFIG = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 24, "in_channels": 12,
    "out_channels": 12, "attention_head_dim": (1, 2),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
TOKENS = 40


@pytest.fixture
def parts():
    torch.manual_seed(0)
    unet = empty_unet(CONFIG)
    unet.load_state_dict(UNet2DConditionModel(**CONFIG).state_dict(), assign=True)
    return new_parts(unet, 0, TOKENS, channels_for(16))


def test_a_new_one_reads_image_tokens_of_another_width_and_larger_latent_pixels(parts):
    assert parts.decoupled.token_dim == TOKENS and parts.pose_guider.latent_pixel == 16
    model = WholeModel(parts)
    given = {
        "noisy": torch.randn(1, 12, 4, 4), "timesteps": torch.tensor([5]), "text": torch.randn(1, 77, 24),
        "references": torch.randn(1, 2, 12, 4, 4), "labels": torch.randn(1, 2, 77, 24),
        "masks": torch.ones(1, 2, 1, 64, 64), "present": torch.ones(1, 2),
        "pose": torch.rand(1, 3, 64, 64), "posed": torch.ones(1),
    }
    with torch.no_grad():
        first, second = (model(**given, images=torch.randn(1, 2, TOKENS)) for _ in range(2))
    assert first.shape == (1, 12, 4, 4) and torch.equal(first, second)  # the tokens say nothing yet


def test_what_is_written_is_read_back(parts, tmp_path):
    write_parts(tmp_path, WholeModel(parts), {})
    read = load_parts2whole(tmp_path)
    assert (read.unet.config.in_channels, read.unet.config.out_channels) == (12, 12)
    assert list(read.unet.config.attention_head_dim) == [1, 2]
    assert read.decoupled.token_dim == TOKENS and read.pose_guider.latent_pixel == 16
    state, other = parts.unet.state_dict(), read.unet.state_dict()
    assert all(torch.equal(state[key], other[key]) for key in state)


@pytest.mark.parametrize("channels", [5, 8])
def test_a_last_layer_of_another_width_does_not_pass_for_another_size(parts, channels):
    state = parts.unet.state_dict() | {"conv_out.weight": torch.zeros(channels, 32, 3, 3)}
    assert unet_config(None, state)["out_channels"] == 4


@pytest.mark.parametrize(("pixel", "more"), [(8, 0), (16, 1), (32, 2)])
def test_a_guider_halves_its_pictures_down_to_latents(pixel, more):
    channels = channels_for(pixel)
    assert channels == CHANNELS[:1] * more + CHANNELS
    guider = PoseGuider(8, channels)
    assert guider.latent_pixel == pixel
    assert guider(torch.rand(1, 3, 2 * pixel, pixel)).shape == (1, 8, 2, 1)


def test_masks_are_seen_in_larger_steps():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16, 16] = 1
    expected = torch.zeros(64, 64)
    expected[:48, :48] = 1
    assert torch.equal(seen_mask(mask, 16)[0, 0], expected) and token_grid((64, 64), 16) == (4, 4)


def test_sides_are_multiples_of_a_latent_pixel():
    check_size(48, 64, 16)
    with pytest.raises(ValueError, match="multiples of 16, got 40x64"):
        check_size(40, 64, 16)


def test_image_tokens_that_are_no_words_stay_image_tokens():
    published, text = wiring("as published"), torch.zeros(1, 77, 24)
    with pytest.raises(ValueError, match="at most 6 references as published.*got 7. Wire it as trained"):
        published.tokens(text, torch.zeros(1, 7, TOKENS))
    words, images = wiring().tokens(text, torch.zeros(1, 7, TOKENS))
    assert words.shape == (1, 77, 24) and images.shape == (1, 7, TOKENS)
