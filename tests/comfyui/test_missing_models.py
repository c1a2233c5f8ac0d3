"""The page offers the files that a template for published models needs, where none of them are."""

import pytest

from tests.comfyui.workflows import template


def test_missing_files_are_offered_with_a_download(fresh_page):
    page = fresh_page
    workflow = template("piece_it_together_sdxl")
    page.evaluate("workflow => window.app.loadGraphData(workflow, true, true, 'sdxl')", workflow)
    page.get_by_text("View details").click()
    page.get_by_text("Download all").wait_for()
    # The prior is there: a tiny one lies under its name in the server of these tests.
    for name in ("sd_xl_base_1.0", "CLIP-ViT-H-14-laion2B-s32B-b79K", "ip-adapter-plus_sdxl_vit-h"):
        page.get_by_text(f"{name}.safetensors", exact=True).first.wait_for()
    assert page.get_by_text("Download", exact=True).count() == 3


@pytest.mark.parametrize("kind, names", [
    ("texture", ("sam3.1_multiplex_fp16", "depth_anything_3_mono_large", "controlnet-depth-sdxl-1.0")),
    ("scene", ("sam3.1_multiplex_fp16", "sdxl-inpainting-0.1")),
])
def test_files_for_nodes_of_comfyui_are_offered_too(fresh_page, kind, names):
    page = fresh_page
    workflow = template(f"make_{kind}_pairs_sdxl")
    page.evaluate("workflow => window.app.loadGraphData(workflow, true, true, 'pairs')", workflow)
    page.get_by_text("View details").click()
    page.get_by_text("Download all").wait_for()
    for name in (*names, "sd_xl_base_1.0"):
        page.get_by_text(f"{name}.safetensors", exact=True).first.wait_for()
    assert page.get_by_text("Download", exact=True).count() == 1 + len(names)


def test_files_of_what_is_switched_off_are_not_offered(fresh_page):
    page = fresh_page
    workflow = template("texture_an_object_sdxl")
    page.evaluate("workflow => window.app.loadGraphData(workflow, true, true, 'texture')", workflow)
    page.get_by_text("View details").click()
    page.get_by_text("Download all").wait_for()
    for name in ("ip-adapter_sdxl.safetensors", "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
                 "texturing/learned_prior.pth"):
        page.get_by_text(name, exact=True).first.wait_for()
    # With the checkpoint and the prior of Kandinsky.
    assert page.get_by_text("Download", exact=True).count() == 5
    for name in ("depth_anything_3_mono_large", "controlnet-depth-sdxl-1.0"):
        assert page.get_by_text(f"{name}.safetensors", exact=True).count() == 0
