"""The nodes in a running ComfyUI, as a graph asks for them."""

from safetensors.torch import load_file

from tests.comfyui.nodes.graphs import encode_graph, node, render_graph, sample_graph
from tests.comfyui.nodes.published import write_ip_adapter, write_prior
from tests.waiting import wait_until


def run(lab, graph, **options):
    result = lab.queue(graph, **options)
    assert result.status == "success", result.error
    return result


def latents(lab, result):
    """What SaveLatent wrote."""
    files = [lab.base / "output" / file["filename"] for file in result.outputs["save"]["latents"]]
    return load_file(files[0])["latent_tensor"]


def executed(result):
    return {event["data"]["node"] for event in result.events if event["type"] == "executing"}


def test_parts_become_latents_of_as_many_concepts(lab):
    result = run(lab, render_graph())
    assert latents(lab, result).shape == (3, 4, 8, 8)
    assert result.outputs["loaded"]["text"][0].split()[:2] == ["SDXL", "ImageCrossAttention"]
    without = run(lab, render_graph(sampler__model=["tiny", 0]))
    assert not latents(lab, without).equal(latents(lab, result))


def test_the_same_graph_again_runs_nothing_and_still_shows_the_parts(lab):
    shown = run(lab, sample_graph()).outputs["parts"]
    again = run(lab, sample_graph())
    assert executed(again) == {None}
    assert again.outputs["parts"] == shown


def test_encode_parts_shows_every_slot(lab):
    result = run(lab, encode_graph(parts__seed=3, parts__min_slots=4))
    shown = result.outputs["parts"]["images"]
    assert len(shown) == 4
    assert all(lab.view(image).startswith(b"\x89PNG") for image in shown)


def test_parts_keep_the_order_of_their_sockets(lab):
    """Whatever order the graph names them in."""
    tall = node("Tiny_Image", count=1, height=300, width=100, channels=4)
    graph = encode_graph(parts__placement="centred", parts__seed=11, parts__parts__part1=["tall", 0])
    graph["tall"] = tall
    forward = run(lab, graph).outputs["parts"]["images"]
    inputs = graph["parts"]["inputs"]
    inputs["parts.part0"] = inputs.pop("parts.part0")
    inputs["seed"] = 12
    backward = run(lab, graph).outputs["parts"]["images"]
    assert len(forward) == 3
    assert [lab.view(image) for image in forward] == [lab.view(image) for image in backward]


def test_one_picture_is_cut_out_and_encoded(lab):
    graph = encode_graph(
        picture=node("Tiny_Image", count=1, height=40, width=30, channels=3),
        cut=node("PiT_CutOutPart", image=["picture", 0], mask=["picture", 1]),
        parts__parts__part0=["cut", 0],
    )
    run(lab, graph)


def test_a_picture_becomes_tokens_that_start_the_prior(lab):
    encode = node("PiT_EncodeImage", clip_vision=["tiny", 3], ip_adapter=["adapter", 0], image=["picture", 0])
    run(lab, sample_graph(start=encode, sample__start=["start", 0], sample__concepts=2))


def test_a_changed_file_is_read_again(lab):
    folder = lab.base / "models" / "ip_prior" / "changing"
    write_prior(folder / "prior.ckpt")
    graph = sample_graph(prior__file="changing/prior.ckpt")
    run(lab, graph)
    assert "prior" not in executed(run(lab, graph))
    config = folder / "cfg.yaml"
    config.write_text(config.read_text() + "img_size: 1024\n")
    assert "prior" in executed(run(lab, graph))
    write_prior(folder / "prior.ckpt", layers=1)
    assert "prior" in executed(run(lab, graph))


def test_progress_is_shown_step_by_step(lab):
    result = run(lab, sample_graph(sample__seed=77, sample__steps=8))
    steps = [
        event["data"]["value"] for event in result.events
        if event["type"] == "progress" and event["data"]["node"] == "sample"
    ]
    assert steps[-1] == 8
    assert steps == sorted(steps)


def test_cancel_ends_the_prior_and_the_next_graph_runs(lab):
    write_prior(lab.base / "models" / "ip_prior" / "slow" / "prior.ckpt", hidden_dim=512, layers=4)
    cancelled = []

    def cancel(event):
        if event["type"] == "progress" and event["data"]["node"] == "sample" and not cancelled:
            cancelled.append(event["data"]["value"])
            lab.interrupt()

    result = lab.queue(sample_graph(prior__file="slow/prior.ckpt", sample__steps=1000), cancel)
    assert result.status == "interrupted"
    assert cancelled[0] < 1000
    run(lab, sample_graph(sample__seed=4))


def test_freeing_unloads_everything_and_the_next_graph_runs(lab):
    run(lab, render_graph())
    lab.free()
    loaded = {"after": node("EmptyLatentImage", width=64, height=64, batch_size=1)}
    loaded["loaded"] = node("Tiny_Loaded", after=["after", 0])

    def nothing_is_loaded():
        loaded["after"]["inputs"]["width"] += 8  # or it would not run again
        return run(lab, loaded).outputs["loaded"]["text"] == [""]

    wait_until(nothing_is_loaded)
    run(lab, render_graph())


def test_files_of_subfolders_are_offered_and_other_files_are_not(lab):
    write_ip_adapter(lab.base / "models" / "ipadapter" / "more" / "other.safetensors")
    (lab.base / "models" / "ipadapter" / "notes.txt").write_text("no weights")
    options = lab.object_info()["PiT_LoadIPAdapter"]["input"]["required"]["file"][1]["options"]
    assert {"tiny.safetensors", "more/other.safetensors"} <= set(options)
    assert "notes.txt" not in options
