"""The losses of a run as rows of `rounds.csv`: a mean per interval, so that a long run stays a short table."""

import csv
import io
import time
from collections import defaultdict
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.training.trainer import StepReport

INTERVAL = 25
COLUMNS = ("round", "site", "answered", "reason", "seconds", "bytes_up", "bytes_down", "steps", "epsilon")


class LossLog:
    """Collects step reports of one site and writes them, whole or not at all. Rows before step `first` are kept.

    Private runs are not `timed`: a step takes longer the more patients were drawn.
    """

    def __init__(self, path: Path, *, first: int = 0, site: str = "centralised", timed: bool = True) -> None:
        self._path, self._site, self._timed = path, site, timed
        self._rows = [row for row in _read(path) if int(row["steps"]) <= first]
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._last = first
        self._started = time.monotonic()

    def add(self, report: StepReport) -> None:
        """Take one step's losses; every `INTERVAL` steps become a row."""
        for net, loss in report.losses.items():
            self._sums[net].append(loss)
        self._last = report.step + 1
        if self._last % INTERVAL == 0:
            self._close_row()

    def save(self) -> None:
        """Write the table with what has been collected so far."""
        if self._sums:
            self._close_row()
        losses = sorted({key for row in self._rows for key in row} - set(COLUMNS))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*COLUMNS, *losses], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        atomic_files.write_text(self._path, text.getvalue())

    def _close_row(self) -> None:
        now = time.monotonic()
        row = dict.fromkeys(COLUMNS, "")
        number = str(len(self._rows) + 1)
        row |= {"round": number, "site": self._site, "answered": "true", "steps": str(self._last)}
        row |= {"seconds": f"{now - self._started:.3f}" if self._timed else ""}
        row |= {f"{net}_loss": f"{sum(values) / len(values):.6g}" for net, values in self._sums.items()}
        self._rows.append(row)
        self._sums.clear()
        self._started = now


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
