"""The privacy/utility frontier: what the images are good for, by the epsilon that was spent. As figure and as text.

A run without a guarantee has no place on the axis of epsilon: it stands beyond its end.
"""

from collections import defaultdict
from collections.abc import Sequence

from fedsynth.privacy.accounting import rounded_up
from fedsynth.report.facts import Facts
from fedsynth.report.figures import Chart, Point, scatter

MEASURES = {
    "dice": ("segmentation", "Dice on real patients"),
    "accuracy": ("classification", "accuracy on real patients"),
}
"""By column of the table: which benchmark measured it, and what stands at the axis."""

NONE = "no guarantee"
LINE = 40


def frontiers(rows: Sequence[Facts]) -> list[Chart]:
    """One chart per measure that two runs or more have, if any of them has a guarantee; else none."""
    drawn = []
    for column, (_, name) in MEASURES.items():
        series = _series(rows, column)
        points = [point for of in series.values() for point in of]
        if len(points) > 1 and any(point.x is not None for point in points):
            beyond = NONE if any(point.x is None for point in points) else ""
            chart = scatter(series, x="epsilon per patient", y=name, beyond=beyond, level=_real(rows, column))
            if chart is not None:
                drawn.append(chart)
    return drawn


def frontier_text(rows: Sequence[Facts]) -> str:
    """The same for a terminal: a line per run, in order of epsilon."""
    parts = []
    for column, (_, name) in MEASURES.items():
        points = sorted(
            (point for of in _series(rows, column).values() for point in of),
            key=lambda point: (point.x is None, point.x or 0.0),
        )
        if len(points) > 1:
            parts.append(_drawn(points, name, _real(rows, column)))
    return "\n\n".join(parts)


def _series(rows: Sequence[Facts], column: str) -> dict[str, list[Point]]:
    """Points by how they were made, whatever their epsilon."""
    found = defaultdict(list)
    for row in rows:
        cell = row.cells[column]
        if cell.value is not None:
            epsilon = row.cells["epsilon"].value
            point = Point(x=epsilon, y=cell.value, low=cell.low, high=cell.high, name=row.run.folder.name)
            found[f"{row.cells['generator'].text}, {row.cells['federation'].text}"].append(point)
    return dict(found)


def _real(rows: Sequence[Facts], column: str) -> tuple[str, float] | None:
    """What training on real images gives, if all runs agree on it."""
    values = {round(c, 6) for row in rows if (c := row.cells[column].control) is not None}
    return ("real images", values.pop()) if len(values) == 1 else None


def _drawn(points: Sequence[Point], name: str, level: tuple[str, float] | None) -> str:
    shown = [*points] if level is None else [*points, Point(x=None, y=level[1], name=level[0])]
    ends = [v for p in shown for v in (p.y, p.low, p.high) if v is not None]
    low, span = min(ends), (max(ends) - min(ends)) or 1.0

    def at(value: float) -> int:
        return round((value - low) / span * (LINE - 1))

    lines = []
    for point in shown:
        line = [" "] * LINE
        if point.low is not None and point.high is not None:
            line[at(point.low) : at(point.high) + 1] = "-" * (at(point.high) - at(point.low) + 1)
        line[at(point.y)] = "o"
        epsilon = "" if level and point is shown[-1] else NONE if point.x is None else f"{rounded_up(point.x, 3):g}"
        lines.append((epsilon, "".join(line), f"{point.y:.3g}  {point.name}"))
    head = f"{low:.3g}".ljust(LINE // 2) + f"{low + span:.3g}".rjust(LINE - LINE // 2)
    rows = [("epsilon", head, name), *lines]
    return "\n".join(f"{first:>12}  {drawing}  {last}" for first, drawing, last in rows)
