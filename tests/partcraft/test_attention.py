"""Attention maps and the attention loss against the published ones, at other sizes, and in training."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from pit.files.lora import Lora, merge_lora, read_lora
from pit.partcraft.attention_maps import (
    AttentionMaps,
    as_masks,
    attention_map,
    map_grid,
    maps_of_words,
    watched,
)
from pit.partcraft.discovery import find_parts
from pit.partcraft.loss import attention_loss, covered, maps_in_texts
from pit.partcraft.mapper import words_in
from pit.training.denoising import min_snr_weights, noise_schedule
from tests.golden import assert_equal, relative_error
from tests.partcraft.test_discovery import published_clusters
from tests.partcraft.test_files import ROUNDED, unet_of
from tests.partcraft.test_mapper import depths, mapper_of, text_encoder


def unet_with_lora(golden):
    unet = unet_of(golden)
    merge_lora(unet, Lora(read_lora(golden.path("partcraft_tiny_lora.safetensors")).unet, {}, ()))
    return unet


def grid_of(golden) -> tuple[int, int]:
    size = golden.facts("partcraft_tiny_config")["attn_size"]
    return size, size


@torch.no_grad()
def test_maps_are_the_published_ones(golden):
    io, unet = golden.below("partcraft_tiny_io", "unet/"), unet_with_lora(golden)
    layers = len(golden.facts("partcraft_tiny_config")["attn_map_layers"])
    with watched(unet, AttentionMaps(grid_of(golden))) as maps:
        seen = unet(io["sample"], io["timesteps"], io["encoder"]).sample
    assert maps.count == layers
    assert relative_error(maps.mean(), io["avg_attn_map"]) < ROUNDED
    assert torch.equal(unet(io["sample"], io["timesteps"], io["encoder"]).sample, seen)
    assert maps.count == layers  # what runs behind the block is not watched


def test_a_map_is_what_attention_weighs_by():
    q, k, v = torch.randn(2, 6, 12), torch.randn(2, 5, 12), torch.eye(5).repeat(2, 1, 1)
    heads = [each.unflatten(-1, (3, 4)).transpose(1, 2) for each in (q, k)]
    values = v[:, None].expand(2, 3, 5, 5)
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, values).mean(dim=1)
    assert_equal(attention_map(q, k, 3), expected)
    assert_equal(attention_map(q, k, 3, 0.5), expected)
    assert not torch.allclose(attention_map(q, k, 3, 1.0), expected)


@torch.no_grad()
@pytest.mark.parametrize("height, width", [(32, 24), (16, 40), (36, 20)])
def test_maps_of_any_size_and_aspect(golden, height, width):
    unet = unet_of(golden)
    io, facts = golden.below("partcraft_tiny_io", "unet/"), golden.facts("partcraft_tiny_config")
    grid = map_grid(height, width, facts["unet"]["sample_size"] // facts["attn_size"])
    sample = torch.randn(len(io["encoder"]), unet.config.in_channels, height, width)
    with watched(unet, AttentionMaps(grid)) as maps:
        unet(sample, io["timesteps"], io["encoder"])
    found = maps.mean()
    assert found.shape == (len(sample), *grid, io["encoder"].shape[1])
    assert_equal(found.sum(dim=-1), torch.ones(found.shape[:3]))


@pytest.mark.parametrize("size, level, grid", [
    ((64, 64), 4, (16, 16)), ((128, 96), 4, (32, 24)), ((65, 66), 4, (17, 17)), ((9, 5), 2, (5, 3)),
])
def test_the_grid_of_the_maps(size, level, grid):
    halved = size
    for _ in range(level.bit_length() - 1):
        halved = tuple(-(-side // 2) for side in halved)
    assert map_grid(*size, level) == grid == halved


def test_maps_are_the_mean_over_layers_and_steps():
    maps, grid = AttentionMaps((2, 3)), [torch.randn(1, 6, 8) for _ in range(4)]
    k = torch.randn(1, 5, 8)
    for q in grid:
        maps.add(q, k, 2)
    expected = torch.stack([attention_map(q, k, 2) for q in grid]).mean(0).reshape(1, 2, 3, 5)
    assert_equal(maps.mean(), expected)
    assert maps.wants(6) and not maps.wants(5)
    with pytest.raises(ValueError, match="a layer with 2 x 3 places, got none"):
        AttentionMaps((2, 3)).mean()


def test_maps_of_words():
    maps = torch.rand(2, 3, 4, 7)
    found = maps_of_words(maps, [[1], [], [2, 5]])
    assert torch.equal(found[:, 0], maps[..., 1]) and not found[:, 1].any()
    assert_equal(found[:, 2], (maps[..., 2] + maps[..., 5]) / 2)
    assert maps_of_words(maps, []).shape == (2, 0, 3, 4)
    masks = as_masks(found, 12, 8)
    assert masks.shape == (2, 3, 12, 8) and masks[:, [0, 2]].amax(dim=(2, 3)).eq(1).all()
    assert not masks[:, 1].any()


def published_loss_inputs(golden, key: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The maps of two layers as published, their mean over heads and layers, and the masks of the parts."""
    io = golden.below("partcraft_tiny_io", key.removesuffix("loss"))
    layers = [io["probs0"].float().requires_grad_(), io["probs1"].float()]
    io["probs0"] = layers[0]
    maps = torch.stack([layer.mean(dim=1) for layer in layers]).mean(dim=0)
    features = golden.below("partcraft_tiny_io", "seg/")["feats"][:len(io["ids"])]
    seen = find_parts(features, published_clusters(golden))
    return io, maps, seen.masks()


@pytest.mark.golden_keys("partcraft_tiny_io", "loss/.+/loss")
def test_the_attention_loss_is_the_published_one(golden, key):
    facts = golden.facts("partcraft_tiny_config")
    io, maps, masks = published_loss_inputs(golden, key)
    found, there = maps_in_texts(maps, io["ids"], facts["placeholder_ids"])
    loss = attention_loss(found, there, masks)
    assert_equal(loss[None].detach(), io["loss"])
    assert_equal(found.max()[None].detach(), io["max"])
    loss.backward()
    columns = facts["loss"][key.split("/")[1]]["grad_cols"]
    assert_equal(io["probs0"].grad[:, :1, :, :, columns], io["grad_probs0_cols"])
    assert torch.equal(masks.amax(dim=1), torch.ones_like(masks[:, 0])) and io["train_mask"].all()


def test_the_loss_of_words_that_are_there_has_the_published_gradient():
    """Without the constant for a part that the text does not name, only the scale is another one."""
    random = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 4, 4, 7, generator=random).requires_grad_()
    labels = torch.randint(0, 3, (2, 8, 8), generator=random)
    masks = torch.stack([labels == part for part in range(3)], dim=1).float()
    ids = torch.tensor([[1, 8, 2, 9, 2, 2, 2], [10, 1, 9, 8, 2, 2, 2]])
    found, there = maps_in_texts(maps, ids, [8, 9, 10])
    assert there.tolist() == [[True, True, False], [True, True, True]]
    published, present = (attention_loss(found, there, masks, form) for form in ("published", "present"))
    first, second = (torch.autograd.grad(loss, maps, retain_graph=True)[0] for loss in (published, present))
    share = there.float().mean()
    assert_equal(first, second * share)
    constant = 100 * masks[0, 2, ::2, ::2].mean() / 6
    assert constant > 1
    assert_equal(published.detach() - constant, present.detach() * share)


def test_a_batch_without_part_words_costs_nothing():
    maps = torch.rand(2, 4, 4, 7, requires_grad=True)
    found, there = maps_in_texts(maps, torch.ones(2, 7), [8, 9])
    loss = attention_loss(found, there, torch.ones(2, 2, 4, 4), "present")
    assert loss == 0 and not there.any()


def test_a_text_with_a_part_word_twice_is_refused():
    with pytest.raises(ValueError, match="once in a text"):
        maps_in_texts(torch.rand(1, 2, 2, 3), torch.tensor([[8, 8, 1]]), [8])


def test_another_form_of_the_loss_is_refused():
    one = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match="'published' or 'present', got 'x'"):
        attention_loss(one, one[:, :, 0, 0].bool(), one, "x")


def test_a_masked_training_sees_the_parts_in_the_text():
    masks = torch.zeros(1, 3, 2, 2)
    masks[0, 0, 0, 0] = masks[0, 1, 0, 1] = masks[0, 2, 1] = 1
    assert covered(masks, torch.tensor([[True, False, True]])).tolist() == [[[1, 0], [1, 1]]]
    assert covered(masks, torch.tensor([[True, True, True]])).all()


def test_the_weights_of_the_times_are_the_published_ones(golden):
    io, gamma = golden.below("partcraft_tiny_io", "snr/"), golden.facts("partcraft_tiny_config")["snr_gamma"]
    weights = min_snr_weights(noise_schedule(), io["t"].long(), gamma)
    assert_equal(weights, io["weight_gamma5"])
    assert_equal(io["snr"].clamp(max=gamma) / io["snr"], io["weight_gamma5"])


class Step:
    """A step of the training as published, at the tiny size, up to its loss."""

    def __init__(self, golden, io: dict[str, Tensor]):
        facts, schedule = golden.facts("partcraft_tiny_config"), noise_schedule()
        words, ids, times = facts["placeholder_ids"], io["ids1"].long(), io["t"].long()
        self.unet, self.mapper = unet_with_lora(golden), mapper_of(golden, depths(golden)[0])
        # The LoRA is merged: the gradients of its factors follow from those of the weights.
        self.unet.requires_grad_(True)
        encoder, vectors = text_encoder(golden, 1).requires_grad_(False), self.mapper(io["codes"])
        with words_in(encoder, ids, vectors, words):
            context = encoder(ids).last_hidden_state
        self.noisy = schedule.add_noise(io["latents"], io["noise"], times)
        with watched(self.unet, AttentionMaps(grid_of(golden))) as maps:
            self.predicted = self.unet(self.noisy, times, context).sample
        each = mse_loss(self.predicted, io["noise"], reduction="none").mean(dim=(1, 2, 3))
        diffusion = (each * min_snr_weights(schedule, times, facts["snr_gamma"])).mean()
        features = golden.below("partcraft_tiny_io", "seg/")["feats"][:len(ids)]
        seen = find_parts(features, published_clusters(golden))
        attention = attention_loss(*maps_in_texts(maps.mean(), ids, words), seen.masks())
        total = diffusion + facts["attn_loss_weight"] * attention
        self.losses = {"diff_loss": diffusion, "attn_loss": attention, "total": total}

    def gradient(self, golden, key: str) -> Tensor:
        """The gradient of a weight of the mapper or of the LoRA."""
        if key.startswith("mapper."):
            return self.mapper.get_parameter(key.removeprefix("mapper.")).grad
        module, _, factor = key.partition(".processor.")
        name, half, _ = factor.split(".")
        name = "to_out.0" if name == "to_out_lora" else name.removesuffix("_lora")
        weight = self.unet.get_submodule(f"{module}.{name}").weight.grad
        lora = golden.tensors("partcraft_tiny_lora")
        other = lora[key.replace(f".{half}.", ".up." if half == "down" else ".down.")]
        return other.T @ weight if half == "down" else weight @ other.T


def test_a_step_of_the_training_is_the_published_one(golden):
    io = golden.below("partcraft_tiny_io", "train/")
    step = Step(golden, io)
    step.losses["total"].backward()
    assert_equal(step.noisy, io["noisy"])
    assert relative_error(step.predicted.detach(), io["pred"]) < ROUNDED
    for name, loss in step.losses.items():
        assert_equal(loss[None].detach(), io[name])
    keys = [key.removeprefix("grad/") for key in io if key.startswith("grad/")]
    assert len(keys) >= 5
    for key in keys:
        assert relative_error(step.gradient(golden, key), io[f"grad/{key}"]) < 2 * ROUNDED, key


def test_maps_have_their_gradient_with_checkpointing(golden):
    """Layers that are computed twice to save memory give the same gradient to the words."""
    io = golden.below("partcraft_tiny_io", "unet/")
    gradients = []
    for checkpointing in (False, True):
        unet, words = unet_of(golden).train(), io["encoder"].clone().requires_grad_()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        with watched(unet, AttentionMaps(grid_of(golden))) as maps:
            predicted = unet(io["sample"], io["timesteps"], words).sample
            (maps.mean()[..., 3].square().mean() + predicted.square().mean()).backward()
        gradients.append(words.grad)
    assert gradients[0].abs().max() > 1e-4
    assert relative_error(gradients[1], gradients[0]) < 1e-4
