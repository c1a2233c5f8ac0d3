"""Encode Dataset and Train IP-Prior in a real ComfyUI: from drawn creatures to a prior, and Cancel."""

import pytest
import torch
from PIL import Image

from tests.comfyui.nodes.graphs import preview_graph, render_graph, training_graph
from tests.training.tiny import WIDTH, write_cache

CLOSE = 1e-3


def run(lab, graph, **options):
    result = lab.queue(graph, **options)
    assert result.status == "success", result.error
    return result


def executed(result):
    return {event["data"]["node"] for event in result.events if event["type"] == "executing"}


def progress_of(result, node):
    return [
        event["data"]["value"] for event in result.events
        if event["type"] == "progress" and event["data"]["node"] == node
    ]


# In a running server -------------------------------------------------------------------------------------


def named(name, **changes):
    """Dataset, cache and prior of a test's own."""
    names = dict.fromkeys(("dataset__name", "tokens__name", "train__name"), name)
    return training_graph(**names | changes)


def test_creatures_become_a_prior_that_completes_parts(lab):
    result = run(lab, named("first"))
    assert "12 concepts encoded, 0 were there already" in result.outputs["tokens"]["text"][0]
    assert progress_of(result, "train")[-1] == 30
    [chart] = result.outputs["train"]["images"]
    assert lab.view(chart).startswith(b"\x89PNG")
    folder = lab.base / "models" / "ip_prior" / "first"
    assert {path.name for path in folder.iterdir()} >= {"prior.safetensors", "run.json", "metrics.csv"}
    options = lab.object_info()["PiT_LoadIPPrior"]["input"]["required"]["file"][1]["options"]
    assert [name for name in options if name.startswith("first/")] == ["first/prior.safetensors"]


def test_the_same_graph_again_runs_nothing(lab):
    before = run(lab, named("again"))
    again = run(lab, named("again"))
    assert executed(again) == {None}
    assert again.outputs["train"] == before.outputs["train"]


def test_what_is_there_is_not_done_again_and_more_steps_go_on_from_the_end(lab):
    run(lab, named("finished"))
    # Other nodes to ComfyUI, but the same dataset, cache and run.
    again = run(lab, named("finished", dataset__count=11, train__save_every=11))
    assert {"dataset", "tokens", "train"} < executed(again)
    assert "0 concepts encoded, 12 were there already" in again.outputs["tokens"]["text"][0]
    assert progress_of(again, "train") == []
    more = run(lab, named("finished", train__steps=40))
    assert progress_of(more, "train")[0] == 31


def test_new_pictures_are_added_to_the_cache(lab):
    run(lab, named("growing"))
    more = named("growing", dataset__count=14, train__name="grown")
    assert "2 concepts encoded, 12 were there already" in run(lab, more).outputs["tokens"]["text"][0]


def test_cancel_keeps_a_checkpoint_from_which_the_same_graph_goes_on(lab):
    graph = named("cancelled", train__steps=400, train__hidden_dim=256, train__layers=4)

    def cancel(event):
        if event["type"] == "progress" and event["data"]["node"] == "train":
            lab.interrupt()

    assert lab.queue(graph, cancel).status == "interrupted"
    kept = max((lab.base / "models" / "ip_prior" / "cancelled" / "checkpoints").glob("step_*"))
    step = int(kept.name.removeprefix("step_"))
    assert 0 < step < 400
    run(lab, render_graph(sample__seed=step))
    graph["train"]["inputs"]["steps"] = step + 5
    assert progress_of(run(lab, graph), "train")[0] == step + 1


def test_the_graph_is_usable_after_samples_were_drawn(lab):
    result = run(lab, preview_graph())
    assert progress_of(result, "train")[-1] == 30
    run(lab, render_graph(sample__seed=6))


# In this process, step by step ---------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path):
    return write_cache(tmp_path / "tokens").folder


@pytest.fixture
def train(inside, tokens):
    """Runs Train IP-Prior as ComfyUI does, in inference mode; returns its outputs."""
    def run(name, steps=24, preset="recommended", start_from="nothing", cache=tokens, preview=None):
        with torch.inference_mode():
            try:
                return inside.nodes("train_prior").TrainPrior.execute(
                    cache, name, preset, steps, batch=4, learning_rate=0.0, start_from=start_from,
                    save_every=8, seed=0, hidden_dim=32, layers=1, heads=2, preview=preview,
                ).args
            finally:
                assert torch.is_inference_mode_enabled()

    return run


def weights(prior):
    return {key: value.clone() for key, value in prior.patcher.model.state_dict().items()}


def assert_equal_weights(a, b):
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


def checkpoints(inside, name):
    folder = inside.base / "models" / "ip_prior" / name / "checkpoints"
    return sorted(path.name for path in folder.iterdir())


def test_cancel_stops_at_the_next_step_and_going_on_is_as_never_having_stopped(inside, train, cancel_at):
    cancel_at(1)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        train("stopped")
    assert checkpoints(inside, "stopped") == ["step_00000001"]
    seen = cancel_at(None)
    stopped, _ = train("stopped")
    assert seen[1][0] == 2
    whole, _ = train("whole")
    assert_equal_weights(weights(stopped), weights(whole))
    assert weights(whole)["final_layer.linear.weight"].abs().max() > 0  # begins as zero


def test_the_chart_and_the_samples_are_pictures_that_comfyui_can_send(inside, shipped, train, cancel_at):
    """ComfyUI encodes them as JPEG in its main thread, which another mode would end."""
    seen = cancel_at(None)
    cache, preview = creature_tokens(inside, shipped), training_preview(inside, shipped)
    prior, chart = train("sampled", steps=16, cache=cache, preview=preview)
    kinds = [(kind, picture.mode, size) for _, _, shown in seen if shown for kind, picture, size in [shown]]
    assert kinds and set(kinds) == {("JPEG", "RGB", None)}
    first = next(shown[1] for value, _, shown in seen if value == 8 and shown)
    assert chart.shape[1:] == (first.height, first.width, 3)
    assert first.height > 480  # the samples are below the curves
    assert first.tobytes() != to_picture(inside, chart).tobytes()


def test_every_chart_but_the_last_tells_the_time_that_is_left(inside, train, monkeypatch):
    told = []

    def chart(points, samples, seconds_left):
        told.append(seconds_left)
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr(inside.pack("nodes.bridge.training"), "training_chart", chart)
    train("timed")
    *during, last = told
    assert during and min(during) > 0 and last is None


def test_lora_changes_a_trained_prior(inside, train):
    before, _ = train("base")
    after, _ = train("base_lora", preset="LoRA, few pictures", start_from="base/prior.safetensors")
    before, after = weights(before), weights(after)
    moved = {key.split(".")[-2] for key in before if not torch.equal(before[key], after[key])}
    assert moved and moved <= {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}


@pytest.mark.parametrize("preset", ["published", "8 GB card"])
def test_the_other_presets_train(train, preset):
    prior, _ = train(preset.replace(" ", "_"), steps=2, preset=preset)
    assert weights(prior)["final_layer.linear.weight"].abs().max() > 0


# Encode Dataset -------------------------------------------------------------------------------------------


def creatures(inside, count=30):
    with torch.inference_mode():
        node = inside.pack("nodes.creatures.datasets").CreatureDataset
        return node.execute(count, 0.3, 0, "creatures").args[0]


def encode(inside, shipped, dataset, name):
    """The folder of the cache, and the report."""
    with torch.inference_mode():
        return inside.nodes("train_prior").EncodeDataset.execute(
            shipped[3], shipped[4], dataset, name, 2, 0.0, 0, 0).args


def creature_tokens(inside, shipped):
    return encode(inside, shipped, creatures(inside), "creatures")[0]


def training_preview(inside, shipped):
    model, clip, vae, clip_vision, ip_adapter = shipped[:5]
    with torch.inference_mode():
        parts = inside.nodes("parts").EncodeParts.execute(
            clip_vision, ip_adapter, {"part0": torch.rand(1, 8, 8, 3)}, "centred", 0, 0.0, False, 3).args[0]
        words = clip.encode_from_tokens_scheduled(clip.tokenize("a creature"))
        return inside.nodes("training_preview").MakeTrainingPreview.execute(
            {"samples": torch.zeros(2, 4, 32, 32), "downscale_ratio_spacial": 8},  # as ComfyUI says it
            model=model, vae=vae, ip_adapter=ip_adapter, positive=words, negative=words, parts=parts, seed=0,
            steps=2, cfg=2.0, guidance=2.0).args[0]


def to_picture(inside, image):
    return inside.pack("pit.images").to_pil(image)[0]


def test_the_command_line_makes_the_same_cache(inside, shipped, tmp_path):
    from pit.demo.models.renderer import creature_encoder
    from pit.piece_it_together.training.cache import open_cache
    from pit.piece_it_together.training.dataset import read_dataset
    from pit.piece_it_together.training.encode import encode_dataset

    dataset = creatures(inside)
    folder, _ = encode(inside, shipped, dataset, "compared")
    report = encode_dataset(read_dataset(dataset.folder), tmp_path / "cache", creature_encoder(), variants=2)
    found, expected = open_cache(folder, verify=True), open_cache(tmp_path / "cache")
    assert found.names == expected.names and report.added == len(found) == 30
    rows = torch.arange(sum(len(shard) for shard in expected.shards))
    pairs = [(found.rows(rows).float(), expected.rows(rows).float()), (found.empty, expected.empty),
             (found.uncond, expected.uncond)]
    for a, b in pairs:
        assert (a - b).abs().max() < CLOSE * b.abs().max()
    again = encode_dataset(read_dataset(dataset.folder), folder, creature_encoder(), variants=2)
    assert (again.added, again.kept) == (0, 30)


def test_cancel_while_encoding_keeps_what_is_complete(inside, shipped, cancel_at):
    from pit.piece_it_together.training.cache import open_cache

    dataset = creatures(inside)
    cancel_at(2)
    with pytest.raises(inside.comfy("model_management").InterruptProcessingException):
        encode(inside, shipped, dataset, "cancelled")
    folder = inside.base / "output" / "ip_prior_tokens" / "cancelled"
    kept = len(open_cache(folder, verify=True))
    assert 0 < kept < 30
    cancel_at(None)
    _, report = encode(inside, shipped, dataset, "cancelled")
    assert f"{30 - kept} concepts encoded, {kept} were there already" in report
    assert len(open_cache(folder, verify=True)) == 30


# What is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train__seed": 1}, "seed was 0 and is now 1"),
        ({"train__heads": 1}, "num_heads was 2 and is now 1"),
        ({"train__hidden_dim": 48}, "hidden_dim was 32 and is now 48"),
        ({"train__preset": "published"}, "schedule was 'cosine' and is now 'constant'"),
        ({"tokens__name": "two_kinds_more", "tokens__seed": 1}, "dataset was "),
    ],
)
def test_other_settings_under_the_same_name_are_refused(lab, changes, words):
    run(lab, named("two_kinds"))
    result = lab.queue(named("two_kinds", **changes))
    assert result.status == "error" and words in result.error, result.error
    assert "Give this run another name" in result.error


def test_a_cache_of_another_width_is_refused_under_the_same_name(inside, shipped, train):
    train("narrow", steps=2)
    with pytest.raises(ValueError, match=f"embedding_dim was {WIDTH} and is now 64. Give this run another"):
        train("narrow", steps=2, cache=creature_tokens(inside, shipped))


def test_a_start_of_another_width_is_refused_with_both_widths(lab):
    result = lab.queue(named("wide", train__start_from="characters/prior.ckpt"))
    assert "tokens of width 64" in result.error and "got one for width 96" in result.error


def test_a_cache_of_other_models_is_refused(lab):
    run(lab, named("mine"))
    tiny = {"class_type": "Tiny_Models", "inputs": {"vision_width": 64}}
    other = {"class_type": "PiT_LoadIPAdapter", "inputs": {"file": "tiny.safetensors"}}
    graph = named(
        "mine", tiny=tiny, other=other, tokens__clip_vision=["tiny", 3], tokens__ip_adapter=["other", 0])
    assert "was encoded by another encoder" in lab.queue(graph).error


def test_a_preview_of_other_tokens_is_refused_before_a_step_is_done(inside, shipped, train):
    with pytest.raises(ValueError, match=f"expected parts of width {WIDTH}, .* got width 64 from"):
        train("mixed", preview=training_preview(inside, shipped))
    assert not (inside.base / "models" / "ip_prior" / "mixed" / "checkpoints").exists()


def test_a_start_that_is_not_listed_is_refused(lab):
    for name in ("none.safetensors", "../ipadapter/tiny.safetensors", str(lab.base / "x.ckpt"), "a\0b"):
        result = lab.queue(named("hostile", train__start_from=name))
        assert "Train IP-Prior expected start_from to be 'nothing' or a file" in result.error, result.error
        assert "train" not in result.outputs  # only the dataset is made


def test_lora_from_nothing_is_refused(train):
    with pytest.raises(ValueError, match="Choose a prior to start from"):
        train("lora_of_nothing", preset="LoRA, few pictures")


def test_the_folder_of_a_published_prior_is_left_alone(lab):
    result = lab.queue(named("plain", train__name="characters"))
    assert "expected no cfg.yaml without its run, got one" in result.error
    run(lab, render_graph(sample__seed=5))


def test_heads_that_do_not_divide_the_width_are_refused(lab):
    result = lab.queue(named("odd", train__heads=3))
    assert result.status == "error" and "32" in result.error and "3" in result.error, result.error
