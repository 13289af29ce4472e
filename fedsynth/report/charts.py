"""Figures as plain SVG: axes with units, intervals where there are any, colours that print and that differ in grey."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0b6e99", "#c8553d", "#588157", "#8a5a9e", "#b08900", "#444444")
WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 14, 44
MOST_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Point:
    """A place with its interval along y, and what it is called."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> str:
    """A line per name."""
    thinned = {name: _thinned([p for p in points if math.isfinite(p[1])]) for name, points in series.items()}
    thinned = {name: points for name, points in thinned.items() if points}
    if not thinned:
        return ""
    flat = [point for points in thinned.values() for point in points]
    frame = _Frame.around([p[0] for p in flat], [p[1] for p in flat])
    parts = [frame.axes(x, y)]
    for number, points in enumerate(thinned.values()):
        path = " ".join(f"{frame.x(a):.1f},{frame.y(b):.1f}" for a, b in points)
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>')
    return _figure(parts, list(thinned), f"{y} by {x}")


def scatter(points: Sequence[Point], *, x: str, y: str) -> str:
    """Points with their intervals and names: the frontier."""
    if not points:
        return ""
    ys = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    frame = _Frame.around([p.x for p in points], ys)
    parts = [frame.axes(x, y)]
    for number, p in enumerate(points):
        colour, a, b = COLOURS[number % len(COLOURS)], frame.x(p.x), frame.y(p.y)
        if p.low is not None and p.high is not None:
            ends = f'y1="{frame.y(p.low):.1f}" y2="{frame.y(p.high):.1f}"'
            parts.append(f'<line x1="{a:.1f}" x2="{a:.1f}" {ends} stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" fill="{colour}"/>')
    return _figure(parts, [p.name for p in points], f"{y} by {x}")


@dataclass(frozen=True, kw_only=True)
class _Frame:
    xs: tuple[float, float]
    ys: tuple[float, float]

    @classmethod
    def around(cls, xs: Sequence[float], ys: Sequence[float]) -> "_Frame":
        return cls(xs=_room(xs), ys=_room(ys))

    def x(self, value: float) -> float:
        return LEFT + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (HEIGHT - TOP - BOTTOM)

    def axes(self, x: str, y: str) -> str:
        parts = []
        for value in _ticks(self.ys):
            at = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in _ticks(self.xs):
            at = self.x(value)
            parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
        middle, floor = (LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM
        parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
        parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>')
        turned = f'transform="rotate(-90 14 {HEIGHT / 2 - 10})"'
        parts.append(f'<text x="14" y="{HEIGHT / 2 - 10}" text-anchor="middle" {turned}>{escape(y)}</text>')
        return "".join(parts)


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


def _figure(parts: Sequence[str], names: Sequence[str], what: str) -> str:
    keys = "".join(
        f'<li><span style="background:{COLOURS[i % len(COLOURS)]}"></span>{escape(name)}</li>'
        for i, name in enumerate(names)
    )
    drawing = "".join(parts)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)}">{drawing}</svg>'
        f'<ul class="key">{keys}</ul></figure>'
    )
