"""Part Weight, Blend Concepts and Pick Concepts, and how they lead to other concepts."""

import re

import pytest
import torch

from tests.comfyui.nodes.graphs import changed, node, sample_graph


def concept_graph(**changes) -> dict:
    """Three concepts from weighed parts; two of them picked; each blended with another concept."""
    graph = sample_graph() | {
        "weight": node("PiT_PartWeight", parts=["parts", 0], part=2, weight=1.5),
        "other": node(
            "PiT_SamplePrior", prior=["prior", 0], parts=["parts", 0], seed=9, concepts=1, steps=4,
            guidance=2.0, solver="euler", strength=0.6,
        ),
        "pick": node("PiT_PickConcepts", tokens=["sample", 0], numbers="3, 1"),
        "blend": node(
            "PiT_BlendConcepts", first=["pick", 0], second=["other", 0], amounts="0, 0.5, 1",
            mode="spherical",
        ),
        "loaded": node("Tiny_Loaded", after=["blend", 0]),
    }
    graph["sample"]["inputs"]["parts"] = ["weight", 0]
    return changed(graph, changes)


@pytest.fixture(scope="module")
def nodes(inside):
    """The three nodes, and those before and after them."""
    return inside.nodes("concepts"), inside.nodes("parts"), inside.nodes("prior")


@pytest.fixture(scope="module")
def weigh(nodes):
    return lambda parts, part, weight: nodes[0].PartWeight.execute(parts, part, weight).args[0]


@pytest.fixture(scope="module")
def blend(nodes):
    return lambda *inputs: nodes[0].BlendConcepts.execute(*inputs).args[0]


@pytest.fixture(scope="module")
def pick(nodes):
    return lambda tokens, numbers: nodes[0].PickConcepts.execute(tokens, numbers).args[0]


@pytest.fixture(scope="module")
def encode(inside, nodes):
    """Encodes two pictures of one colour each, and a white one, in four slots."""
    clip_vision, ip_adapter = inside.tiny.tiny_clip_vision(), inside.ip_adapter()
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1]])[:, None, None].expand(-1, 8, 8, -1)

    def run(reference_slot=False):
        with torch.inference_mode():
            return nodes[1].EncodeParts.execute(
                clip_vision, ip_adapter, {"part0": colours}, "centred", 0, 0.0, reference_slot, 5,
            ).args[0]

    return run


@pytest.fixture(scope="module")
def sample(inside, nodes):
    prior = inside.prior()

    def run(parts, seed=0, concepts=1, guidance=2.0, **more):
        with torch.inference_mode():
            return nodes[2].SamplePrior.execute(
                prior, parts, seed, concepts, 4, guidance, "euler", 0.6, **more
            ).args[0].values

    return run


def test_parts_are_counted_from_one_and_their_weights_chain(weigh, encode):
    parts = encode()
    weighed = weigh(weigh(parts, 1, 0.5), 2, -1.0)
    assert torch.equal(weighed.slots, parts.weighed(0, 0.5).weighed(1, -1.0).slots)
    assert torch.equal(weighed.negative[1], parts.slots[1])
    assert (weighed.source, weighed.reference) == (parts.source, parts.reference)


def test_weights_lead_to_other_concepts(weigh, encode, sample):
    parts = encode()
    drawn = {weight: sample(weigh(parts, 1, weight)) for weight in (-1.0, 0.0, 1.0, 2.0)}
    assert torch.equal(drawn[1.0], sample(parts))
    for one, other in [(-1.0, 0.0), (0.0, 1.0), (1.0, 2.0)]:
        assert (drawn[one] - drawn[other]).abs().max() > 1e-3
    alike = [sample(weigh(parts, 1, weight), guidance=1.0) for weight in (-1.0, 0.0)]
    assert torch.equal(*alike)


def test_what_is_avoided_is_shuffled_with_the_parts(weigh, encode, sample):
    parts = weigh(encode(), 1, -1.0)
    together = sample(parts, seed=3, concepts=3, order="shuffled")
    for number in range(3):
        alone = sample(parts, seed=3 + number, order="shuffled")
        torch.testing.assert_close(together[number], alone[0], rtol=1e-4, atol=1e-5)


def test_encode_parts_says_whether_the_first_slot_is_a_reference(encode):
    assert encode(reference_slot=True).reference is True
    assert encode().reference is False


def test_white_slots_hold_the_very_empty_tokens(monkeypatch, nodes, encode):
    """Whatever the encoder's batch does to the last bits."""
    exact = nodes[1].encode_pixels

    def noisy(*inputs):
        encoded = exact(*inputs)
        noise = 1e-6 * torch.arange(len(encoded.tokens))[:, None, None]
        return encoded._replace(tokens=encoded.tokens + noise)

    monkeypatch.setattr(nodes[1], "encode_pixels", noisy)
    parts = encode(reference_slot=True)
    assert [torch.equal(slot, parts.empty[0]) for slot in parts.slots] == [True, False, False, True, True]


def test_a_blend_goes_from_first_to_second(inside, blend):
    first, second = inside.tokens(2, seed=1), inside.tokens(1, seed=2)
    blended = blend(first, second, "0, 0.5, 1", "spherical")
    assert blended.values.shape == (6, 16, 96)
    assert torch.equal(blended.values[:2], first.values)
    assert torch.equal(blended.values[4:], second.values.expand(2, -1, -1))
    straight = blend(first, second, "0.5", "linear").values
    torch.testing.assert_close(straight, (first.values + second.values) / 2)
    assert (blended.values[2:4] - straight).abs().max() > 0.1
    assert blended.uncond is first.uncond


def test_picked_concepts_are_those_of_the_wall(inside, pick):
    wall = inside.tokens(5)
    assert torch.equal(pick(wall, "5, 1, 2-3, 1").values, wall.values[[4, 0, 1, 2, 0]])


def test_another_choice_draws_nothing_again(lab):
    first = lab.queue(concept_graph(sample__seed=31))
    assert first.status == "success", first.error
    second = lab.queue(concept_graph(sample__seed=31, pick__numbers="2"))
    assert second.status == "success", second.error
    executed = {event["data"]["node"] for event in second.events if event["type"] == "executing"}
    assert executed == {"pick", "blend", "loaded", None}


# Bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight__weight": float("nan")}, "PiT_PartWeight.*between -2 and 2, got nan"),
        ({"weight__part": 4}, "PiT_PartWeight.*part from 1 to 3, got 4.*reference"),
        ({"blend__amounts": ""}, "PiT_BlendConcepts.*got nothing"),
        ({"blend__amounts": "half"}, "PiT_BlendConcepts.*got 'half'"),
        ({"blend__amounts": "0, nan"}, "PiT_BlendConcepts.*between 0 .* and 1 .*, got nan"),
        ({"blend__amounts": "inf"}, "PiT_BlendConcepts.*between 0 .* and 1 .*, got inf"),
        ({"blend__amounts": "0.5, 1.5"}, "PiT_BlendConcepts.*between 0 .* and 1 .*, got 1.5"),
        ({"other__concepts": 3}, "PiT_BlendConcepts.*got 2 in first and 3 in second"),
        ({"pick__numbers": ""}, "PiT_PickConcepts.*got nothing"),
        ({"pick__numbers": "the best"}, "PiT_PickConcepts.*got 'the best'"),
        ({"pick__numbers": "0"}, "PiT_PickConcepts.*concepts from 1 to 3, got 0"),
        ({"pick__numbers": "1, 4"}, "PiT_PickConcepts.*concepts from 1 to 3, got 4"),
        ({"pick__numbers": "2-999999999999"}, "PiT_PickConcepts.*concepts from 1 to 3, got 4"),
        ({"pick__numbers": "3-1"}, "PiT_PickConcepts.*counts up, such as '1-3', got '3-1'"),
    ],
)
def test_what_cannot_be_done_is_said(lab, changes, words):
    result = lab.queue(concept_graph(**changes))
    assert result.status == "error"
    assert re.search(words, result.error), result.error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight__weight": 2.5}, "Value 2.5 bigger than max of 2"),
        ({"weight__weight": -3.0}, "Value -3.0 smaller than min of -2"),
        ({"weight__part": 0}, "Value 0 smaller than min of 1"),
        ({"blend__mode": "cubic"}, "'cubic'"),
    ],
)
def test_what_is_out_of_range_is_refused(lab, changes, words):
    result = lab.queue(concept_graph(**changes))
    assert result.status == "refused"
    assert words in result.error


def test_concepts_of_another_width_are_not_blended(inside, blend):
    with pytest.raises(ValueError, match="width 96 in first and 48 in second.*IP-Adapter"):
        blend(inside.tokens(1), inside.tokens(1, width=48), "0.5", "linear")
