"""What each block of a UNet counts, by preset and by table."""

from types import SimpleNamespace

import pytest

from pit.ip_adapter.layer_weights import PRESETS, SD15, SDXL, LayerWeights, preset_weights, table_in

ORDER = ("input", "output", "middle")  # of the files of IP-Adapters


def layers_of(blocks, depth=1):
    """The attention layers of a UNet, in the order of the files."""
    named = sorted((name.split("_") for name in blocks), key=lambda each: ORDER.index(each[0]))
    return [
        SimpleNamespace(block=block, number=int(number), index=index)
        for block, number in named for index in range(depth)
    ]


def acting(preset, blocks):
    """The blocks that count, and what."""
    return {name: weight for name, weight in preset_weights(preset, list(blocks)).items() if weight}


def named(kind, *numbers):
    return {f"{kind}_{number}": 1.0 for number in numbers}


@pytest.mark.parametrize(("preset", "sdxl", "sd15"), [
    ("all", SDXL, SD15),
    ("style", {"output_1": 1}, named("input", 1, 2, 4, 5) | named("output", *range(5, 12))),
    ("composition", {"input_8": 1}, {"input_7": 0.25, "input_8": 1}),
    ("style and composition", {"input_8": 1, "output_1": 1},
     named("input", 1, 2, 4, 5, 8) | {"input_7": 0.25} | named("output", *range(5, 12))),
    ("strong style", named("input", 4, 5, 7) | named("middle", 0) | named("output", *range(6)),
     named("input", 1, 2, 4, 5) | named("middle", 0) | named("output", *range(3, 12))),
])
def test_presets_are_those_of_the_field(preset, sdxl, sd15):
    assert acting(preset, SDXL) == sdxl
    assert acting(preset, SD15) == sd15


@pytest.mark.parametrize(("preset", "weights"), [
    ("strong middle", (0.2, 1, 0.2)), ("weak input", (0.2, 1, 1)), ("weak middle", (1, 0.2, 1)),
    ("weak output", (1, 1, 0.2)),
])
def test_presets_by_the_kind_of_a_block_fit_any_unet(preset, weights):
    assert tuple(preset_weights(preset, ["input_1", "middle_0", "output_9"]).values()) == weights


def test_eases_follow_the_way_through_the_unet():
    blocks = ["input_1", "input_2", "middle_0", "output_0"]

    def found(preset):
        return [round(weight, 4) for weight in preset_weights(preset, blocks).values()]

    assert found("ease in") == [1, 0.7625, 0.525, 0.2875]
    assert found("ease out") == [0.05, 0.2875, 0.525, 0.7625]
    assert found("ease in and out") == [0.05, 0.525, 1, 0.525]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_every_layer_a_weight(preset):
    for blocks in (SDXL, SD15):
        weights = LayerWeights(preset).of_layers(layers_of(blocks, depth=2))
        assert len(weights) == 2 * len(blocks) and any(weights)


def test_layers_are_in_the_order_of_the_files():
    """The middle block comes last there, but runs before the output blocks."""
    weights = LayerWeights("all", (("middle_0", 0.5), ("input_4.1", 0.25))).of_layers(layers_of(SDXL, 2))
    assert weights == [1, 0.25] + [1] * 18 + [0.5, 0.5]
    eased = LayerWeights("ease in").of_layers(layers_of(["input_1", "middle_0", "output_0"]))
    assert eased[0] > eased[2] > eased[1]


def test_a_table_changes_its_blocks_alone_and_the_narrower_name_counts():
    table = table_in("output_1: 0.5\n output_1.2=2 ,input_8:-1e-1;\n\n")
    assert table == (("output_1", 0.5), ("output_1.2", 2.0), ("input_8", -0.1))
    layers = layers_of(SDXL, depth=3)
    by_name = dict(zip(((e.block, e.number, e.index) for e in layers),
                       LayerWeights("style", table).of_layers(layers), strict=True))
    assert [by_name["output", 1, index] for index in range(3)] == [0.5, 0.5, 2.0]
    assert [by_name["input", 8, index] for index in range(3)] == [-0.1] * 3
    assert sum(weight == 0 for weight in by_name.values()) == 27


@pytest.mark.parametrize("text", [
    "output_1", "output_1: ", "output: 1", "up_1: 1", "output_1: 1 input_4: 1", "output_1.: 1", "1: 1",
    "output_-1: 1", "output_1.2.3: 1", "output_1234: 1", "{'output_1': 1}",
])
def test_a_line_that_is_no_block_and_weight_is_refused(text):
    with pytest.raises(ValueError, match="such as 'output_1: 0.5', got"):
        table_in(f"input_4: 1\n{text}")


@pytest.mark.parametrize("weight", ["much", "nan", "inf", "10.5", "-11", "1e999", "0x1", "1__0"])
def test_a_weight_that_is_no_number_or_too_large_is_refused(weight):
    with pytest.raises(ValueError, match="weight from -10 to 10 for output_1, got"):
        table_in(f"output_1: {weight}")


def test_a_block_that_comes_twice_and_an_endless_table_are_refused():
    with pytest.raises(ValueError, match="got output_1 twice"):
        table_in("output_1: 1\noutput_1: 2")
    with pytest.raises(ValueError, match="at most 10000 letters, got 20000"):
        table_in("\n" * 20_000)


@pytest.mark.parametrize("name", ["output_9", "input_4.7", "middle_1"])
def test_a_block_that_the_model_lacks_is_refused_with_all_that_it_has(name):
    with pytest.raises(ValueError, match=rf"got {name}\..*the model has input_4, input_5, .* output_5\."):
        LayerWeights("all", ((name, 1.0),)).of_layers(layers_of(SDXL))


def test_a_preset_for_other_models_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="SDXL or Stable Diffusion 1.5 for the preset 'style', got one with "
                                         "input_1, output_0. Choose the preset 'all'"):
        LayerWeights("style").of_layers(layers_of(["input_1", "output_0"]))
    with pytest.raises(ValueError, match="Expected one of the presets all, style, .* got 'stile'"):
        LayerWeights("stile").of_layers(layers_of(SDXL))
