"""`rounds.csv` of a federated run: a row per round and site, who was left out and why."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedsynth import atomic_files
from fedsynth.federation.messages import Reply
from fedsynth.training.loss_log import COLUMNS

NOTE = "note"


class RoundLog:
    """The table, written whole after every round. A resumed run goes on from `kept`, the table in its checkpoint.

    Private runs are not `timed`: a step takes longer the more patients were drawn. `spent` tells the epsilon of a
    number of charged steps at a site, where there is one.
    """

    def __init__(
        self,
        path: Path,
        *,
        kept: str = "",
        timed: bool,
        spent: Callable[[str, float], float] = lambda site, steps: math.nan,
    ) -> None:
        self._path, self._timed, self._spent = path, timed, spent
        self._rows = _parse(kept)

    @property
    def text(self) -> str:
        """The whole table."""
        losses = sorted({key for row in self._rows for key in row} - {*COLUMNS, NOTE})
        text = io.StringIO()
        writer = csv.DictWriter(text, [*COLUMNS, NOTE, *losses], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        return text.getvalue()

    def restore(self) -> bool:
        """Write the kept table where the file lacks any of it or goes on beyond it. True where rows were lacking."""
        there = [_filled(row) for row in _read(self._path)]
        kept = [_filled(row) for row in self._rows]
        if there != kept:
            atomic_files.write_text(self._path, self.text)
        return there[: len(kept)] != kept

    def rounds_written(self) -> int:
        """The last round in the file, whatever was kept."""
        return max((int(row["round"]) for row in _read(self._path)), default=0)

    def charged(self) -> dict[str, float]:
        """Private steps by site, as the last row of each has them."""
        return {row["site"]: float(row["charged"]) for row in self._rows if row.get("charged")}

    def add(self, number: int, replies: Sequence[Reply], *, note: str = "") -> None:
        """One round's rows, with a note on each of them, and the whole table to disk."""
        for reply in replies:
            notes = "; ".join(filter(None, (note, reply.note)))
            self._rows.append(self._row(number, reply) | {NOTE: notes})
        atomic_files.write_text(self._path, self.text)

    def _row(self, number: int, reply: Reply) -> dict[str, str]:
        metrics = reply.outcome.metrics
        answered = reply.reason is None
        charged = {"charged": str(int(metrics["charged"]))} if "charged" in metrics else {}
        return {
            "round": str(number),
            "site": reply.site,
            "answered": "true" if answered else "false",
            "reason": "" if reply.reason is None else reply.reason.value,
            "seconds": f"{reply.seconds:.3f}" if self._timed and answered else "",
            "bytes_up": str(reply.bytes_up),
            "bytes_down": str(reply.bytes_down),
            "steps": str(int(metrics["steps"])) if "steps" in metrics else "",
            "epsilon": _number(self._spent(reply.site, metrics["charged"])) if "charged" in metrics else "",
            **charged,
        } | {name: _number(value) for name, value in metrics.items() if name.endswith("_loss")}


def merged(replies: Sequence[Reply]) -> list[Reply]:
    """A row for each site from all its replies of a round: what it sent last, mean losses, sums of the rest."""
    names = sorted({reply.site for reply in replies})
    return [_merged([reply for reply in replies if reply.site == name]) for name in names]


def _merged(replies: Sequence[Reply]) -> Reply:
    if len(replies) == 1:
        return replies[0]
    told = [reply.outcome.metrics for reply in replies if reply.reason is None]
    metrics = dict(told[-1]) if told else {}
    for name in metrics:
        values = [one[name] for one in told if name in one and math.isfinite(one[name])]
        if name.endswith("_loss") and values:
            metrics[name] = math.fsum(values) / len(values)
        elif name == "steps":
            metrics[name] = math.fsum(values)
    charged = [reply.outcome.metrics["charged"] for reply in replies if "charged" in reply.outcome.metrics]
    return replace(
        replies[-1],
        outcome=replace(replies[-1].outcome, metrics=metrics | ({"charged": charged[-1]} if charged else {})),
        reason=next((reply.reason for reply in reversed(replies) if reply.reason is not None), None),
        note="; ".join(dict.fromkeys(reply.note for reply in replies if reply.note)),
        seconds=math.fsum(reply.seconds for reply in replies),
        bytes_up=sum(reply.bytes_up for reply in replies),
        bytes_down=sum(reply.bytes_down for reply in replies),
    )


def summary(paths: Iterable[Path]) -> dict[str, Any]:
    """Whole tables in a few numbers: how often asked and answered, who was left out and why, bytes, epsilon.

    A site that refused when it was greeted counts as asked and left out in every round.
    """
    rows = [row for path in paths for row in _read(path)]
    missing = Counter((row["site"], row["reason"]) for row in rows if row["answered"] != "true")
    sizes = [int(row["bytes_up"] or 0) + int(row["bytes_down"] or 0) for row in rows]
    size = sum(sizes)
    return {
        "asked": len(rows),
        "answered": sum(row["answered"] == "true" for row in rows),
        "left_out": [{"site": site, "reason": why, "rounds": n} for (site, why), n in sorted(missing.items())],
        "bytes": size,
        "bytes_per_site_round": size / max(1, sum(sent > 0 for sent in sizes)),
        "trained": sorted({row["site"] for row in rows if row["answered"] == "true"}),
        "epsilon": {row["site"]: float(row["epsilon"]) for row in rows if row["epsilon"]},
    }


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _read(path: Path) -> list[dict[str, str]]:
    return _parse(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []


def _parse(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def _filled(row: dict[str, str]) -> dict[str, str]:
    """A row without its empty cells: a table gets columns when a site first tells a number."""
    return {name: value for name, value in row.items() if value}
