"""The page offers the files that a template for SDXL needs, on a machine that has none of them."""

from tests.comfyui.workflows import WORKFLOWS, read


def test_missing_files_are_offered_with_a_download(fresh_page):
    page = fresh_page
    workflow = read(WORKFLOWS / "piece_it_together_sdxl.json")
    page.evaluate("workflow => window.app.loadGraphData(workflow, true, true, 'sdxl')", workflow)
    page.get_by_text("View details").click()
    page.get_by_text("Download all").wait_for()
    # The prior is there: a tiny one lies under its name in the server of these tests.
    for name in ("sd_xl_base_1.0", "CLIP-ViT-H-14-laion2B-s32B-b79K", "ip-adapter-plus_sdxl_vit-h"):
        page.get_by_text(f"{name}.safetensors", exact=True).first.wait_for()
    assert page.get_by_text("Download", exact=True).count() == 3
