"""Cut Out Part with the MASK of the real Load Image, which is 1 where a picture is transparent."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pit.demo.drawing.creature import creature_from_seed
from pit.demo.drawing.draw import draw_part
from tests.comfyui.nodes.graphs import node


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def cut_out(lab):
    """Runs Load Image and Cut Out Part on a picture; returns the part, and what the node says."""
    def run(picture):
        graph = {
            "picture": node("LoadImage", image=lab.upload("picture.png", png(picture))),
            "cut": node("PiT_CutOutPart", image=["picture", 0], mask=["picture", 1]),
            "shown": node("PreviewImage", images=["cut", 0]),
        }
        result = lab.queue(graph)
        assert result.status == "success", result.error
        (image,) = result.outputs["shown"]["images"]
        part = Image.open(io.BytesIO(lab.view(image))).convert("RGB")
        return part, "".join(result.outputs.get("cut", {}).get("text", ()))

    return run


@pytest.fixture
def wings() -> Image.Image:
    """On white, RGB."""
    return draw_part(creature_from_seed(3, 1.0, "ember"), "wings", 96)


def alpha_of(wings: Image.Image) -> Image.Image:
    alpha = Image.new("L", wings.size)
    ImageDraw.Draw(alpha).ellipse([10, 20, 80, 70], fill=255)
    return alpha


@pytest.mark.parametrize("hidden", ["black", "white", "as it was"])
def test_a_cut_out_with_a_transparent_background_gives_what_is_seen_of_it(cut_out, wings, hidden):
    alpha = alpha_of(wings)
    ground = wings if hidden == "as it was" else Image.new("RGB", wings.size, hidden)
    picture = Image.composite(wings, ground, alpha)
    picture.putalpha(alpha)
    part, said = cut_out(picture)
    box = alpha.getbbox()
    expected = Image.composite(wings, Image.new("RGB", wings.size, "white"), alpha).crop(box)
    assert np.abs(np.asarray(part, int) - np.asarray(expected, int)).max() <= 1
    assert "so it was inverted" in said


def test_what_is_painted_in_the_mask_editor_is_the_part(cut_out, wings):
    alpha = alpha_of(wings)
    picture = wings.copy()
    picture.putalpha(alpha.point(lambda value: 255 - value))
    part, said = cut_out(picture)
    expected = Image.composite(wings, Image.new("RGB", wings.size, "white"), alpha).crop(alpha.getbbox())
    assert np.abs(np.asarray(part, int) - np.asarray(expected, int)).max() <= 1
    assert said == ""
