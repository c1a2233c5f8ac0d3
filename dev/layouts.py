"""How graphs for people are laid out: rows of groups, groups of stacks, stacks of nodes.

Widths are given; heights come from the page, which is asked how much each node needs in Nodes 2.0. Those of
classic nodes are at most as high.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.subgraphs import Folded
from dev.templates import TITLES

TITLE, PADDING, BETWEEN, GROUP_TITLE, APART = 30, 15, 20, 40, 25
STAGES = {
    "models": ("#432", "#653", "#b58b2a"), "pictures": ("#232", "#353", "#8a8"),
    "concept": ("#323", "#535", "#b574b8"), "render": ("#2a363b", "#3f5159", "#5f9ec4"),
    "train": ("#332922", "#593930", "#b06634"), "result": ("#233", "#355", "#8aa"),
}
"""For each stage the colors of a node's title and body, and of its group: those of ComfyUI's own menu."""
NOTE_COLORS = ("#222", "#000")

Rectangle = tuple[int, int, int, int]
"""Left, top, width, height; for a node without its title bar, which is how ComfyUI stores it."""


@dataclass(frozen=True)
class Note:
    """A note in the graph; its text is Markdown without inline code, which Nodes 2.0 shows blue on blue."""

    title: str
    text: str


@dataclass(frozen=True)
class Large:
    """A node that is at least this high, because it shows pictures or words after a run."""

    node: str
    height: int


Row = str | Large | Note | Folded
"""What stands in a stack: the id of a node in the API twin, a note, or a subgraph."""


@dataclass(frozen=True)
class Stack:
    """Nodes of one width, one below the other."""

    width: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Group:
    """A titled frame around stacks that are side by side, in the color of its stage."""

    title: str
    stage: str
    stacks: tuple[Stack, ...]

    @property
    def width(self) -> int:
        return sum(stack.width for stack in self.stacks) + (len(self.stacks) - 1) * BETWEEN + 2 * PADDING


Cell = Group | tuple[Group, ...]
"""What stands in a row: a group, or several of them one below the other, which become equally wide."""


def groups_of(cell: Cell) -> tuple[Group, ...]:
    return cell if isinstance(cell, tuple) else (cell,)


@dataclass(frozen=True)
class Layout:
    """How a graph for people differs from its API twin.

    Attributes:
        rows: of groups, or of columns of groups; all nodes of the twin stand in one of them.
        random_seeds: the nodes whose seed changes after every run; other seeds stay the same.
        bypassed: nodes that are switched off, in the format of the API, which leaves them out.
        detours: by a node and its input, the output of a bypassed node that it gets in the graph.
    """

    rows: tuple[tuple[Cell, ...], ...]
    random_seeds: tuple[str, ...] = ()
    bypassed: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    detours: Mapping[tuple[str, str], tuple[str, int]] = field(default_factory=dict)

    @property
    def groups(self) -> list[Group]:
        return [group for row in self.rows for cell in row for group in groups_of(cell)]

    def shown(self) -> Iterator[tuple[Row, int, Group]]:
        """All that is in view, with its width and its group, in reading order."""
        for group in self.groups:
            for stack in group.stacks:
                for row in stack.rows:
                    yield row, stack.width, group

    def subgraphs(self) -> list[Folded]:
        return [row for row, _, _ in self.shown() if isinstance(row, Folded)]


def least_height(row: Row) -> int:
    """What the layout itself asks for."""
    return row.height if isinstance(row, Large | Folded) else 0


def placed(layout: Layout, heights: Sequence[int]) -> tuple[list[Rectangle], list[Rectangle]]:
    """Where all that is in view stands, in the order of its heights, and the frames of the groups."""
    rest = iter(heights)
    places: list[Rectangle] = []
    frames: list[Rectangle] = []
    top = 0
    for row in layout.rows:
        left, bottom, first = 0, top, len(frames)
        for cell in row:
            below, width = top, max(group.width for group in groups_of(cell))
            for group in groups_of(cell):
                high = [[next(rest) for _ in stack.rows] for stack in group.stacks]
                places += placed_in_group(group, high, left, below)
                frames.append((left, below, width, max(map(stack_height, high)) + GROUP_TITLE + PADDING))
                below += frames[-1][3] + APART
            left, bottom = left + width + APART, max(bottom, below)
        frames[first:] = stretched(frames[first:], bottom - APART)
        top = bottom
    return places, frames


def stretched(frames: Sequence[Rectangle], bottom: int) -> list[Rectangle]:
    """The frames of a row, the last of each column down to the bottom of the row."""
    lowest = {left: top for left, top, _, _ in frames}
    return [
        (left, top, width, bottom - top if lowest[left] == top else height)
        for left, top, width, height in frames
    ]


def stack_height(heights: Sequence[int]) -> int:
    """From the top of the first title bar to the bottom of the last node."""
    return sum(heights) + len(heights) * TITLE + (len(heights) - 1) * BETWEEN


def placed_in_group(
    group: Group, heights: Sequence[Sequence[int]], left: int, top: int,
) -> Iterator[Rectangle]:
    """Where everything in one group stands; heights by stack."""
    left += PADDING
    for stack, high in zip(group.stacks, heights, strict=True):
        below = top + GROUP_TITLE + TITLE
        for height in high:
            yield left, below, stack.width, height
            below += height + BETWEEN + TITLE
        left += stack.width + BETWEEN


def title_of(name: str) -> str:
    """The name of a template as notes write it."""
    return f"*{TITLES[name]}*"


def numbers(first: int, count: int) -> list[str]:
    """Ids of nodes that follow one another."""
    return [str(number) for number in range(first, first + count)]


def render_concept(
    apply: str, prompt: str, negative: str, latent: str, sampler: str, decode: str, noise: str = "",
    title: str = "Render concept",
) -> Folded:
    """The subgraph that draws tokens, of the nodes with these ids; `noise` gives all the same noise."""
    return Folded(
        title, " ".join(filter(None, (apply, prompt, negative, latent, noise, sampler, decode))),
        shown=f"prompt={prompt}.text negative_prompt={negative}.text weight={apply}.weight "
              f"steps={sampler}.steps cfg={sampler}.cfg seed={sampler}.seed",
        outputs=f"image={decode}.0",
    )


def parts_to_concept(encode: str, sample: str, title: str = "Parts to concept") -> Folded:
    """The subgraph that encodes parts and completes them, of the nodes with these ids."""
    return Folded(
        title, f"{encode} {sample}",
        shown=f"concepts={sample}.concepts seed={sample}.seed guidance={sample}.guidance "
              f"placement={encode}.placement reference_slot={encode}.reference_slot",
        sockets=f"parts={encode}.parts.part0 more_parts={encode}.parts.part1",
        outputs=f"concepts={sample}.0",
    )


def column(width: int, *rows: Row) -> Stack:
    return Stack(width, rows)


def columns(width: int, *stacks: Sequence[Row]) -> tuple[Stack, ...]:
    """Stacks of one width."""
    return tuple(Stack(width, tuple(rows)) for rows in stacks)
