"""The study's lines as tables to read: how often honest output rejects, how often leaks do, and what comparators
say.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from fedsynth.evaluation.bootstrap import clopper_pearson

Line = dict[str, str]
Column = tuple[str, Callable[[list[Line]], str]]


def markdown(lines: Sequence[Line]) -> str:
    """All tables of all parts."""
    parts = list(dict.fromkeys(line["part"] for line in lines))
    return "\n".join(text for part in parts for text in _part([line for line in lines if line["part"] == part], part))


def of_altered(lines: Sequence[Line]) -> str:
    """Per way to alter: how many copies, and sets with one per cent of them, were found before and now."""
    copied = [line for line in lines if not line["scenario"].startswith("honest")]
    honest = [line for line in lines if line["scenario"].startswith("honest")]
    head = ["copies of members", "one copy, before", "one copy, now", "sets with 1 %, before", "sets with 1 %, now"]
    rows = []
    for name in _scenarios(copied):
        one, sets = [], []
        for when in ("before", "now"):
            of = [line for line in copied if (line["scenario"], line["spaces"]) == (name, when)]
            one.append(f"{_total(of, 'found') / _total(of, 'images'):.2f}")
            sets.append(f"{_total(of, 'sets_found')} of {_total(of, 'sets')}")
        rows.append([name, *one, *sets])
    false_head = ["honest output", "sets", "with a copy, before", "with a copy, now", "images called copies, now"]
    false_rows = []
    for name in [*_scenarios(honest), "**all honest**"]:
        of = {
            when: [x for x in honest if x["spaces"] == when and name in (x["scenario"], "**all honest**")]
            for when in ("before", "now")
        }
        sets = [str(_total(of[when], "sets_found")) for when in of]
        false_rows.append([name, str(_total(of["now"], "sets")), *sets, str(_total(of["now"], "wrong"))])
    return "\n".join([*_plain_table(head, rows), "", *_plain_table(false_head, false_rows)])


def of_procedure(lines: Sequence[Line]) -> str:
    """The verdicts of the whole benchmark on honest output."""
    words = ("pass", "inconclusive", "depends", "leak", "invalid")
    rows = []
    for name in [*_scenarios(list(lines)), "**all honest**"]:
        of = [line for line in lines if name in (line["scenario"], "**all honest**")]
        counts = [str(sum(line["verdict"] == word for line in of)) for word in words]
        broken = str(sum(line["broken"] != "0" for line in of))
        rows.append([name, str(len(of)), *counts, broken])
    return "\n".join(_plain_table(["scenario", "runs", *words, "runs with a broken control"], rows))


def of_single(lines: Sequence[Line]) -> str:
    """Single-image sets: how often each output is rejected, and how many of the copies are found one by one."""
    if not lines:
        return ""
    honest = [line for line in lines if line["scenario"].startswith("honest")]
    leaks = [line for line in lines if not line["scenario"].startswith("honest")]
    one = ("one copy", lambda of: f"{_total(of, 'right') / _total(of, 'leaked'):.2f}")
    return "\n".join([*_table(honest, HONEST, total="all honest"), "", *_table(leaks, (*LEAKS, one))])


def _plain_table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _total(lines: Sequence[Line], column: str) -> int:
    return sum(int(line[column]) for line in lines)


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


def _rejects(line: Line) -> bool:
    return line["verdict"] in ("leak", "depends")


def _nearer(line: Line) -> bool:
    """The binomial test that users hold on the share of images nearer to members, images taken for independent."""
    share, n = float(line["closer_to_members"]), 700
    return bool(stats.binom.sf(round(share * n) - 1, n, 0.7 if "70 %" in line["scenario"] else 0.5) <= 0.05)


HONEST: Sequence[Column] = (
    ("rejects (leak or depends)", _share(_rejects)),
    ("dependence rejects", _share(lambda line: line["dependence"] == "1")),
    ("copies of members", _share(lambda line: line["copied"] != "0")),
    ("invalid: copies of holdout only", _share(lambda line: line["verdict"] == "invalid")),
    ("a patient is listed", _share(lambda line: line["listed"] != "0")),
)
LEAKS: Sequence[Column] = (
    ("found (leak or depends)", _share(_rejects)),
    ("verdict leak", _share(lambda line: line["verdict"] == "leak")),
    ("dependence rejects", _share(lambda line: line["dependence"] == "1")),
    ("images called copies", _mean("copied")),
    ("patients listed", _mean("listed")),
    ("false ones among them", _false_discoveries),
)
COMPARED: Sequence[Column] = (
    ("rejects", _plain_share(_rejects)),
    ("authenticity", _mean("authenticity")),
    ("C_T", _mean("c_t")),
    ("C_T < -1.64", _plain_share(lambda line: float(line["c_t"]) < -1.6449)),
    ("nearer to members", _mean("closer_to_members")),
    ("binomial test of that, p <= .05", _plain_share(_nearer)),
    ("extracted (adaptive rule)", _mean("adaptive_extraction")),
)
