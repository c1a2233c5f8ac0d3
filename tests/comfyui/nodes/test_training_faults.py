"""Training nodes when something beside the training fails, what they tell, and outputs that are gone."""
from __future__ import annotations

import os
import shutil
import time
from types import SimpleNamespace

import pytest
import torch

from tests.comfyui.nodes.graphs import training_graph
from tests.training.tiny import write_cache


@pytest.fixture
def said(inside, monkeypatch) -> list[str]:
    """What Train IP-Prior shows as text, with a moment between any two looks at the clock."""
    texts, now = [], [0.0]
    module = inside.pack("nodes.bridge.training")
    for name in ("say", "say_and_log"):
        monkeypatch.setattr(module, name, lambda node, text: texts.append(text))

    def monotonic():
        now[0] += 10.0
        return now[0]

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=monotonic))
    return texts


@pytest.fixture
def train(inside, tmp_path):
    """Runs Train IP-Prior as ComfyUI does; returns the prior and its chart."""
    tokens = write_cache(tmp_path / "tokens").folder

    def run(name, steps=24, preview=None, learning_rate=4e-4):
        with torch.inference_mode():
            return inside.nodes("train_prior").TrainPrior.execute(
                tokens, name, "recommended", steps, batch=4, learning_rate=learning_rate,
                start_from="nothing", save_every=8, seed=0, hidden_dim=32, layers=1, heads=2, preview=preview,
            ).args

    return run


def failing(*_args, **_kwargs):
    raise RuntimeError("no picture today")


def test_the_text_tells_figures_readable_rate_and_time_left(train, said):
    train("told")
    assert len(said) > 3
    assert said[-2].startswith("step 23 of 24, loss ") and ", validation " in said[-2]
    assert all(", learning rate " in text and "0000000" not in text for text in said)
    assert all(text.endswith(" left") for text in said[1:-1]) and said[-1].startswith("step 24 of 24")
    assert "left" not in said[-1]


def test_after_cancel_the_page_says_what_is_kept_and_how_to_go_on(inside, train, said, cancel_at):
    cancel_at(1)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        train("kept")
    folder = inside.base / "models" / "ip_prior" / "kept"
    [step] = (int(path.name[5:]) for path in (folder / "checkpoints").iterdir())
    assert step > 0
    assert said[-1] == (
        f"Canceled after step {step} of 24. The checkpoint of step {step} is kept in {folder}: queue the "
        "same graph again to resume from it."
    )


def test_a_resumed_training_says_where_it_resumes(inside, train, said, cancel_at):
    cancel_at(1)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        train("resumed")
    [folder] = (inside.base / "models" / "ip_prior" / "resumed" / "checkpoints").iterdir()
    said.clear()
    train("resumed")
    assert said[0] == f"Resumed from the checkpoint of step {int(folder.name[5:])}."


def test_what_is_kept_stands_in_the_log_too(inside, caplog):
    caplog.set_level("INFO")
    node = inside.nodes("train_prior").TrainPrior
    inside.pack("nodes.bridge.feedback").say_and_log(node, "kept in a folder")
    assert "kept in a folder" in caplog.messages


def test_a_cancel_before_the_first_step_says_so(inside, train, said, monkeypatch):
    management = inside.comfy("model_management")
    real = inside.nodes("train_prior").run

    def cancel_then_run(*given):
        management.interrupt_current_processing()
        return real(*given)

    monkeypatch.setattr(inside.nodes("train_prior"), "run", cancel_then_run)
    with pytest.raises(management.InterruptProcessingException):
        train("at_once")
    assert said == ["Canceled before there was a checkpoint. Queue the graph again to start anew."]
    assert not (inside.base / "models" / "ip_prior" / "at_once").exists()


def test_an_error_in_a_save_tells_what_was_saved_before(inside, train, said, monkeypatch):
    monkeypatch.setattr(inside.pack("pit.training.trainer"), "write_checkpoint", failing)
    with pytest.raises(RuntimeError, match="no picture today"):
        train("broken")
    assert said[-1].startswith("Stopped by an error before there was a checkpoint.")
    assert not any("Canceled" in text for text in said)


class Picture:
    """A preview whose pictures are drawn after some first ones."""

    check = staticmethod(lambda width: None)

    def __init__(self, then):
        self.then = then

    def draw(self, prior, device):
        return self.then()


def kept_steps(inside, name):
    folder = inside.base / "models" / "ip_prior" / name
    return folder, max(int(path.name[5:]) for path in (folder / "checkpoints").iterdir())


def test_an_error_while_a_picture_is_on_its_way_tells_what_is_kept(inside, train, said):
    """ComfyUI's own bar encodes and sends it, and may fail at that."""
    utils = inside.comfy("utils")

    def hook(value, total, preview, **_):
        if preview is not None and value >= 10:
            raise OSError("the page is gone")

    utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(OSError, match="the page is gone"):
            train("pending")
    finally:
        utils.set_progress_bar_global_hook(None)
    folder, step = kept_steps(inside, "pending")
    assert step >= 10
    assert said[-1] == (
        f"Stopped by an error after step {step} of 24. The checkpoint of step {step} is kept in {folder}: "
        "queue the same graph again to resume from it."
    )
    train("pending")
    assert said[-1].startswith("step 24 of 24")


def test_an_error_in_a_step_after_a_picture_tells_what_is_kept(inside, train, said, monkeypatch):
    trainer = inside.pack("pit.training.trainer").Trainer
    real = trainer.gradients

    def gradients(self, batches):
        if self.state.step == 13:
            raise RuntimeError("the device is gone")
        return real(self, batches)

    monkeypatch.setattr(trainer, "gradients", gradients)
    with pytest.raises(RuntimeError, match="the device is gone"):
        train("in_a_step")
    folder, step = kept_steps(inside, "in_a_step")
    assert step == 8 and said[-1].startswith("Stopped by an error after step 8 of 24.")
    assert str(folder) in said[-1]


def test_cancel_while_samples_are_drawn_tells_what_is_kept(inside, train, said):
    management = inside.comfy("model_management")

    def cancel():
        management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()

    with pytest.raises(management.InterruptProcessingException):
        train("drawing", preview=Picture(cancel))
    folder, step = kept_steps(inside, "drawing")
    assert step == 8 and said[-1].startswith("Canceled after step 8 of 24.") and str(folder) in said[-1]


@pytest.mark.parametrize("error", [RuntimeError("no picture today"), ModuleNotFoundError("no matplotlib")])
def test_charts_that_fail_are_told_once_and_end_no_training(
    inside, train, said, monkeypatch, caplog, error
):
    def fails(*_args):
        raise error

    monkeypatch.setattr(inside.pack("nodes.bridge.training"), "training_chart", fails)
    prior, chart = train(f"no_charts_{type(error).__name__}")
    assert prior.patcher is not None
    assert chart.shape[0] == 1 and chart.min() < 0.5 and chart.max() == 1  # words on white
    told = [record.message for record in caplog.records if "goes on without charts" in record.message]
    assert len(told) == 1 and str(error) in told[0]


def test_samples_that_fail_are_told_once_and_end_no_training(inside, train, said, caplog):
    class Preview:
        check = staticmethod(lambda width: None)
        draw = staticmethod(failing)

    _, chart = train("no_samples", preview=Preview())
    assert chart.shape[2] >= 480
    told = [record.message for record in caplog.records if "goes on without samples" in record.message]
    assert len(told) == 2  # in the training, and of the finished prior


# Outputs that are gone ------------------------------------------------------------------------------------


def executed(lab, graph):
    result = lab.queue(graph)
    assert result.status == "success", result.error
    return {event["data"]["node"] for event in result.events if event["type"] == "executing"} - {None}


def test_nodes_run_again_for_outputs_that_are_gone_or_replaced(lab):
    names = dict.fromkeys(("dataset__name", "tokens__name", "train__name"), "gone")
    graph = training_graph(**names)
    assert {"dataset", "tokens", "train"} <= executed(lab, graph)
    assert executed(lab, graph) == set()
    caches, prior = lab.base / "output" / "ip_prior_tokens", lab.base / "models" / "ip_prior" / "gone"
    shutil.rmtree(caches / "gone")
    assert "tokens" in executed(lab, graph)
    assert (caches / "gone" / "manifest.json").is_file() and executed(lab, graph) == set()
    next((lab.base / "output" / "ip_prior_datasets" / "gone" / "target").iterdir()).unlink()
    assert "dataset" in executed(lab, graph) and executed(lab, graph) == set()
    (prior / "prior.safetensors").unlink()
    again = executed(lab, graph)
    assert "train" in again and "tokens" not in again and (prior / "prior.safetensors").is_file()
    shutil.rmtree(prior / "checkpoints")  # to save room: no reason to train anew
    assert executed(lab, graph) == set()


def test_the_fingerprint_changes_once_for_each_change(inside, tmp_path):
    outputs = inside.pack("nodes.bridge.outputs").Outputs()
    folder = tmp_path / "made"
    assert outputs.fingerprint(folder) == 0  # before the first run
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    outputs.keep(folder)
    assert outputs.fingerprint(folder) == 0
    (folder / ".lock").write_bytes(b"")
    assert outputs.fingerprint(folder) == 0
    (folder / "b").write_bytes(b"2")
    assert outputs.fingerprint(folder) == outputs.fingerprint(folder) == 1
    outputs.keep(folder)
    shutil.rmtree(folder)
    assert outputs.fingerprint(folder) == 2


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_noticed(inside, tmp_path):
    stamp = inside.pack("nodes.bridge.folders").file_stamp
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"1")
    before, status = stamp(path), path.stat()
    time.sleep(0.02)  # the clock of a file system is coarse
    other.write_bytes(b"2")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(other, path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns and stamp(path) != before
    assert stamp(tmp_path) is None and stamp(tmp_path / "none") is None
