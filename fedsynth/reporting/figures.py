"""Figures by matplotlib: axes with units, intervals where there are any, colours that print and that differ in grey.

The same numbers give the same bytes. Nothing here reads a file or knows what a number means.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from fedsynth.privacy.accounting import rounded_up

COLOURS = ("#0b6e99", "#c8553d", "#588157", "#8a5a9e", "#b08900", "#444444")
BAND = "#dce1ea"
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6eaed",
    "legend.frameon": False,
    "svg.fonttype": "none",  # texts stay texts, for screen readers and searches
    "text.parse_math": False,  # names are shown as they are
}
SIZE = (5.4, 3.2)  # inches
BAND_POINTS = 300
FOREST_WIDTH, FOREST_LINE = 4.7, 0.2
"""Inches: narrow enough that its words can be read on a phone."""
MOST_SHOWN = 2.0
"""Shares beyond are cut, with an arrow: they come from small denominators."""
BEYOND = ">"
"""The marker of what goes on beyond the right end of the axis."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value with its interval, and what it is called. Without `x` it stands beyond the end of the axis."""

    x: float | None
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with its interval; all of one `series` share colour and marker."""

    value: float
    low: float | None = None
    high: float | None = None
    series: str = ""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One place of a forest plot: what it is called, what stands at the right and below the name, its estimates."""

    name: str
    aside: str = ""
    note: str = ""
    estimates: Sequence[Estimate] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing as SVG, and what it shows."""

    svg: str
    what: str

    def figure(self) -> str:
        """For a page."""
        label = f'<svg role="img" aria-label="{escape(self.what)}" '
        nameless = re.sub(r'<g id="[^"]*">', "<g>", self.svg[self.svg.index("<svg") :])  # one page has several charts
        return nameless.replace("<svg ", label, 1)

    def file(self) -> str:
        """A whole file."""
        return self.svg


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> Chart | None:
    """A line per name; nothing where there is no number."""
    finite = {name: [p for p in points if math.isfinite(p[1])] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    with _axes(x, y) as axes:
        for name, points in finite.items():
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.5)
    return _chart(axes, f"{y} by {x}")


def scatter(
    series: Mapping[str, Sequence[Point]], *, x: str, y: str, beyond: str = "", level: tuple[str, float] | None = None
) -> Chart | None:
    """Points with their intervals on a logarithmic axis; `level` is a line to compare them with.

    Points without x stand at the right end under the word `beyond`.
    """
    flat = [point for points in series.values() for point in points]
    if not flat:
        return None
    known = sorted({point.x for point in flat if point.x})
    end = 4 * known[-1] if known else 1.0
    with _axes(x, y) as axes:
        axes.set_xscale("log")
        for number, (name, points) in enumerate(series.items()):
            aside = 1.02**number  # or two series with one epsilon would hide each other
            ordered = sorted(points, key=lambda point: end if point.x is None else point.x)
            at = [aside * (end if point.x is None else point.x) for point in ordered]
            axes.plot(at, [point.y for point in ordered], "o:", markersize=5, linewidth=1, label=name)
            for place, point in zip(at, ordered, strict=True):
                _interval(axes, place, point, COLOURS[number % len(COLOURS)])
        if level:
            axes.axhline(level[1], color="#5c676e", linestyle="--", linewidth=1)
            axes.annotate(
                f"{level[0]} {level[1]:.3g}", (0.01, level[1]), xycoords=("axes fraction", "data"), va="bottom"
            )
        marks = {**{value: f"{rounded_up(value, 3):g}" for value in known}, **({end: beyond} if beyond else {})}
        axes.set_xticks(list(marks), list(marks.values()))
        axes.minorticks_off()
    return _chart(axes, f"{y} by {x}")


def forest(
    slots: Sequence[Slot],
    *,
    x: str,
    marks: Mapping[str, tuple[str, str]],
    levels: Sequence[tuple[str, float]] = (),
    legend: bool = False,
) -> Chart | None:
    """A forest plot of shares: a slot below the other, each with its words and its intervals below them.

    `marks` are marker and colour by series; `levels` are lines to compare with, named in the legend below, as are the
    series with `legend`.
    """
    drawn = [slot for slot in slots if slot.estimates]
    if not drawn:
        return None
    heights = [FOREST_LINE * (1 + bool(slot.note) + len(slot.estimates) + 0.4) for slot in drawn]
    below = len(levels) + len(marks) * legend
    with matplotlib.rc_context({**STYLE, "font.size": 10, "axes.grid.axis": "x", "axes.spines.left": False}):
        size = (FOREST_WIDTH, sum(heights) + FOREST_LINE * (below + 3.2))
        axes = Figure(figsize=size, layout="constrained").add_subplot()
        top = 0.0
        for slot, height in zip(drawn, heights, strict=True):
            _slot(axes, slot, top, marks)
            top += height
        for number, (name, value) in enumerate(levels):
            style = ("-", "--", ":", "-.")[number % 4]
            axes.axvline(value, color="#4a565e", linestyle=style, linewidth=1.2, zorder=1, label=name)
        for name, (marker, colour) in marks.items() if legend else ():
            axes.plot([], [], marker, color=colour, label=name)
        ends = [e.value if e.high is None else e.high for slot in drawn for e in slot.estimates] + [
            value for _, value in levels
        ]
        most = 1.04 * min(max(ends), MOST_SHOWN)
        axes.set(xlabel=x, xlim=(0, most or 1.0), ylim=(top, 0), yticks=[])
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        if below:
            _figure(axes).legend(loc="outside upper left", fontsize=9, borderaxespad=0.2)
        said = "; ".join(" ".join(filter(None, (slot.name, slot.aside, slot.note))) for slot in drawn)
        return _chart(axes, f"{x}. {said}. Lines: {', '.join(name for name, _ in levels) or 'none'}")


def _slot(axes: Axes, slot: Slot, top: float, marks: Mapping[str, tuple[str, str]]) -> None:
    across = axes.get_yaxis_transform()
    white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # words stay readable where a line crosses them
    for text, place, align in ((slot.name, 0.0, "left"), (slot.aside, 1.0, "right")):
        weight = "bold" if align == "left" else "normal"
        axes.text(place, top, text, transform=across, ha=align, va="top", weight=weight, bbox=white, zorder=3)
    if slot.note:
        axes.text(0, top + FOREST_LINE, slot.note, transform=across, va="top", fontsize=9, color="#4a565e", bbox=white)
    for number, one in enumerate(slot.estimates):
        marker, colour = marks[one.series]
        at = top + FOREST_LINE * (1.5 + bool(slot.note) + number)
        if one.low is not None and one.high is not None:
            axes.plot([one.low, one.high], [at, at], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
        axes.plot(
            [one.value],
            [at],
            marker,
            color=colour,
            markersize=8,
            markeredgecolor="white",
            zorder=3,
            clip_on=one.value > MOST_SHOWN,
        )
        if max(one.value, one.high or 0.0) > MOST_SHOWN:
            axes.plot([1], [at], BEYOND, color=colour, markersize=8, transform=across, clip_on=False, zorder=4)


def roc(
    lines: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    n_members: int,
    n_holdout: int,
    resolved: float,
    title: str,
) -> bytes:
    """ROC curves as PNG: false- and true-positive rates, the former on a logarithmic axis, where harm to a few shows.

    The band is what 95 % of random scores reach: the members above the (k + 1)-th holdout patient are beta-binomially
    many. Left of the dotted line, at the rate `resolved`, there are too few holdout patients to tell.
    """
    lowest = 10.0 ** -max(1, math.ceil(math.log10(max(2, n_holdout))))
    with _axes("false-positive rate", "true-positive rate") as axes:
        k = np.unique(np.geomspace(1, n_holdout, BAND_POINTS).round().astype(int)) - 1
        low, high = (
            stats.betabinom.ppf(share, n_members, k + 1, n_holdout - k) / n_members for share in (0.025, 0.975)
        )
        rates = np.maximum(k / n_holdout, lowest)
        axes.fill_between([*rates, 1], [*low, 1], [*high, 1], color=BAND, step="post", label="95 % of guessing")
        axes.axvline(min(1.0, resolved), color="#5c676e", linestyle=":", linewidth=1)
        for name, (false, true) in lines.items():
            axes.step(np.maximum(false, lowest), true, where="post", label=name, linewidth=1.5)
        axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.01), title=title)
        axes.xaxis.set_major_formatter("{x:g}")
    return _png(axes)


def _interval(axes: Axes, place: float, point: Point, colour: str) -> None:
    if point.low is not None and point.high is not None:
        axes.plot([place, place], [point.low, point.high], color=colour, linewidth=1.5)
    axes.annotate(point.name, (place, point.y), xytext=(5, 3), textcoords="offset points", fontsize=7)


@contextmanager
def _axes(x: str, y: str) -> Iterator[Axes]:
    with matplotlib.rc_context(STYLE):
        axes = Figure(figsize=SIZE, layout="constrained").add_subplot()
        axes.set(xlabel=x, ylabel=y)
        yield axes
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def _chart(axes: Axes, what: str) -> Chart:
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": what}):
        _figure(axes).savefig(buffer, format="svg", metadata={"Date": None})
    return Chart(svg=re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue(), flags=re.DOTALL), what=what)


def _png(axes: Axes) -> bytes:
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        _figure(axes).savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def _figure(axes: Axes) -> Any:
    return axes.figure
