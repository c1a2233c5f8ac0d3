"""The files of the creatures' pOps operators."""
from __future__ import annotations

from .library import FOLDER

# By their kinds, as in `pit.pops.modes`.
OPERATORS = {
    "texture": "texturing", "scene": "scene", "union": "union", "instruct": "instruct", "clothes": "compose",
}


def operator_file(mode: str) -> str:
    """The name of the weight file of an operator."""
    return f"creature_{OPERATORS[mode]}_operator.safetensors"


OPERATOR_FILES = {
    f"creature models: {name}": FOLDER / operator_file(mode) for mode, name in OPERATORS.items()
}
