"""LoRAs with parts of wrong shapes, of every kind: ComfyUI would skip, reshape or broadcast them."""

import pytest
import torch

from tests.comfyui.nodes.test_lora import applied, saved
from tests.comfyui.nodes.test_lora_kinds import KINDS, draws, glora, loha, lokr, lokr_of_factors, lora, norms

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0"
MODULES = {  # a square layer, a wide one, a high one, and a convolution
    "square": f"{ATTENTION}.attn1.to_out.0", "wide": f"{ATTENTION}.attn2.to_k",
    "high": f"{ATTENTION}.ff.net.0.proj", "convolution": "down_blocks.1.resnets.0.conv1",
}


@pytest.fixture(scope="module")
def model(inside):
    return inside.tiny.tiny_sdxl()


@pytest.fixture(scope="module")
def weights(inside, model):
    """The weights of the modules."""
    names, state = inside.comfy("utils").unet_to_diffusers(inside.tiny.UNET), model.model.state_dict()
    return {kind: state[f"diffusion_model.{names[f'{path}.weight']}"] for kind, path in MODULES.items()}


def scaled(part, shape):
    """A LoRA with a scale of a shape."""
    return lambda w: lora(w) | {part: torch.ones([w.shape[0] if n == "rows" else n for n in shape])}


def magnitude(w):
    return {"lora_magnitude_vector": torch.ones(w.shape[0])}


def flipped(w):
    """Factors for the transposed weight, of as many values."""
    return lora(w.flatten(1).T)


def halved(w):
    """Factors whose product has as many values as the weight, in half as many rows."""
    columns = w.flatten(1).shape[1]
    return {"lora_up.weight": draws(w.shape[0] // 2, 4), "lora_down.weight": draws(4, 2 * columns)}


def boft(w, steps=2, size=8, **more):
    return {"oft_blocks": draws(steps, w.shape[0] // size, size, size), "alpha": torch.tensor(0.0)} | more


def oft(w, **more):
    return {"oft_blocks": draws(w.shape[0] // 8, 8, 8), "alpha": torch.tensor(0.0)} | more


def mid(w, *shape):
    rows, columns = w.shape[:2]
    return {"lora_up.weight": draws(rows, 4, 1, 1), "lora_down.weight": draws(4, columns, 1, 1),
            "lora_mid.weight": draws(*shape)}


def tucker(w, *shape):
    rows, columns = w.shape[:2]
    return {"hada_w1_a": draws(4, rows), "hada_w1_b": draws(4, columns), "hada_w2_a": draws(4, rows),
            "hada_w2_b": draws(4, columns), "hada_t1": draws(4, 4, 3, 3), "hada_t2": draws(*shape)}


def without(parts, part):
    return {name: tensor for name, tensor in parts.items() if name != part}


LINEAR, ALL = ("square", "wide", "high"), tuple(MODULES)
WRONG = {
    **{f"dora_scale {shape}": (scaled("dora_scale", shape), ALL)
       for shape in [(3, 1), (), (1,), ("rows",), ("rows", 2), (2, "rows"), ("rows", 1, 1), (3, 1, 1, 1)]},
    "dora_scale of the weight": (lambda w: lora(w) | {"dora_scale": w.abs()}, ALL),
    "dora_scale of a row": (lambda w: lora(w) | {"dora_scale": torch.ones([1] * w.ndim)}, ALL),
    "dora_scale for a convolution": (scaled("dora_scale", ("rows", 1, 1, 1)), LINEAR),
    "dora_scale for a linear layer": (scaled("dora_scale", ("rows", 1)), ("convolution",)),
    "dora_scale of LoHa": (lambda w: loha(w) | {"dora_scale": torch.ones(3, 1)}, ALL),
    "dora_scale of LoKr": (lambda w: lokr(w) | {"dora_scale": torch.ones(3, 1)}, ALL),
    "dora_scale of GLoRA": (lambda w: glora(w) | {"dora_scale": torch.ones(3, 1)}, ALL),
    **{f"magnitude {shape}": (scaled("lora_magnitude_vector", shape), ALL)
       for shape in [(3,), (), (1,), (2, "rows"), ("rows", 2), ("rows", "rows")]},
    "both magnitudes": (lambda w: lora(w) | magnitude(w) | {"dora_scale": norms(w)}, ALL),
    "magnitude of LoHa": (lambda w: loha(w) | lora(w) | magnitude(w), ALL),
    "dora_scale of OFT": (lambda w: oft(w, dora_scale=norms(w)), ALL),
    "transposed factors": (flipped, ("wide", "high")),
    "factors with as many values": (halved, ALL),
    "a kernel in up": (lambda w: lora(w) | {"lora_up.weight": draws(w.shape[0], 4, 2, 2)}, ALL),
    "a down of one dimension": (lambda w: lora(w) | {"lora_down.weight": draws(4)}, ALL),
    "a mid of two dimensions": (lambda w: mid(w, 4, 4), ("convolution",)),
    "a mid of another rank": (lambda w: mid(w, 1, 4, 3, 3), ("convolution",)),
    "a mid with another kernel": (lambda w: mid(w, 4, 4, 2, 2), ("convolution",)),
    "a mid for a linear layer": (lambda w: mid(w, 4, 4, 3, 3), LINEAR),
    "LoHa of one row": (lambda w: loha(w) | {"hada_w2_a": draws(1, 3)}, ALL),
    "LoHa of one column": (lambda w: loha(w) | {"hada_w2_b": draws(3, 1)}, ALL),
    "LoHa of other ranks": (lambda w: loha(w) | {"hada_w2_b": draws(4, w.flatten(1).shape[1])}, ALL),
    "LoHa, transposed": (lambda w: loha(w.flatten(1).T), ("wide", "high")),
    "LoHa with a core of one": (lambda w: tucker(w, 1, 1, 3, 3), ("convolution",)),
    "LoHa with a core of one pixel": (lambda w: tucker(w, 4, 4, 1, 1), ("convolution",)),
    "LoKr of other rows": (lambda w: {
        "lokr_w1": draws(4, 2), "lokr_w2": draws(w.shape[0] // 2, w.flatten(1).shape[1] // 4)}, ALL),
    "LoKr, transposed": (lambda w: lokr(w.flatten(1).T), ("wide", "high")),
    "LoKr of three dimensions": (
        lambda w: lokr(w) | {"lokr_w2": lokr(w)["lokr_w2"].flatten(1)[..., None]}, ALL),
    "LoKr of other ranks": (lambda w: lokr_of_factors(w) | {"lokr_w2_a": draws(w.shape[0] // 4, 3)}, ALL),
    "LoKr, whole and of factors": (lambda w: lokr(w) | lokr_of_factors(w), ALL),
    "GLoRA of another rank": (lambda w: glora(w) | {"b2.weight": draws(w.shape[0], 3)}, LINEAR),
    "GLoRA of one": (lambda w: glora(w) | {"a1.weight": draws(1, w.shape[1])}, LINEAR),
    "GLoRA, transposed": (lambda w: glora(w.T), ("wide", "high")),
    "OFT of too many blocks": (lambda w: {"oft_blocks": draws(w.shape[0] // 8 + 1, 8, 8)}, ALL),
    "OFT of blocks that are not square": (lambda w: {"oft_blocks": draws(w.shape[0] // 8, 8, 4)}, ALL),
    "OFT of two dimensions": (lambda w: {"oft_blocks": draws(8, 8)}, ALL),
    "OFT with a rescale of one dimension": (lambda w: oft(w, rescale=torch.ones(w.shape[0])), ALL),
    "BOFT without alpha": (lambda w: without(boft(w), "alpha"), ALL),
    "BOFT of odd blocks": (lambda w: boft(w, size=1), ALL),
    "BOFT of too many steps": (lambda w: boft(w, steps=9), ALL),
    "BOFT with a rescale of one dimension": (lambda w: boft(w, rescale=torch.ones(w.shape[0])), ALL),
    "BOFT with one rescale": (lambda w: boft(w, rescale=torch.ones(1)), ALL),
    "a difference of one row": (lambda w: {"diff": draws(1, *w.shape[1:])}, ALL),
    "a difference, flattened": (lambda w: {"diff": draws(w.numel())}, ALL),
    "a difference with a bias of one": (
        lambda w: {"diff": draws(*w.shape), "diff_b": draws(1)}, ("convolution",)),
    "factors with another bias": (lambda w: lora(w) | {"diff_b": draws(w.shape[0] + 1)}, ("convolution",)),
    "a bias alone": (lambda w: {"diff_b": draws(w.shape[0], 1)}, ("convolution",)),
    "norms with another bias": (
        lambda w: {"w_norm": draws(*w.shape), "b_norm": draws(1)}, ("convolution",)),
    "norms of one": (lambda w: {"w_norm": draws(1)}, ALL),
    "a set weight of one value": (lambda w: {"set_weight": draws(1)}, ALL),
    "a set weight of one row": (lambda w: {"set_weight": draws(1, *w.shape[1:])}, ALL),
    "factors and a difference": (lambda w: lora(w) | {"diff": draws(*w.shape)}, ALL),
    "factors and LoHa": (lambda w: lora(w) | loha(w), ALL),
    "factors and OFT": (lambda w: lora(w) | oft(w), ALL),
    "two biases": (lambda w: {"w_norm": draws(*w.shape), "b_norm": draws(w.shape[0]),
                              "diff_b": draws(w.shape[0])}, ("convolution",)),
    "an enormous weight": (lambda w: {
        "lora_up.weight": draws(60_000, 1), "lora_down.weight": draws(1, 60_000),
        "reshape_weight": torch.tensor([60_000, 60_000])}, LINEAR),
    "an enormous weight for small factors": (
        lambda w: lora(w) | {"reshape_weight": torch.tensor([10**6] * w.ndim)}, ALL),
    "a smaller weight": (lambda w: lora(w) | {"reshape_weight": torch.ones(w.ndim).int()}, ALL),
    "a fraction of a weight": (lambda w: lora(w) | {"reshape_weight": torch.tensor([*w.shape]) + 0.5}, ALL),
}


@pytest.mark.parametrize("case", WRONG)
def test_parts_of_a_wrong_shape_are_refused(inside, model, weights, tmp_path, case):
    make, kinds = WRONG[case]
    for kind in kinds:
        name = f"lora_unet_{MODULES[kind].replace('.', '_')}"
        made = {f"{name}.{part}": tensor for part, tensor in make(weights[kind]).items()}
        path = saved(tmp_path / f"{kind}.safetensors", made)
        with pytest.raises(ValueError, match="(?i)expected .*got ") as caught:
            applied(inside, model, path)
        message = str(caught.value)
        assert name in message and path.name in message and message.endswith("."), message
        assert len(message) <= 1000


def changed_lengths(parts):
    """The parts with one axis of one of them of another length."""
    for part, tensor in parts.items():
        for axis, length in enumerate(tensor.shape):
            for other in {1, 2, length - 1, length + 1, 2 * length} - {0, length}:
                shape = [*tensor.shape[:axis], other, *tensor.shape[axis + 1:]]
                yield f"{part} {shape}", parts | {part: torch.ones(shape).to(tensor.dtype)}


def changed_dimensions(parts):
    """The parts with one of them of more or fewer dimensions."""
    for part, tensor in parts.items():
        given = tensor.shape
        for shape in ([*given, 1], [1, *given], given[1:], given[:-1], [tensor.numel()]):
            yield parts | {part: torch.ones(shape).to(tensor.dtype)}


SHAPES = {"linear": (16, 24), "square": (16, 16), "convolution": (16, 8, 3, 3), "pixel": (16, 16, 1, 1)}
# What may differ: how many steps BOFT has.
FREE = {("BOFT", "oft_blocks [1"), ("BOFT with a rescale", "oft_blocks [1")}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_refused_is_applied_and_no_part_may_have_another_length(inside, caplog, kind, shape):
    files, calculate = inside.pack("pit.files.lora"), inside.comfy("lora").calculate_weight
    nodes, names = inside.pack("nodes.bridge.lora_patches"), {"lora_unet_x": "w.weight"}
    module = torch.nn.ModuleDict({"w": torch.nn.Module()})
    module["w"].weight = torch.nn.Parameter(draws(*SHAPES[shape]))
    module["w"].bias = torch.nn.Parameter(torch.ones(16))
    whole = KINDS[kind](draws(*SHAPES[shape]))

    def applies(parts):
        state = {f"lora_unet_x.{part}": tensor for part, tensor in parts.items()}
        if list(files.unsound(state)):
            return False
        try:
            patches, _ = nodes.patches_for(module, state, names, "a test")
        except ValueError:
            return False
        for key, patch in patches.items():
            before = module.state_dict()[key]
            caplog.clear()
            after = calculate([(0.7, patch, 1.0, None, None)], before.clone(), key)
            assert not caplog.records and (after.shape == before.shape or "reshape_weight" in parts)
        return True

    assert applies(whole)
    for changed, parts in changed_lengths(whole):
        if not any(kind == one and changed.startswith(start) for one, start in FREE):
            assert not applies(parts), changed
    for parts in changed_dimensions(whole):
        applies(parts)
