"""Pictures that belong to a node's output: they stay, and come back when nothing is computed anew."""

import io

from PIL import Image

from tests.comfyui.nodes.graphs import node, sample_graph

WANTED = {"body": True, "wings": True}


def creature_graph(concepts: int) -> dict:
    parts = dict.fromkeys(("eyes", "mouth", "horns", "ears", "arms", "legs", "tail"), False) | WANTED
    return {
        "models": node("PiT_LoadCreatureModels"),
        "drawn": node("PiT_CreatureParts", seed=1, species="mixed", **parts),
        "parts": node(
            "PiT_EncodeParts", clip_vision=["models", 3], ip_adapter=["models", 4],
            parts__part0=["drawn", 0], placement="centred", seed=0, sketch=0.0, reference_slot=False,
            min_slots=3,
        ),
        "sample": node(
            "PiT_SamplePrior", prior=["models", 5], parts=["parts", 0], seed=0, concepts=concepts, steps=4,
            guidance=2.0, solver="euler", strength=0.6,
        ),
        "loaded": node("Tiny_Loaded", after=["sample", 0]),
    }


def test_the_wall_of_concepts_is_an_output_that_a_cached_run_shows_again(lab):
    first = lab.queue(creature_graph(5))
    again = lab.queue(creature_graph(5))
    assert first.status == again.status == "success", first.error
    cached = next(event["data"]["nodes"] for event in again.events if event["type"] == "execution_cached")
    assert "sample" in cached
    (image,) = first.outputs["sample"]["images"]
    assert again.outputs["sample"]["images"] == [image]
    wall = Image.open(io.BytesIO(lab.view(image))).convert("RGB")
    assert wall.size == (3 * 128, 2 * 128)
    assert len(wall.crop((0, 0, 128, 128)).getcolors(128 * 128)) > 100


def test_a_prior_without_a_preview_shows_nothing(lab):
    result = lab.queue(sample_graph(sample__seed=77))
    assert result.status == "success", result.error
    assert "images" not in result.outputs.get("sample", {})
