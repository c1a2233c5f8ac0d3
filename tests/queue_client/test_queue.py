"""The command with servers that share its work, are lost, fail, and come back: no prompt lost or twice."""

import json
import threading
from collections import Counter

import pytest

from queue_client import command
from queue_client.journal import Journal
from queue_client.workflow import fingerprint, graph_of
from tests.queue_client.conftest import GRAPH


def seeds(results) -> list[int]:
    return sorted(graph["3"]["inputs"]["seed"] for graph in results().values())


def test_each_set_runs_so_often_and_its_results_carry_its_name(queue, servers, parts, results, capsys):
    (server,) = servers(1)
    assert queue([server], "--parts", parts, "--count", 2) == 0
    found = results()
    assert list(found) == [
        "ember_0001_9_01.png", "ember_0002_9_01.png", "storm_0001_9_01.png", "storm_0002_9_01.png",
    ]
    assert [graph["3"]["inputs"]["seed"] for graph in found.values()] == [5, 6, 5, 6]
    folders = [graph["1"]["inputs"]["folder"] for graph in found.values()]
    assert folders[0] == folders[1] != folders[2] == folders[3]
    assert server.uploads == {
        f"{folders[0]}/ember/1.png": b"ember/1.png", f"{folders[0]}/ember/2.png": b"ember/2.png",
        f"{folders[2]}/storm/1.png": b"storm/1.png",
    }
    assert "4 of 4 done" in capsys.readouterr().out


def test_settings_reach_the_servers(queue, servers, results):
    assert queue(servers(1), "--set", "KSampler.cfg=3", "--vary", "3.steps", "--count", 2) == 0
    inputs = [graph["3"]["inputs"] for graph in results().values()]
    assert [(each["seed"], each["cfg"], each["steps"]) for each in inputs] == [(5, 3, 4), (5, 3, 5)]


def test_several_servers_share_the_work(queue, servers, results):
    three = servers(3)
    assert queue(three, "--count", 30) == 0
    assert seeds(results) == list(range(5, 35))
    assert sum(len(server.got) for server in three) == 30 and all(server.got for server in three)


def test_a_server_that_dies_leaves_its_work_to_the_others(queue, servers, results, capsys):
    three = servers(3)
    dying = three[1]
    # From a thread of its own, since it must not wait for the request that it answers.
    dying.on_prompt = lambda: len(dying.got) == 4 and threading.Thread(target=dying.stop).start()
    assert queue(three, "--count", 60) == 0
    assert seeds(results) == list(range(5, 65))
    said = capsys.readouterr()
    assert f"{dying.name} is lost" in said.err and f"{dying.name}: lost" in said.out


def test_a_server_that_is_down_from_the_beginning_is_named_and_the_others_work(
    queue, servers, results, capsys
):
    down, up = servers(2)
    down.stop()
    assert queue([down, up], "--count", 5) == 0
    assert len(results()) == 5
    assert f"{down.name} cannot be reached" in capsys.readouterr().err


def test_with_all_servers_lost_it_ends_and_resumes(queue, servers, results, capsys):
    first, second = servers(2)
    first.on_prompt = lambda: len(first.got) == 4 and threading.Thread(target=first.stop).start()
    assert queue([first], "--count", 20) == 1
    said = capsys.readouterr()
    assert "are left to do: the same command resumes from here" in said.out
    before = len(results())
    assert before < 20
    assert queue([second], "--count", 20) == 0
    assert seeds(results) == list(range(5, 25)) and len(second.got) == 20 - before


def test_what_is_no_comfyui_is_named(queue, servers, capsys):
    (server,) = servers(1)
    server.answer = lambda path, body: (200, b"<html>")
    assert queue([server]) == 1
    assert "it answers, but not as a ComfyUI" in capsys.readouterr().err


def test_a_prompt_that_fails_is_tried_on_another_server_and_then_noted(queue, servers, results, capsys):
    three = servers(3)
    for server in three:
        server.fails = lambda graph: "no memory" if graph["3"]["inputs"]["seed"] == 7 else None
    assert queue(three, "--count", 10) == 1
    assert seeds(results) == [seed for seed in range(5, 15) if seed != 7]
    tried = Counter(graph["3"]["inputs"]["seed"] for server in three for graph in server.got.values())
    assert tried == Counter({seed: 1 for seed in range(5, 15)} | {7: 2})
    assert "failed: small 3: node 3 (KSampler): no memory" in capsys.readouterr().out


def test_what_has_failed_is_tried_again_only_if_asked_for(queue, servers, results):
    (server,) = servers(1)
    server.fails = lambda graph: "no memory"
    assert queue([server], "--count", 2) == 1
    server.fails = lambda graph: None
    assert queue([server], "--count", 2) == 1
    assert len(server.got) == 2 and results() == {}
    assert queue([server], "--count", 2, "--again") == 0
    assert len(server.got) == 4 and len(results()) == 2


def test_a_server_that_lacks_something_leaves_it_to_the_others(queue, servers, results, capsys):
    poor, rich = servers(2)
    poor.refuses = lambda graph: "no such model"
    assert queue([poor, rich], "--count", 8) == 0
    assert len(results()) == 8 and len(rich.got) == 8
    assert "no such model; another server may try" in capsys.readouterr().err


def test_a_failed_prompt_whose_other_server_is_lost_does_not_wait_forever(queue, servers):
    down, up = servers(2)
    down.stop()
    up.fails = lambda graph: "no memory"
    assert queue([down, up], "--count", 3) == 1
    assert len(up.got) == 3


def test_half_a_graph_is_refused(queue, servers, results, capsys):
    (server,) = servers(1)
    answer = server.answer

    def half(path, body):
        status, content = answer(path, body)
        if path == "/prompt":
            problem = {"message": "Value not in list", "details": "vae_name"}
            content["node_errors"] = {"4": {"class_type": "VAELoader", "errors": [problem]}}
        return status, content

    server.answer = half
    assert queue([server]) == 1
    assert "node 4 (VAELoader): Value not in list: vae_name" in capsys.readouterr().out
    assert server.queued == [] and results() == {}


def test_the_journal_of_another_workflow_is_refused(queue, servers, capsys):
    assert queue(servers(1)) == 0
    assert queue(servers(1), "--set", "3.cfg=9") == 1
    assert "Expected the journal of this workflow and these settings in" in capsys.readouterr().err


def test_a_journal_that_another_client_has_open_is_refused(queue, servers, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    open_one = Journal(tmp_path / "results" / "journal.sqlite", fingerprint(GRAPH, [("3", "seed")]))
    assert queue(servers(1)) == 1
    assert "a journal that no other client has open" in capsys.readouterr().err
    open_one.close()
    assert queue(servers(1)) == 0


def test_what_is_no_journal_is_refused(queue, servers, tmp_path, capsys):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "journal.sqlite").write_bytes(b"no database" * 200)
    assert queue(servers(1)) == 1
    assert "Expected a journal in" in capsys.readouterr().err


def test_ctrl_c_cancels_what_is_queued_and_the_same_command_resumes(
    queue, servers, results, monkeypatch, capsys
):
    two = servers(2)
    for server in two:
        server.paused = True

    def press(progress, journal):
        if all(len(server.queued) == 2 for server in two):
            raise KeyboardInterrupt

    monkeypatch.setattr(command.Progress, "draw", press)
    assert queue(two, "--count", 10) == 130
    said = capsys.readouterr()
    assert "canceling what is queued" in said.err and "10 are left to do" in said.out
    assert all(server.queued == [] and len(server.interrupted) == 1 for server in two)
    monkeypatch.undo()
    for server in two:
        server.paused = False
    assert queue(two, "--count", 10) == 0
    assert seeds(results) == list(range(5, 15))


def sent_and_left(tmp_path, server, count: int):
    """As after a kill: prompts that a server has got, noted in the journal, and nobody who waits for them."""
    (tmp_path / "results").mkdir()
    varied = [("3", "seed")]
    journal = Journal(tmp_path / "results" / "journal.sqlite", fingerprint(GRAPH, varied))
    journal.plan([""], count)
    for _ in range(count):
        prompt = journal.take(server.name)
        graph = graph_of(GRAPH, varied, prompt.run, None)
        server.change("/prompt", {"prompt": graph, "prompt_id": prompt.prompt_id})
    journal.close()


def test_after_a_kill_what_is_queued_and_done_is_collected_and_not_run_again(
    queue, servers, results, tmp_path
):
    (server,) = servers(1)
    sent_and_left(tmp_path, server, 2)
    server.end_one()
    assert queue([server], "--count", 2) == 0
    assert len(server.got) == 2 and seeds(results) == [5, 6]


def test_after_a_kill_what_a_server_has_lost_or_is_not_asked_for_is_run_again(
    queue, servers, results, tmp_path
):
    first, second = servers(2)
    sent_and_left(tmp_path, first, 3)
    first.queued.pop()
    assert queue([second], "--count", 3) == 0
    assert len(second.got) == 3 and seeds(results) == [5, 6, 7]


def test_a_server_that_was_started_anew_gets_its_prompts_again(queue, servers, results):
    (server,) = servers(1)
    server.on_prompt = lambda: len(server.got) == 2 and (server.queued.clear(), server.history.clear())
    assert queue([server], "--count", 6) == 0
    assert seeds(results) == list(range(5, 11))


def test_what_a_server_still_has_when_it_comes_back_is_canceled(queue, servers, results, monkeypatch):
    slow, other = servers(2)
    slow.paused = other.paused = True
    given_up = []

    def silence(progress, journal):
        """As soon as both have work, one does not answer any more, and the other goes on."""
        if not given_up and len(slow.queued) == len(other.queued) == 2:
            given_up.extend(slow.queued)
            slow.silent, other.paused = True, False

    def wake():
        """Before the other has done everything."""
        if len(other.got) == 6:
            slow.silent, other.paused = False, True

    def release():
        if len(slow.got) > 2:  # what it has got after it came back
            slow.paused = other.paused = False

    monkeypatch.setattr(command.Progress, "draw", silence)
    other.on_prompt, slow.on_prompt = wake, release
    assert queue([slow, other], "--count", 8) == 0
    assert seeds(results) == list(range(5, 13))
    assert given_up and not set(given_up) & slow.history.keys() and slow.queued == []


def test_no_name_that_a_server_gives_leads_out_of_the_results(queue, servers, tmp_path):
    (server,) = servers(1)
    for number, name in enumerate(("../../evil.png", "a.png/../../../x", "b.", "/etc/c.s h", "d.webm")):
        server.filename = name
        assert queue([server], "--count", number + 1) == 0
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*_9_01*"))
    assert found == [f"results/small_000{number}_9_01.{ending}" for number, ending in
                     enumerate(("png", "bin", "bin", "bin", "webm"), 1)]


def test_a_place_that_cannot_be_written_ends_everything(queue, servers, tmp_path, capsys):
    (server,) = servers(1)
    (tmp_path / "results" / "small_0001_9_01.png").mkdir(parents=True)
    assert queue([server], "--count", 3) == 1
    said = capsys.readouterr()
    assert "error: " in said.err and "small_0001_9_01.png" in said.err
    assert "resumes from here" in said.out and server.queued == []


def test_a_set_that_is_gone_before_its_turn_is_told(queue, servers, parts, capsys):
    (server,) = servers(1)
    server.stop()
    assert queue([server], "--parts", parts) == 1
    (parts / "storm" / "1.png").unlink()
    assert queue(servers(1), "--parts", parts) == 1
    assert "but these are gone: storm" in capsys.readouterr().err


def test_sets_and_runs_are_added_to_what_is_done(queue, servers, parts, results):
    (server,) = servers(1)
    assert queue([server], "--parts", parts) == 0
    (parts / "tide").mkdir()
    (parts / "tide" / 'a"b.png').write_bytes(b"tide")
    assert queue([server], "--parts", parts, "--count", 2) == 0
    assert len(server.got) == len(results()) == 6
    assert [name for name in server.uploads if name.endswith("/tide/a_b.png")]


@pytest.mark.parametrize(("arguments", "message"), [
    (("--count", 0), "--count and --ahead of at least 1"), (("--ahead", 0), "--ahead of at least 1"),
    (("--server", "nowhere"), "a server as HOST:PORT"), (("--server", "http://a:1"), "a server as HOST:PORT"),
    (("--server", "a:99999"), "a server as HOST:PORT"), (("--set", "3.sed=1"), "an input of node 3"),
    (("--vary", "3.sampler_name"), "a whole number to count up"),
    (("--parts", "no"), "a folder of part sets"),
])
def test_arguments_that_do_not_fit_are_one_sentence(queue, servers, capsys, tmp_path, arguments, message):
    assert queue(servers(1), *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Expected") and message in error
    assert not (tmp_path / "results" / "journal.sqlite").exists()


def test_parts_need_the_node_that_reads_them(queue, servers, parts, tmp_path, capsys):
    file = tmp_path / "other.json"
    file.write_text(json.dumps({"3": GRAPH["3"]}))
    assert queue(servers(1), "--parts", parts, file=file) == 1
    assert "Expected a node Load Part Sets" in capsys.readouterr().err


def test_a_workflow_as_the_page_saves_it_is_told(queue, servers, tmp_path, capsys):
    file = tmp_path / "page.json"
    file.write_text(json.dumps({"nodes": [], "links": []}))
    assert queue(servers(1), file=file) == 1
    assert "got one as the page saves it" in capsys.readouterr().err
