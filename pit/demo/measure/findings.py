"""What a run has found."""
from __future__ import annotations

from dataclasses import dataclass, field

from .comparison import Comparison
from .estimates import Estimate


@dataclass
class Findings:
    """The results of a run.

    Attributes:
        measures: by the names under which the command writes them.
        attributes: shares by what is looked at ("reader", ...) and then by attribute.
        stages: what is left after each stage at best, at free and natural coherence.
        floors: what chance would find, under the name of the measure.
        scenes_kept: attributes kept at each adapter weight.
        distances: between rendered and true creatures, at free and natural coherence.
        comparisons: the prior and every other method, for each number of parts.
        seconds: for each stage, for eight concepts.
    """

    measures: dict[str, Estimate] = field(default_factory=dict)
    attributes: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    stages: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    floors: dict[str, Estimate] = field(default_factory=dict)
    scenes_kept: dict[str, Estimate] = field(default_factory=dict)
    distances: dict[str, dict[str, float]] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
