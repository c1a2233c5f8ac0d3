"""What the other tests here stand on: queueing, following, uploading and cancelling in the real ComfyUI."""

import io

import pytest
from PIL import Image

from dev import Failure


def picture_graph(width: int = 64) -> dict:
    image = {"width": width, "height": 32, "batch_size": 2, "color": 0xFF0000}
    return {
        "1": {"class_type": "EmptyImage", "inputs": image},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "test"}},
    }


def opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture)).convert("RGB")


def test_a_graph_runs_and_its_pictures_can_be_viewed(comfyui):
    seen = []
    result = comfyui.queue(picture_graph(), seen.append)
    assert (result.status, result.error) == ("success", "")
    images = [opened(comfyui.view(image)) for image in result.outputs["2"]["images"]]
    assert [image.getcolors() for image in images] == [[(64 * 32, (255, 0, 0))]] * 2
    assert seen == result.events
    assert "execution_start" in [event["type"] for event in seen]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"width": 0}, "node 1 (EmptyImage): Value 0 smaller than min"),
        ({"width": ["7", 0]}, "7"),
    ],
)
def test_a_wrong_graph_is_refused_with_its_reason(comfyui, change, complaint):
    graph = picture_graph()
    graph["1"]["inputs"].update(change)
    result = comfyui.queue(graph)
    assert result.status == "refused"
    assert complaint in result.error
    assert comfyui.queue(picture_graph()).status == "success"


def test_an_unknown_node_is_refused_by_name(comfyui):
    result = comfyui.queue({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert result.status == "refused"
    assert "NoSuchNode" in result.error


def test_an_uploaded_picture_is_read_unchanged(comfyui):
    picture = Image.effect_noise((24, 16), 80).convert("RGB")
    file = io.BytesIO()
    picture.save(file, "PNG")
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": comfyui.upload("noise.png", file.getvalue())}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "test"}},
    }
    result = comfyui.queue(graph)
    assert opened(comfyui.view(result.outputs["2"]["images"][0])).tobytes() == picture.tobytes()


def test_an_error_inside_a_node_names_the_node(comfyui):
    graph = picture_graph()
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": comfyui.upload("broken.png", b"no picture")}}
    result = comfyui.queue(graph)
    assert result.status == "error"
    assert result.error.startswith("node 1 (LoadImage): ")


def test_a_server_that_dies_ends_the_wait(bare_comfyui):
    with pytest.raises(Failure, match="went away|does not answer") as failure:
        bare_comfyui.queue(picture_graph(), lambda event: bare_comfyui.stop())
    assert failure.value.log == bare_comfyui.log


def test_freeing_empties_the_execution_cache(comfyui):
    graph = picture_graph(width=72)
    comfyui.queue(graph)
    assert cached(comfyui.queue(graph)) == {"1", "2"}
    comfyui.free()
    assert cached(comfyui.queue(graph)) == set()


def cached(result) -> set[str]:
    events = [event["data"] for event in result.events if event["type"] == "execution_cached"]
    return {node for event in events for node in event["nodes"]}
