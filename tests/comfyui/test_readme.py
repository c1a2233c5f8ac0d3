"""The example for scripts in the README, as a newcomer runs it."""

import re
import runpy

from PIL import Image

from dev import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_renders_and_saves_concepts_beside_those_of_the_demo(comfyui, tmp_path, monkeypatch):
    (script,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for given, here in [
        ("http://127.0.0.1:8188", comfyui.address), ('Path("workflows', f'Path("{ROOT}/workflows'),
        ("range(3)", "range(2)"), ("CONCEPTS = 4", "CONCEPTS = 2"),
    ]:
        assert given in script
        script = script.replace(given, here)
    (tmp_path / "output").mkdir()
    of_the_demo = tmp_path / "output" / "concept_1.png"
    of_the_demo.write_bytes(b"the demo's")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(script)
    runpy.run_path(str(tmp_path / "script.py"))
    assert of_the_demo.read_bytes() == b"the demo's"
    pictures = sorted((tmp_path / "output" / "script").iterdir())
    assert [path.name for path in pictures] == [f"concept_{number}.png" for number in range(4)]
    assert len({Image.open(path).tobytes() for path in pictures}) == 4


def test_the_port_of_the_example_is_the_one_that_the_readme_starts():
    (port,) = re.findall(r'SERVER = "http://127.0.0.1:(\d+)"', TEXT)
    assert f"`python3 dev.py serve --port {port}`" in TEXT
