"""The picture of a direction: where pictures of both classes lie along it when they are left out."""
from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from .. import charts
from .directions import Separation


def separation_chart(found: Mapping[str, Separation]) -> Image.Image:
    """A row for each space (RGB): every left-out picture as a dot, and the middle between the classes.

    Raises ModuleNotFoundError if matplotlib is not installed.
    """
    return charts.separation([
        (f"{name}: {each.accuracy:.0%} of the left-out pictures on their side",
         each.first.tolist(), each.second.tolist())
        for name, each in found.items()
    ])
