"""The study's lines as tables to read: how often honest output fires, how often leaks do, and what comparators say."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from fedsynth.benchmark.leakage.statistics.intervals import clopper_pearson

Line = dict[str, str]
Column = tuple[str, Callable[[list[Line]], str]]


def markdown(lines: Sequence[Line]) -> str:
    """All tables of all parts."""
    parts = list(dict.fromkeys(line["part"] for line in lines))
    return "\n".join(text for part in parts for text in _part([line for line in lines if line["part"] == part], part))


def _part(lines: list[Line], part: str) -> list[str]:
    honest = [line for line in lines if line["scenario"].startswith("honest")]
    leaks = [line for line in lines if not line["scenario"].startswith("honest")]
    return [
        f"\n### Honest output, {part}\n",
        *_table(honest, HONEST, total="all honest"),
        f"\n### Leaks, {part}\n",
        *_table(leaks, LEAKS),
        f"\n### The comparators on the same sets, {part}\n",
        *_table([line for line in lines if line["c_t"]], COMPARED),
    ]


def _table(lines: list[Line], columns: Sequence[Column], total: str = "") -> list[str]:
    rows = [(name, [line for line in lines if line["scenario"] == name]) for name in _scenarios(lines)]
    if total and len(rows) > 1:
        rows.append((f"**{total}**", lines))
    head = ["scenario", "sets", *(name for name, _ in columns)]
    body = [[name, str(len(of)), *(tell(of) for _, tell in columns)] for name, of in rows]
    return [_row(head), _row(["---"] * len(head)), *map(_row, body)]


def _scenarios(lines: list[Line]) -> list[str]:
    return list(dict.fromkeys(line["scenario"] for line in lines))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(true: Callable[[Line], bool]) -> Callable[[list[Line]], str]:
    def tell(lines: list[Line]) -> str:
        hits = sum(map(true, lines))
        low, high = clopper_pearson(hits, len(lines))
        return f"{100 * hits / len(lines):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"

    return tell


def _plain_share(true: Callable[[Line], bool]) -> Callable[[list[Line]], str]:
    return lambda lines: f"{100 * sum(map(true, lines)) / len(lines):.0f} %"


def _mean(key: str) -> Callable[[list[Line]], str]:
    def tell(lines: list[Line]) -> str:
        values = [float(line[key]) for line in lines if line[key]]
        return f"{np.mean(values):.3g}" if values else ""

    return tell


def _false_discoveries(lines: list[Line]) -> str:
    shares = [int(line["false"]) / max(1, int(line["listed"])) for line in lines]
    error = np.std(shares) / np.sqrt(len(shares))
    return f"{100 * np.mean(shares):.1f} % ± {100 * error:.1f}"


def _fires(line: Line) -> bool:
    return line["verdict"] in ("leak", "depends")


def _nearer(line: Line) -> bool:
    """The binomial test that users hold on the share of images nearer to members, images taken for independent."""
    share, n = float(line["closer_to_members"]), 700
    return bool(stats.binom.sf(round(share * n) - 1, n, 0.7 if "70 %" in line["scenario"] else 0.5) <= 0.05)


HONEST: Sequence[Column] = (
    ("fires (leak or depends)", _share(_fires)),
    ("dependence fires", _share(lambda line: line["dependence"] == "1")),
    ("copies of members", _share(lambda line: line["copied"] != "0")),
    ("invalid: copies of holdout only", _share(lambda line: line["verdict"] == "invalid")),
    ("a patient is listed", _share(lambda line: line["listed"] != "0")),
)
LEAKS: Sequence[Column] = (
    ("found (leak or depends)", _share(_fires)),
    ("verdict leak", _share(lambda line: line["verdict"] == "leak")),
    ("dependence fires", _share(lambda line: line["dependence"] == "1")),
    ("images called copies", _mean("copied")),
    ("patients listed", _mean("listed")),
    ("false ones among them", _false_discoveries),
)
COMPARED: Sequence[Column] = (
    ("fires", _plain_share(_fires)),
    ("authenticity", _mean("authenticity")),
    ("C_T", _mean("c_t")),
    ("C_T < -1.64", _plain_share(lambda line: float(line["c_t"]) < -1.6449)),
    ("nearer to members", _mean("closer_to_members")),
    ("binomial test of that, p <= .05", _plain_share(_nearer)),
    ("extracted (adaptive rule)", _mean("adaptive_extraction")),
)
