"""What ComfyUI finds in the pack's `__init__.py`."""

import importlib.util
import inspect

from dev import ROOT


def test_the_pack_can_be_imported_without_comfyui():
    spec = importlib.util.spec_from_file_location("pack", ROOT / "__init__.py")
    pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    assert inspect.iscoroutinefunction(pack.comfy_entrypoint)
    assert (ROOT / pack.WEB_DIRECTORY / "docs").is_dir()
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS")  # ComfyUI would take it and skip the entry point
