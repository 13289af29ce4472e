"""Figures as plain SVG: axes with units, intervals where there are any, colours that print and that differ in grey."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0b6e99", "#c8553d", "#588157", "#8a5a9e", "#b08900", "#444444")
WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 44
BEYOND = 84
"""Room at the right for what has no place on the axis."""
MOST_POINTS = 200
NARROWEST, SIDE = 26, 5
STYLE = (
    "svg text,text{font:12px system-ui,sans-serif;fill:#5c676e}.grid{stroke:#e6eaed}.axis{stroke:#5c676e}"
    ".level{stroke:#5c676e;stroke-dasharray:6 4}"
)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place with its interval along y, and what it is called. Without `x` it stands beyond the end of the axis."""

    x: float | None
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing, its legend and what it shows: as a figure in a page, or as a file of its own."""

    drawing: str
    names: Sequence[str]
    what: str

    def figure(self) -> str:
        """For a page, which brings the style."""
        keys = "".join(
            f'<li><span style="background:{_colour(i)}"></span>{escape(name)}</li>' for i, name in enumerate(self.names)
        )
        return (
            f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.what)}">{self.drawing}'
            f'</svg><ul class="key">{keys}</ul></figure>'
        )

    def file(self) -> str:
        """A whole SVG file, legend and style in it."""
        rows = [
            f'<rect x="{LEFT}" y="{HEIGHT + 18 * i + 2}" width="12" height="12" fill="{_colour(i)}"/>'
            f'<text x="{LEFT + 18}" y="{HEIGHT + 18 * i + 12}">{escape(name)}</text>'
            for i, name in enumerate(self.names)
        ]
        height = HEIGHT + 18 * len(rows) + 8
        size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ground = f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(self.what)}</title>'
            f"<style>{STYLE}</style>{ground}{self.drawing}{''.join(rows)}</svg>\n"
        )


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> Chart | None:
    """A line per name; nothing where there is no number."""
    thinned = {name: _thinned([p for p in points if math.isfinite(p[1])]) for name, points in series.items()}
    thinned = {name: points for name, points in thinned.items() if points}
    if not thinned:
        return None
    flat = [point for points in thinned.values() for point in points]
    frame = _Frame.around([p[0] for p in flat], [p[1] for p in flat])
    parts = [frame.axes(x, y)]
    for number, points in enumerate(thinned.values()):
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in points)
        parts.append(f'<polyline fill="none" stroke="{_colour(number)}" stroke-width="1.5" points="{path}"/>')
    return Chart(drawing="".join(parts), names=list(thinned), what=f"{y} by {x}")


def scatter(
    series: Mapping[str, Sequence[Point]], *, x: str, y: str, beyond: str = "", level: tuple[str, float] | None = None
) -> Chart | None:
    """Points with their intervals, a colour per name, on a logarithmic axis; `level` is a line to compare them with.

    Points without x stand at the right end under the word `beyond`.
    """
    flat = [point for points in series.values() for point in points]
    if not flat:
        return None
    ys = [v for p in flat for v in (p.y, p.low, p.high) if v is not None] + ([level[1]] if level else [])
    frame = _Frame.around([math.log10(p.x) for p in flat if p.x], ys, beyond=beyond)
    parts = [frame.axes(x, y, values={math.log10(p.x): f"{p.x:.3g}" for p in flat if p.x})]
    if level:
        parts.append(_level(frame, *level))
    for number, points in enumerate(series.values()):
        aside = SIDE * number  # or two series with one epsilon would hide each other
        at = [(aside + (frame.beyond_x if p.x is None else frame.x(math.log10(p.x))), p) for p in points]
        path = " ".join(f"{a:.1f},{frame.y(p.y):.1f}" for a, p in sorted(at, key=lambda one: one[0]))
        if len(at) > 1:
            line = f'fill="none" stroke="{_colour(number)}" stroke-width="1" stroke-dasharray="2 3"'
            parts.append(f'<polyline {line} points="{path}"/>')
        parts += [_mark(frame, a, p, _colour(number)) for a, p in at]
    return Chart(drawing="".join(parts), names=list(series), what=f"{y} by {x}")


def _mark(frame: "_Frame", a: float, p: Point, colour: str) -> str:
    interval = ""
    if p.low is not None and p.high is not None:
        ends = f'y1="{frame.y(p.low):.1f}" y2="{frame.y(p.high):.1f}"'
        interval = f'<line x1="{a:.1f}" x2="{a:.1f}" {ends} stroke="{colour}" stroke-width="1.5"/>'
    name = f"<title>{escape(p.name)}: {p.y:.3g}</title>"
    return f'{interval}<circle cx="{a:.1f}" cy="{frame.y(p.y):.1f}" r="4.5" fill="{colour}">{name}</circle>'


def _level(frame: "_Frame", name: str, value: float) -> str:
    at = frame.y(value)
    line = f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
    return f'{line}<text x="{LEFT + 4}" y="{at - 4:.1f}">{escape(name)} {value:.3g}</text>'


@dataclass(frozen=True, kw_only=True)
class _Frame:
    xs: tuple[float, float]
    ys: tuple[float, float]
    beyond: str = ""

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float], *, beyond: str = "") -> "_Frame":
        return cls(xs=_room(xs or [0.0]), ys=_room(ys), beyond=beyond)

    @property
    def right(self) -> float:
        return WIDTH - RIGHT - (BEYOND if self.beyond else 0)

    @property
    def beyond_x(self) -> float:
        return WIDTH - RIGHT - BEYOND / 2

    def x(self, value: float) -> float:
        return LEFT + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (self.right - LEFT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x: str, y: str, *, values: Mapping[float, str] | None = None) -> str:
        """Ticks at round numbers, or along x at the given places alone."""
        parts = []
        for value in _ticks(self.ys):
            at = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
        given = {value: f"{value:g}" for value in _ticks(self.xs)} if values is None else values
        marks = [(self.x(value), text) for value, text in sorted(given.items())]
        marks = _apart(marks) + ([(self.beyond_x, self.beyond)] if self.beyond else [])
        for at, text in marks:
            parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{escape(text)}</text>')
        middle, floor = (LEFT + self.right) / 2, HEIGHT - BOTTOM
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
        turned = f'transform="rotate(-90 14 {HEIGHT / 2 - 10})"'
        parts.append(f'<text x="14" y="{HEIGHT / 2 - 10}" text-anchor="middle" {turned}>{escape(y)}</text>')
        return "".join(parts)


def _apart(marks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Without those that would be written over another."""
    kept: list[tuple[float, str]] = []
    for at, text in marks:
        if not kept or at - kept[-1][0] >= NARROWEST:
            kept.append((at, text))
    return kept


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _room(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    gap = (high - low) * 0.06 or max(abs(high) * 0.1, 0.1)
    return low - gap, high + gap


def _ticks(ends: tuple[float, float]) -> list[float]:
    raw = (ends[1] - ends[0]) / 5
    step = 10 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= raw)
    first = math.ceil(ends[0] / step)
    return [round(i * step, 10) for i in range(first, math.floor(ends[1] / step) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    step = max(1, len(points) // MOST_POINTS)
    return list(points[::step])
