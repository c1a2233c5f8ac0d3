"""Nodes that take IP+ tokens and image embeddings alike, and those that take one and get the other."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch

from tests.comfyui.nodes.graphs import node, sample_graph
from tests.comfyui.nodes.pops import WIDTH, Pops
from tests.golden import assert_equal


@pytest.fixture(scope="module")
def pops(inside, tmp_path_factory) -> Pops:
    return Pops(inside, tmp_path_factory.mktemp("pops"))


@pytest.fixture(scope="module")
def three(pops):
    return pops.embedding(3)


def run(inside, module: str, name: str, *given, **named):
    with torch.inference_mode():
        return getattr(inside.nodes(module), name).execute(*given, **named).args


def test_embeddings_are_picked_batched_and_blended(inside, three):
    second = run(inside, "concepts", "PickConcepts", three, "2")[0]
    assert torch.equal(second.values, three.values[1:2])
    again = run(inside, "tokens", "BatchConcepts", {"tokens0": second, "tokens1": three})[0]
    assert torch.equal(again.values, torch.cat([second.values, three.values]))
    half = run(inside, "concepts", "BlendConcepts", second, three, "0, 0.5", "linear")[0]
    assert_equal(half.values[3:], (second.values + three.values) / 2)
    for made in (second, again, half):
        assert type(made) is type(three) and torch.equal(made.negative, three.negative)
        assert made.encoder == three.encoder and made.space == "raw"


def test_embeddings_are_calculated_with(inside, three):
    mean = run(inside, "tokens", "TokenArithmetic", three, {"mode": "average", "keep_length": False})[0]
    assert_equal(mean.values, three.values.mean(0, keepdim=True))
    one, two = (run(inside, "concepts", "PickConcepts", three, number)[0] for number in "12")
    mode = {"mode": "add a difference", "plus": one, "minus": two, "amount": 2.0}
    found = run(inside, "tokens", "TokenArithmetic", three, mode)[0]
    assert_equal(found.values, three.values + 2 * (one.values - two.values))


def test_embeddings_are_edited_by_a_direction_that_was_kept(inside, pops, three):
    other = pops.embedding(4, seed=9)
    direction, chart, report = run(inside, "find_direction", "DirectionBetween", three, other, "shrinkage")
    assert chart.shape[-1] == 3 and report.startswith("embedding space: ")
    run(inside, "directions", "SaveDirection", direction, "of_embeddings")
    inside.pack("nodes.bridge.folders").folder_paths.filename_list_cache.clear()
    kept = run(inside, "directions", "LoadDirection", "of_embeddings.safetensors")[0]
    edited, labels = run(inside, "directions", "DirectionEdit", three, kept, "-1, 0, 2", "recommended")
    amounts = torch.tensor([-1.0, 0, 2]) * direction.recommended
    expected = torch.cat([three.values + amount * direction.values for amount in amounts])
    assert_equal(edited.values, expected)
    assert labels.split("\n") == ["-1"] * 3 + ["0"] * 3 + ["2"] * 3
    assert torch.equal(edited.negative, three.negative)


def test_edited_embeddings_go_into_an_operator(inside, pops, three):
    direction = run(inside, "find_direction", "DirectionBetween", three, pops.embedding(4, 9), "shrinkage")[0]
    edited = run(inside, "directions", "DirectionEdit", three, direction, "1", "raw")[0]
    operator = pops.operator("scene")
    found = pops.run("Combine", operator, 0, 1, 3, 0.0, 1.0, 1.0, edited)
    plain = pops.run("Combine", operator, 0, 1, 3, 0.0, 1.0, 1.0, three)
    assert found.values.shape == plain.values.shape and (found.values - plain.values).abs().max() > 1e-4


def test_a_direction_is_found_between_tokens(inside):
    kinds = inside.tokens(4), inside.tokens(4, 1)
    direction, _, report = run(
        inside, "find_direction", "DirectionBetween", *kinds, "difference of means")
    assert report.startswith("token space: ")
    assert_equal(direction.values, kinds[1].values.mean(0) - kinds[0].values.mean(0))


def test_a_direction_of_the_other_kind_is_refused(inside, pops, three):
    of_embeddings = run(
        inside, "find_direction", "DirectionBetween", three, pops.embedding(4, 9), "shrinkage")[0]
    of_tokens = inside.concepts("directions").Direction(torch.ones(16, WIDTH), "tokens", source="a door")
    for concepts, direction, message in (
        (three, of_tokens, "a direction for image embeddings, .* got a door in tokens space"),
        (inside.tokens(2), of_embeddings, r"a direction for IP\+ tokens, .* in embedding space"),
        (replace(three, space="normalized"), of_embeddings, "raw embeddings for a direction, got normalized"),
        (replace(three, negative=-three.negative), of_embeddings, "a direction for the image encoder"),
    ):
        with pytest.raises(ValueError, match=message):
            run(inside, "directions", "DirectionEdit", concepts, direction, "1", "raw")


def test_kinds_are_not_mixed(inside, three):
    tokens = inside.tokens(1)
    for module, name, *given in (
        ("concepts", "BlendConcepts", three, tokens, "0.5", "linear"),
        ("tokens", "BatchConcepts", {"tokens0": three, "tokens1": tokens}),
        ("tokens", "TokenArithmetic", three,
         {"mode": "add a difference", "plus": tokens, "minus": tokens, "amount": 1.0}),
        ("find_direction", "DirectionBetween", three, tokens, "shrinkage"),
    ):
        with pytest.raises(ValueError, match="concepts of one kind, got image embeddings from Enc"):
            run(inside, module, name, *given)


def checked(inside, module: str, name: str, system: str = "piece_it_together"):
    """A node as ComfyUI gets it."""
    found = getattr(inside.pack(f"nodes.{system}.{module}"), name)
    return inside.pack("nodes.bridge.errors").for_people(found)


def test_the_other_kind_is_told_where_only_one_is_taken(inside, three):
    problem = inside.pack("nodes.bridge.errors").InputProblem
    tokens, nothing = inside.tokens(1), torch.zeros(1, 8, 8, 3)
    only = "Connect a node that gives"
    for where, given, message in (
        (("apply_tokens", "ApplyTokens"), {"tokens": three},
         r"Apply IP\+ Tokens expected IP\+ tokens in tokens, got image embeddings from Encode Image "
         r"Embedding. Make tokens of them with Embedding to IP\+ Tokens first"),
        (("apply_tokens", "ApplyTokens"), {"tokens": nothing}, rf"got a Tensor. {only} IP\+ tokens"),
        (("operators", "Combine", "pops"), {"first": None, "second": tokens},
         rf"pOps Combine expected image embeddings in second, got IP\+ tokens from the tokens of .*{only}"),
        (("operators", "Compose", "pops"), {"parts": {"part0": three, "part1": tokens}},
         "pOps Compose expected image embeddings in parts"),
        (("concepts", "PickConcepts"), {"tokens": nothing},
         r"Pick Concepts expected IP\+ tokens or image embeddings in tokens, got a Tensor"),
        (("tokens", "BatchConcepts"), {"concepts": {"tokens0": three, "tokens1": [1]}}, "got a list"),
        (("directions", "DirectionEdit"), {"tokens": three, "direction": tokens},
         r"IP\+ Direction Edit expected a Direction in direction, got IP\+ tokens"),
    ):
        with pytest.raises(problem, match=message):
            checked(inside, *where).execute(**given)
    mode = {"mode": "add a difference", "plus": nothing, "minus": nothing, "amount": 1.0}
    with pytest.raises(problem, match="IP. Token Arithmetic expected .* in plus, got a Tensor"):
        checked(inside, "tokens", "TokenArithmetic").execute(tokens=three, mode=mode)


SOCKETS = {"PIT_TOKENS", "PIT_EMBEDDING", "PIT_DIRECTION", "PIT_PARTS"}


def carried(socket) -> set[str]:
    """What may come through an input, or through each of those that grow out of it."""
    if hasattr(socket, "template"):
        template = socket.template
        if hasattr(template, "input"):
            return carried(template.input)
        return {kind.io_type for kind in template.allowed_types}
    return set(socket.get_io_type().split(","))


def test_every_node_declares_which_inputs_take_what_is_ours(inside):
    nodes = [node for system in inside.pack("nodes").SYSTEMS for node in system.NODES]
    found = {
        (node.__name__, socket.id)
        for node in nodes for socket in node.define_schema().inputs if carried(socket) & SOCKETS
    }
    declared = {(node.__name__, name) for node in nodes for name in getattr(node, "takes", {})}
    assert found == declared and len(found) > 20
    assert ("Compose", "parts") in found and ("PickConcepts", "tokens") in found


def test_what_fits_passes_the_check(inside, three):
    found = checked(inside, "concepts", "PickConcepts").execute(tokens=three, numbers="1").args[0]
    assert torch.equal(found.values, three.values[:1])


def test_the_checks_of_nodes_take_the_inputs_that_grow(inside):
    """ComfyUI gives these to every check; one that does not take them fails in any graph."""
    io = inside.pack("nodes.bridge.sockets").io
    nodes = [node for system in inside.pack("nodes").SYSTEMS for node in system.NODES]
    growing = io.Autogrow.Input, io.DynamicCombo.Input
    found = {
        (node.__name__, socket.id): inspect.getfullargspec(node.validate_inputs)
        for node in nodes if node.validate_inputs.__func__ is not io.ComfyNode.validate_inputs.__func__
        for socket in node.define_schema().inputs if isinstance(socket, growing)
    }
    assert ("ClothesParser", "masks") in found
    assert [key for key, spec in found.items() if key[1] not in spec.args and not spec.varkw] == []


# In a server, as a graph asks for them.


def embedding_graph(**more) -> dict:
    return {
        "tiny": node("Tiny_Models", vision_width=64),
        "picture": node("Tiny_Image", count=4, height=40, width=30, channels=3),
        "embedding": node(
            "PiT_EncodeEmbedding", clip_vision=["tiny", 3], image=["picture", 0], fit="squashed"),
        "pick": node("PiT_PickConcepts", tokens=["embedding", 0], numbers="1-2"),
        **more,
    }


def test_a_graph_edits_embeddings(lab):
    def picked(numbers: str) -> dict:
        return node("PiT_PickConcepts", tokens=["embedding", 0], numbers=numbers)

    graph = embedding_graph(
        others=picked("3-4"), one=picked("1"), two=picked("2"),
        between=node("PiT_DirectionBetween", first=["pick", 0], second=["others", 0], method="shrinkage"),
        edit=node(
            "PiT_DirectionEdit", tokens=["pick", 0], direction=["between", 0], amounts="0, 1", unit="raw",
            only_tokens="",
        ),
        batch=node("PiT_BatchConcepts", **{"concepts.tokens0": ["edit", 0], "concepts.tokens1": ["pick", 0]}),
        blend=node(
            "PiT_BlendConcepts", first=["batch", 0], second=["batch", 0], amounts="0.5", mode="linear"),
        mean=node(
            "PiT_TokenArithmetic", tokens=["blend", 0], mode="add a difference",
            **{"mode.plus": ["one", 0], "mode.minus": ["two", 0], "mode.amount": 1.0},
        ),
        save=node("PiT_SaveEmbedding", embedding=["mean", 0], name="edited"),
    )
    result = lab.queue(graph)
    assert result.status == "success", result.error
    assert result.outputs["save"]["text"] == ["written: edited.safetensors, 6 embeddings"]


def test_a_graph_that_mixes_the_kinds_is_told_so_and_the_server_lives(lab):
    into_prior = sample_graph(**embedding_graph(), sample__start=["pick", 0])
    result = lab.queue(into_prior)
    assert result.status != "success"
    assert "expected IP+ tokens in start, got image embeddings" in str(result.error), result.error
    pictures = embedding_graph(show=node("PiT_SaveEmbedding", embedding=["pick", 0], name="never"))
    pictures["pick"]["inputs"]["tokens"] = ["picture", 0]
    result = lab.queue(pictures)
    assert "expected IP+ tokens or image embeddings in tokens, got a Tensor" in str(result.error)
    unfit = embedding_graph(latent=node(
        "PiT_EmptyLatent", model=["tiny", 0], tokens=["picture", 0], images_per_concept=1, percent=100))
    unfit["show"] = node("SaveLatent", samples=["latent", 0], filename_prefix="never")
    assert "mismatch" in str(lab.queue(unfit).error)
    good = embedding_graph(show=node("PiT_SaveEmbedding", embedding=["pick", 0], name="two"))
    assert lab.queue(good).status == "success"
