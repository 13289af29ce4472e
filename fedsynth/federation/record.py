"""`rounds.csv` of a federated run: a row per round and site, who was left out and why."""

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedsynth import files
from fedsynth.federation.messages import Reply
from fedsynth.training.record import COLUMNS


class RoundRecord:
    """The table, written whole after every round. What a killed run wrote beyond its checkpoint is cut off.

    Private runs are not `timed`: a step takes longer the more patients were drawn. `spent` tells the epsilon of a
    number of charged steps at a site, where there is one.
    """

    def __init__(
        self,
        path: Path,
        *,
        rounds: int,
        timed: bool,
        spent: Callable[[str, float], float] = lambda site, steps: math.nan,
    ) -> None:
        self._path, self._timed, self._spent = path, timed, spent
        self._rows = [row for row in _read(path) if int(row["round"]) <= rounds]

    def add(self, number: int, replies: Sequence[Reply]) -> None:
        """One round's rows, and the whole table to disk."""
        self._rows += [self._row(number, reply) for reply in replies]
        losses = sorted({key for row in self._rows for key in row} - set(COLUMNS))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*COLUMNS, *losses], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        files.write_text(self._path, text.getvalue())

    def _row(self, number: int, reply: Reply) -> dict[str, str]:
        metrics = reply.outcome.metrics
        answered = reply.reason is None
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
        } | {name: _number(value) for name, value in metrics.items() if name.endswith("_loss")}


def summary(path: Path) -> dict[str, Any]:
    """The whole table in a few numbers: how often asked and answered, who was left out and why, bytes, epsilon."""
    rows = _read(path)
    missing = Counter((row["site"], row["reason"]) for row in rows if row["answered"] != "true")
    size = sum(int(row["bytes_up"] or 0) + int(row["bytes_down"] or 0) for row in rows)
    return {
        "asked": len(rows),
        "answered": sum(row["answered"] == "true" for row in rows),
        "left_out": [{"site": site, "reason": why, "rounds": n} for (site, why), n in sorted(missing.items())],
        "bytes": size,
        "bytes_per_site_round": size / max(1, len(rows)),
        "epsilon": {row["site"]: float(row["epsilon"]) for row in rows if row["epsilon"]},
    }


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
