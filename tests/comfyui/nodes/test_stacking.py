"""Apply IP+ Tokens beside patches of other packs, and beside itself."""

from functools import partial

import pytest
import torch


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def ip_adapter(inside):
    return inside.ip_adapter()


class OtherPatch:
    """Another pack's replacement of the cross-attention: the text half, shifted."""

    def __init__(self, attention, managed=()):
        self.attention = attention
        self.managed = list(managed)
        self.moves = []
        self.cleaned = False

    def __call__(self, q, k, v, extra_options):
        return self.attention(q, k, v, extra_options["n_heads"]) + 0.5

    def models(self):
        return self.managed

    def to(self, device_or_dtype):
        self.moves.append(device_or_dtype)
        return self

    def cleanup(self):
        self.cleaned = True


def other_pack(inside, model, *keys):
    """A clone of the model with one patch of another pack in the slots of these keys."""
    patch = OtherPatch(inside.comfy("ldm.modules.attention").optimized_attention, [object()])
    clone = model.clone()
    for key in keys:
        clone.set_model_attn2_replace(patch, *key)
    return clone, patch


def shift(out, q, k, v, extra_options, amount, **_):
    """What another pack adds by `add`."""
    return torch.full_like(out, amount)


def patches(model):
    return model.model_options["transformer_options"]["patches_replace"]["attn2"]


def layer_output(inside, model, key, sigma=1.0, dtype=torch.float32):
    """What the patch in one slot gives for queries, keys and values of its own."""
    generator = torch.Generator().manual_seed(9)
    q, k, v = torch.randn(3, 2, 7, 128, generator=generator).to(dtype)
    options = inside.transformer_options(model, q, sigma=sigma)
    with torch.inference_mode():
        return patches(model)[key](q, k, v, options | {"n_heads": 2, "attn_precision": None})


MIDDLE = ("middle", 0, 1)


@pytest.mark.parametrize("key", [MIDDLE, MIDDLE[:2]])
def test_a_patch_that_is_already_there_keeps_its_effect(inside, model, ip_adapter, key):
    """Packs use the key of one transformer, or that of the whole block."""
    theirs, _ = other_pack(inside, model, key)
    tokens = inside.tokens(1)
    ours = layer_output(inside, inside.apply(model, ip_adapter, tokens), MIDDLE)
    both = layer_output(inside, inside.apply(theirs, ip_adapter, tokens), MIDDLE)
    torch.testing.assert_close(both, ours + 0.5)


def test_a_patch_that_is_already_there_hears_all_that_comfyui_tells_it(inside, model, ip_adapter):
    theirs, patch = other_pack(inside, model, MIDDLE)
    both = inside.apply(theirs, ip_adapter, inside.tokens(1))
    assert set(both.model_patches_models()) == {ip_adapter.cross_attention, *patch.managed}
    both.model_patches_to(torch.device("cpu"))
    both.model_patches_to(torch.float16)
    assert patch.moves == [torch.device("cpu"), torch.float16]
    both.cleanup()
    assert patch.cleaned


def test_another_pack_can_add_to_our_patch_between_its_own_noise_levels(inside, model, ip_adapter):
    ours = inside.apply(model, ip_adapter, inside.tokens(1))
    theirs = ours.clone()
    patches(theirs)[MIDDLE].add(shift, amount=0.25, sigma_start=2.0, sigma_end=0.5)
    for sigma, amount in [(3.0, 0.0), (1.0, 0.25), (0.1, 0.0)]:
        expected = layer_output(inside, ours, MIDDLE, sigma) + amount
        torch.testing.assert_close(layer_output(inside, theirs, MIDDLE, sigma), expected)


def test_what_another_pack_adds_in_single_precision_leaves_half_precision_half(inside, model, ip_adapter):
    theirs = inside.apply(model, ip_adapter, inside.tokens(1))
    patches(theirs)[MIDDLE].add(lambda out, *_, **__: out.float(), sigma_start=2.0, sigma_end=0.5)
    assert layer_output(inside, theirs, MIDDLE, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_what_is_added_to_a_clone_stays_out_of_the_original(inside, model, ip_adapter):
    ours = inside.apply(model, ip_adapter, inside.tokens(1))
    before = layer_output(inside, ours, MIDDLE)
    for _ in range(2):
        patches(ours.clone())[MIDDLE].add(shift, amount=1.0, sigma_start=9.0, sigma_end=0.0)
    assert torch.equal(layer_output(inside, ours, MIDDLE), before)


def test_two_sets_of_tokens_add_up(inside, model, ip_adapter):
    first, second = inside.tokens(1, seed=1), inside.tokens(1, seed=2)
    plain = layer_output(inside, inside.apply(model, ip_adapter, first, weight=0.0), MIDDLE)
    one = layer_output(inside, inside.apply(model, ip_adapter, first), MIDDLE)
    two = layer_output(inside, inside.apply(model, ip_adapter, second, weight=0.5), MIDDLE)
    both = inside.apply(inside.apply(model, ip_adapter, first), ip_adapter, second, weight=0.5)
    torch.testing.assert_close(layer_output(inside, both, MIDDLE), one + two - plain)


@pytest.mark.parametrize("key", [MIDDLE, MIDDLE[:2]])
def test_a_patch_that_another_pack_puts_in_our_place_afterwards_is_refused(inside, model, ip_adapter, key):
    """It would draw without our tokens there; under the key of the block, ours would hide it."""
    later, _ = other_pack(inside, inside.apply(model, ip_adapter, inside.tokens(1)), key)
    with pytest.raises(ValueError, match="Put that node before Apply"):
        inside.predict(later)
    before, _ = other_pack(inside, model, key)
    inside.predict(inside.apply(before, ip_adapter, inside.tokens(1)))


class Holder:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, *call):
        return self.inner(*call)


@pytest.mark.parametrize("wrapped", [
    lambda ours: lambda q, k, v, options: ours(q, k, v, options),
    lambda ours: partial(lambda ours, *call: ours(*call), ours), Holder,
])
def test_a_patch_that_calls_ours_is_welcome(inside, model, ip_adapter, wrapped):
    ours = inside.apply(model, ip_adapter, inside.tokens(1))
    theirs = ours.clone()
    theirs.set_model_attn2_replace(wrapped(patches(theirs)[MIDDLE]), *MIDDLE)
    assert torch.equal(inside.predict(theirs), inside.predict(ours))
