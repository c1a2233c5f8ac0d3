"""How the benchmark of the demo interprets ComfyUI's messages."""

from benchmarks import demo_stages


def event(node):
    return {"type": "executing", "data": {"node": node}}


def test_a_node_works_until_the_next_one_starts(monkeypatch):
    graph = {
        "1": {"class_type": "CLIPTextEncode"}, "2": {"class_type": "KSampler"},
        "3": {"class_type": "CLIPTextEncode"}, "4": {"class_type": "EmptyLatentImage"},
    }
    clock = iter([10.0, 11.0, 14.0, 14.5, 14.75])
    monkeypatch.setattr(demo_stages.time, "perf_counter", lambda: next(clock))
    times = demo_stages.StageTimes(graph)
    progress = {"type": "progress", "data": {}}
    for message in [event("1"), event("2"), progress, event("3"), event("4"), event(None)]:
        times(message)
    assert times.seconds == {"encode prompts": 1.5, "render": 3.0, "other nodes": 0.25}


def test_other_seeds_leave_everything_else_as_it_is():
    graph = {"1": {"class_type": "KSampler", "inputs": {"seed": 3, "steps": 20}}}
    assert demo_stages.with_other_seeds(graph)["1"]["inputs"] == {"seed": 4, "steps": 20}
    assert graph["1"]["inputs"]["seed"] == 3
