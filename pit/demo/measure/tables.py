"""What a run found, as tables in Markdown."""
from __future__ import annotations

from collections.abc import Iterable

from .catalog import (
    BARS,
    COHERENCES,
    COLUMNS,
    DISTANCES,
    DRAWN,
    LABELS,
    MOST_SECONDS,
    NATURAL_SHARE_OF_CEILING,
    ROWS,
    unit_of,
)
from .comparison import Comparison
from .estimates import percent, written
from .findings import Findings
from .markdown import markdown, reached

GROUPED = ("kept_", "autoencoder_", DRAWN)  # measures with tables of their own
VALUE, TARGET = "value (95% interval)", "target"
Row = list[str]


def tables(findings: Findings) -> str:
    """All tables of what was measured."""
    found = [
        kept_table(findings), other_table(findings), autoencoder_table(findings), comparison_table(findings),
        stage_table(findings), attribute_table(findings), time_table(findings), drawing_table(findings),
    ]
    return "\n\n".join(filter(None, found))


def table(header: list[str], rows: Iterable[Row]) -> str:
    """A table; nothing if there are no rows."""
    rows = list(rows)
    return markdown(header, rows) if rows else ""


def bars(findings: Findings) -> dict[str, float]:
    """What each measure has to reach."""
    ceiling = findings.measures.get("ceiling_natural")
    return BARS | ({"kept_2_natural": NATURAL_SHARE_OF_CEILING * ceiling.value} if ceiling else {})


def verdict(findings: Findings, name: str) -> str:
    """The bar of a measure and whether it is reached; nothing for a measure without one."""
    bar, unit = bars(findings).get(name), unit_of(name)
    if bar is None:
        return ""
    value = findings.measures[name].value
    text = f"at most {unit.text(bar)}" if unit.less_is_better else unit.text(bar)
    return f"{text}, {reached(value <= bar if unit.less_is_better else value >= bar)}"


def measure_rows(findings: Findings, names: Iterable[str]) -> list[Row]:
    """Measures, their values and bars."""
    return [
        [LABELS[name], written(findings.measures[name], unit_of(name)), verdict(findings, name)]
        for name in names
    ]


def kept_table(findings: Findings) -> str:
    rows = [
        [LABELS[name], percent(findings.measures[name]), f"{floor.value:.1%}", verdict(findings, name)]
        for name, floor in findings.floors.items()
    ]
    return table(["attributes of the given parts found", "share (95% interval)", "by chance", TARGET], rows)


def other_table(findings: Findings) -> str:
    rows = measure_rows(findings, (name for name in findings.measures if not name.startswith(GROUPED)))
    rows += [
        [f"given parts kept, adapter weight {name.removeprefix('scene_')}", percent(estimate), ""]
        for name, estimate in findings.scenes_kept.items()
    ]
    rows += [
        [f"{DISTANCES[kind]}, {COHERENCES[coherence]}", f"{value:.3f}", ""]
        for coherence, kinds in findings.distances.items() for kind, value in kinds.items()
    ]
    return table(["measure", VALUE, TARGET], rows)


def autoencoder_table(findings: Findings) -> str:
    names = (name for name in findings.measures if name.startswith("autoencoder_"))
    return table(["through the autoencoder", VALUE, TARGET], measure_rows(findings, names))


def comparison_table(findings: Findings) -> str:
    """Every way from parts to tokens, and whether the prior beats it on kept and whole together."""
    rows = [
        [row.method, str(row.parts), percent(row.kept), percent(row.whole), percent(row.both), beaten(row)]
        for row in findings.comparisons
    ]
    header = [
        "method", "parts given", "attributes kept", "complete creatures", "kept, 0 where incomplete",
        "beaten by the prior",
    ]
    return table(header, rows)


def beaten(row: Comparison) -> str:
    """Whether the prior is ahead of a method, clearly or not; nothing for the prior itself."""
    lead = row.lead
    if lead is None:
        return ""
    clear = "" if lead.low > 0 or lead.high < 0 else ", not clearly"
    return f"{'yes' if lead.value > 0 else 'NO'}{clear} ({lead.value * 100:+.1f} points)"


def stage_table(findings: Findings) -> str:
    rows = [
        [COHERENCES[coherence], *(percent(estimate) for estimate in stages.values())]
        for coherence, stages in findings.stages.items()
    ]
    header = ["attributes of true creatures", "drawn", "through the autoencoder", "rendered from true tokens"]
    return table(header, rows)


def attribute_table(findings: Findings) -> str:
    """Where each attribute gets lost: a column for everything that was looked at by attribute."""
    columns = findings.attributes
    # A dict rather than a set: it keeps the order.
    names = dict.fromkeys(name for shares in columns.values() for name in shares)
    rows = []
    for name in names:
        cells = [percent(shares[name]) if name in shares else "" for shares in columns.values()]
        rows.append([ROWS.get(name, name.replace("_", " ")), *cells])
    return table(["found", *(COLUMNS[name] for name in columns)], rows)


def time_table(findings: Findings) -> str:
    rows = [[stage, f"{seconds:.2f}", ""] for stage, seconds in findings.seconds.items()]
    if rows:
        total = sum(findings.seconds.values())
        target = f"at most {MOST_SECONDS:.0f}, {reached(total <= MOST_SECONDS)}"
        rows.append(["together", f"{total:.2f}", target])
    return table(["stage, for eight concepts", "seconds", TARGET], rows)


def drawing_table(findings: Findings) -> str:
    names = (name for name in findings.measures if name.startswith(DRAWN))
    return table(["drawn at 256 px by one core", VALUE, TARGET], measure_rows(findings, names))
