"""The template for a folder of part sets, which tests/comfyui/test_workflows.py looks at with the others."""

import io
from collections import Counter

from PIL import Image

from tests.comfyui.workflows import twin


def test_every_set_becomes_concepts_that_carry_its_name(comfyui):
    graph = twin("a_folder_of_part_sets")
    graph["5"]["inputs"]["concepts"], graph["10"]["inputs"]["steps"] = 2, 3
    result = comfyui.queue(graph)
    assert result.status == "success", result.error
    images = result.outputs["12"]["images"]
    assert Counter(image["filename"].partition("_")[0] for image in images) == {
        "ember": 2, "lagoon": 2, "moss": 2, "storm": 2,
    }
    drawn = {Image.open(io.BytesIO(comfyui.view(image))).convert("RGB").tobytes() for image in images}
    assert len(drawn) == 8
