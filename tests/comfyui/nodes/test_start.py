"""The pack arrives in ComfyUI quickly."""

import importlib
import time

from dev import ROOT
from tests.comfyui.nodes.inside import load_package

SECONDS = 0.3


def test_the_pack_is_imported_in_under_three_tenths_of_a_second(inside):
    """Of this thread's time on the processor; what other packages take is told by the rules of the house."""
    before = time.thread_time()
    load_package("piece_it_together_anew", ROOT)
    importlib.import_module("piece_it_together_anew.nodes")
    assert time.thread_time() - before < SECONDS
