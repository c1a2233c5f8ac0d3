"""Workflows read and changed: what is no workflow, unknown inputs, values of the wrong type, seeds."""

import json

import pytest

from queue_client import Problem
from queue_client.workflow import (
    fingerprint,
    graph_of,
    read_workflow,
    varied_inputs,
    with_settings,
)
from tests.queue_client.conftest import GRAPH


@pytest.mark.parametrize(("content", "message"), [
    ('{"nodes": [], "links": [], "version": 0.4}', "got one as the page saves it. .* Export [(]API[)]"),
    ("{", "as JSON"), ("[]", "nodes by their ids"), ("{}", "nodes by their ids"),
    ('{"1": {"class_type": "KSampler"}}', "nodes by their ids"), ('{"1": 5}', "nodes by their ids"),
    ("\x00\x01", "as JSON"), ("3", "nodes by their ids"),
])
def test_what_is_no_workflow_in_api_format_is_told(tmp_path, content, message):
    path = tmp_path / "workflow.json"
    path.write_text(content)
    with pytest.raises(Problem, match=message):
        read_workflow(path)


def test_a_missing_and_a_binary_file_are_told(tmp_path):
    with pytest.raises(Problem, match="cannot be read .No such file"):
        read_workflow(tmp_path / "no.json")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(Problem, match="as JSON"):
        read_workflow(tmp_path / "picture.json")


@pytest.mark.parametrize(("setting", "node", "name", "value"), [
    ("3.seed=7", "3", "seed", 7), ("KSampler.cfg=1.5", "3", "cfg", 1.5), ("3.steps=2.5", "3", "steps", 2.5),
    ("Sampler v1.5.sampler_name=a=b", "3", "sampler_name", "a=b"),
    ("3.sampler_name=7", "3", "sampler_name", "7"), ('3.positive=["1", 2]', "3", "positive", ["1", 2]),
    ("9.filename_prefix=mine", "9", "filename_prefix", "mine"),
])
def test_values_keep_the_type_of_those_before(setting, node, name, value):
    graph, places = with_settings(GRAPH, [setting])
    assert graph[node]["inputs"][name] == value and type(graph[node]["inputs"][name]) is type(value)
    assert places == [(node, name)] and GRAPH["3"]["inputs"]["seed"] == 5


def test_switches_take_true_and_false():
    graph = {"1": {"class_type": "A", "inputs": {"on": False}}}
    assert with_settings(graph, ["1.on=True"])[0]["1"]["inputs"]["on"] is True
    with pytest.raises(Problem, match="true or false for 1.on, got '1'"):
        with_settings(graph, ["1.on=1"])


@pytest.mark.parametrize(("setting", "message"), [
    ("3.sed=7", r"input of node 3 .Sampler v1.5., got 'sed'. Its inputs are: seed, cfg"),
    ("4.seed=7", "a node of the workflow, got '4.seed'. It has: 1 .PiT_LoadPartSets., 3"),
    ("seed=7", "a node of the workflow"), ("3.seed", "Expected NODE.INPUT=VALUE"), ("", "NODE.INPUT=VALUE"),
    ("3.seed=seven", "a number for 3.seed, got 'seven'"), ("3.cfg=nan", "a number for 3.cfg"),
    ("3.cfg=inf", "a number"), ("3.seed=", "a number"),
])
def test_settings_that_do_not_fit_are_told(setting, message):
    with pytest.raises(Problem, match=message):
        with_settings(GRAPH, [setting])


def test_of_two_nodes_of_one_name_the_id_is_asked_for():
    with pytest.raises(Problem, match="got the nodes 3, 4. Name one by its id"):
        with_settings(GRAPH | {"4": GRAPH["3"]}, ["KSampler.seed=1"])


def test_all_seeds_count_up_unless_they_are_set_or_others_are_named():
    graph = GRAPH | {"5": {"class_type": "Noise", "inputs": {"noise_seed": 2**64 - 1, "seed": ["3", 0]}}}
    places = varied_inputs(graph, [], [], 3)
    assert places == [("3", "seed"), ("5", "noise_seed")]
    made = graph_of(graph, places, 2, None)
    assert (made["3"]["inputs"]["seed"], made["5"]["inputs"]["noise_seed"]) == (7, 1)
    assert varied_inputs(graph, [], [("3", "seed")], 3) == [("5", "noise_seed")]
    assert varied_inputs(graph, ["KSampler.steps"], [], 3) == [("3", "steps")]


def test_without_a_seed_several_runs_would_be_the_same():
    fixed = [("3", "seed")]
    with pytest.raises(Problem, match="Expected a seed that changes from run to run, got none"):
        varied_inputs(GRAPH, [], fixed, 2)
    assert varied_inputs(GRAPH, [], fixed, 1) == []


@pytest.mark.parametrize("place", ["3.cfg", "3.positive", "3.sampler_name"])
def test_only_whole_numbers_count_up(place):
    with pytest.raises(Problem, match="Expected a whole number to count up in 3"):
        varied_inputs(GRAPH, [place], [], 1)


def test_a_set_takes_the_place_of_the_folder():
    inputs = graph_of(GRAPH, [], 0, "pit_queue/abc")["1"]["inputs"]
    assert inputs == {"folder": "pit_queue/abc", "first": 1, "most": 1}
    assert GRAPH["1"]["inputs"]["first"] == 2


def test_the_fingerprint_is_that_of_the_work():
    other, _ = with_settings(GRAPH, ["3.steps=5"])
    again = json.loads(json.dumps(GRAPH))
    assert fingerprint(GRAPH, []) == fingerprint(again, [])
    assert len({fingerprint(GRAPH, []), fingerprint(other, []), fingerprint(GRAPH, [("3", "seed")])}) == 3
