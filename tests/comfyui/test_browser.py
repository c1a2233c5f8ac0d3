"""The pack in the hands of a user: in the real page, in a real browser."""

import io

from PIL import Image

from dev import ROOT
from dev.browser import PAGE_IS_READY
from tests.comfyui.pages import (
    WATCH,
    build,
    images_of,
    leave_and_come_back,
    press_run,
    select,
    set_value,
    wait_for,
    wait_for_picture,
)

DOCS = ROOT / "web" / "docs"
NODES = {
    "models": "PiT_LoadCreatureModels",
    "parts": "PiT_CreatureParts",
    "encode": "PiT_EncodeParts",
    "sample": "PiT_SamplePrior",
    "apply": "PiT_ApplyTokens",
    "positive": "CLIPTextEncode",
    "negative": "CLIPTextEncode",
    "latent": "EmptyLatentImage",
    "sampler": "KSampler",
    "decode": "VAEDecode",
    "save": "SaveImage",
}
LINKS = [
    ("models", "CLIP_VISION", "encode", "clip_vision"),
    ("models", "ip_adapter", "encode", "ip_adapter"),
    ("parts", "parts", "encode", "parts.part0"),
    ("models", "prior", "sample", "prior"),
    ("encode", "parts", "sample", "parts"),
    ("models", "MODEL", "apply", "model"),
    ("models", "ip_adapter", "apply", "ip_adapter"),
    ("sample", "tokens", "apply", "tokens"),
    ("models", "CLIP", "positive", "clip"),
    ("models", "CLIP", "negative", "clip"),
    ("apply", "model", "sampler", "model"),
    ("positive", "CONDITIONING", "sampler", "positive"),
    ("negative", "CONDITIONING", "sampler", "negative"),
    ("latent", "LATENT", "sampler", "latent_image"),
    ("sampler", "LATENT", "decode", "samples"),
    ("models", "VAE", "decode", "vae"),
    ("decode", "IMAGE", "save", "images"),
]
QUICK = {
    "parts": {"seed": 3},
    "positive": {"text": "a creature in the sky"},
    "latent": {"width": 256, "height": 256, "batch_size": 2},
    "sample": {"concepts": 2, "steps": 4},
    "sampler": {"steps": 4, "cfg": 3.0, "scheduler": "normal"},
}
NOTE_PREVIEWS = """() => {
    window.previews = []
    window.app.api.addEventListener("b_preview_with_metadata", ({ detail }) =>
        window.previews.push({ id: detail.displayNodeId, picture: [detail.blob.type, detail.blob.size] }))
}"""
LAST_STEP = """node =>
    window.seen.findLast((each) => each.type === "progress" && each.node === node).value
"""


PICTURE_SHOWN = """() => {
    const picture = document.querySelector(".node-help-content img")
    return picture?.src.endsWith("/docs/pictures/PiT_SamplePrior.jpg") && picture.naturalWidth > 0
}"""
CONNECT = """([from, output, to, input]) => {
    const [source, target] = [from, to].map((id) => window.app.graph.getNodeById(id))
    const slot = target.findInputSlot(input)
    source.connect(source.findOutputSlot(output), target, slot)
    return target.inputs[slot].link !== null
}"""


def test_a_graph_built_by_hand_runs_to_a_picture(comfyui, page):
    ids = build(page, NODES, LINKS, QUICK)
    press_run(page)
    wait_for(page, "execution_success")
    pictures = [Image.open(io.BytesIO(comfyui.view(image))) for image in images_of(page, ids["save"])]
    assert [picture.size for picture in pictures] == [(256, 256)] * 2
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert len(images_of(page, ids["encode"])) == 3


def test_the_help_page_of_a_node_shows(fresh_page):
    page = fresh_page
    ids = build(page, {"sample": "PiT_SamplePrior"})
    select(page, ids["sample"])
    page.get_by_test_id("info-button").click()
    _, _, paragraph, *_ = (DOCS / "PiT_SamplePrior.md").read_text(encoding="utf-8").split("\n\n")
    page.get_by_text(paragraph).wait_for()
    page.wait_for_function(PICTURE_SHOWN)


def test_our_words_are_in_the_error_that_the_page_shows(fresh_page):
    page = fresh_page
    nothing = dict.fromkeys(("horns", "wings", "tail"), False)
    links = [("parts", "parts", "show", "images")]
    build(page, {"parts": "PiT_CreatureParts", "show": "PreviewImage"}, links, {"parts": nothing})
    press_run(page)
    wait_for(page, "execution_error")
    page.get_by_text("View details").click()
    page.get_by_text("Creature Parts expected at least one part to draw").wait_for()


def assert_cancel_works(page, ids: dict[str, str], node: str, steps: int) -> None:
    """A click on Cancel ends a node that has many steps to go; then, with few steps, it runs to its end."""
    set_value(page, ids[node], "steps", steps)
    press_run(page)
    wait_for(page, "progress", ids[node], 3)
    page.get_by_label("Cancel current run").click()
    assert wait_for(page, "execution_interrupted")["node_id"] == ids[node]
    assert 3 <= page.evaluate(LAST_STEP, ids[node]) < steps
    set_value(page, ids["sample"], "concepts", 2)
    set_value(page, ids[node], "steps", 3)
    press_run(page)
    wait_for(page, "execution_success")


def test_cancel_while_the_prior_samples(page):
    ids = build(page, NODES, LINKS, QUICK)
    set_value(page, ids["sample"], "concepts", 32)  # or its many steps may be over before the click
    assert_cancel_works(page, ids, "sample", 1000)


def test_cancel_while_the_model_renders(page):
    assert_cancel_works(page, build(page, NODES, LINKS, QUICK), "sampler", 2000)


def build_training(page, name: str, steps: int) -> dict[str, str]:
    """A small prior of drawn creatures, to train."""
    nodes = {"models": "PiT_LoadCreatureModels", "dataset": "PiT_CreatureDataset",
             "tokens": "PiT_EncodeDataset", "train": "PiT_TrainPrior"}
    links = [
        ("models", "CLIP_VISION", "tokens", "clip_vision"), ("models", "ip_adapter", "tokens", "ip_adapter"),
        ("dataset", "dataset", "tokens", "dataset"), ("tokens", "tokens", "train", "tokens"),
    ]
    small = {"steps": steps, "batch": 4, "hidden_dim": 32, "layers": 1, "heads": 2, "name": name}
    return build(page, nodes, links, {"dataset": {"count": 10, "name": "watched"}, "train": small})


def test_the_page_shows_the_curve_while_a_prior_trains(page):
    ids = build_training(page, "watched", 60)
    page.evaluate(NOTE_PREVIEWS)
    press_run(page)
    wait_for(page, "execution_success")
    kind, size = page.evaluate("id => window.previews.find((each) => each.id === id).picture", ids["train"])
    assert kind == "image/jpeg" and size > 5000
    assert len(images_of(page, ids["train"])) == 1


def test_the_curve_of_a_training_lasts_when_another_tab_was_open(comfyui, fresh_page):
    """While it runs, after Cancel, and after a reload in the middle."""
    page = fresh_page
    ids = build_training(page, "left_alone", 1_000_000)
    press_run(page)
    first = wait_for(page, "executed", ids["train"])["output"]["images"][0]
    leave_and_come_back(page)
    assert images_of(page, ids["train"]) == [first]
    assert Image.open(io.BytesIO(comfyui.view(first))).width >= 480
    page.reload()
    page.wait_for_function(PAGE_IS_READY)
    page.evaluate(WATCH)
    assert wait_for(page, "executed", ids["train"], 2)["output"]["images"] == [first]
    leave_and_come_back(page)
    assert images_of(page, ids["train"]) == [first]
    comfyui.interrupt()  # a page that was loaded in the middle of a run offers no Cancel
    wait_for(page, "execution_interrupted")
    leave_and_come_back(page)
    wait_for_picture(page, ids["train"], first["filename"])


def test_the_page_offers_no_new_seed_for_what_is_to_go_on(page):
    """A training with another seed would be another run, and a cache with another seed is refused."""
    for kind in ("PiT_CreatureDataset", "PiT_EncodeDataset", "PiT_TrainPrior", "PiT_TrainingPreview"):
        build(page, {"node": kind})
        names = page.evaluate("window.app.graph.nodes[0].widgets.map((widget) => widget.name)")
        assert "seed" in names and "control_after_generate" not in names, kind


def test_sockets_for_concepts_give_what_they_are_given(page):
    """What goes through Pick Concepts fits where it fitted before, and nowhere else."""
    ids = build(page, {
        "embedding": "PiT_EncodeEmbedding", "tokens": "PiT_EncodeImage", "picture": "EmptyImage",
        "pick_embedding": "PiT_PickConcepts", "pick_tokens": "PiT_PickConcepts", "batch": "PiT_BatchConcepts",
        "arithmetic": "PiT_TokenArithmetic", "operator": "PiT_Combine", "renderer": "PiT_ApplyTokens",
    })

    def connects(source: str, output: str, target: str, name: str) -> bool:
        return page.evaluate(CONNECT, [ids[source], output, ids[target], name])

    assert not connects("picture", "IMAGE", "pick_embedding", "tokens")
    assert connects("embedding", "embedding", "pick_embedding", "tokens")
    assert connects("tokens", "tokens", "pick_tokens", "tokens")
    assert not connects("pick_embedding", "tokens", "renderer", "tokens")
    assert not connects("pick_tokens", "tokens", "operator", "first")
    assert connects("pick_embedding", "tokens", "operator", "first")
    assert connects("pick_tokens", "tokens", "renderer", "tokens")
    assert connects("pick_embedding", "tokens", "batch", "concepts.tokens0")
    assert connects("batch", "tokens", "arithmetic", "tokens")
    assert connects("arithmetic", "tokens", "operator", "second")
