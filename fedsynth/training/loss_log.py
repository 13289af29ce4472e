"""The losses of a run as rows of `rounds.csv`: a mean per interval, so that a long run stays a short table."""

import csv
import io
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.training.trainer import StepReport

INTERVAL = 25
COLUMNS = ("round", "site", "answered", "reason", "seconds", "bytes_up", "bytes_down", "steps", "epsilon")


class LossLog:
    """Collects step reports of one site and keeps them as rows of a file. Rows before step `first` are kept.

    Private runs are not `timed`: a step takes longer the more patients were drawn. Rows are added to the file; it is
    written anew, in one step, where they do not follow what this object wrote last.
    """

    def __init__(
        self, path: Path, *, first: int = 0, site: str = "centralised", timed: bool = True, synced: bool = True
    ) -> None:
        self._path, self._site, self._timed, self._synced = path, site, timed, synced
        self._rows = _read(path)
        self._written: tuple[list[str], int, int] | None = None  # columns, rows and bytes of the file
        self.begin(first)

    def begin(self, first: int) -> None:
        """Go on at this step: what was written of later ones is done again."""
        kept = [row for row in self._rows if int(row["steps"]) <= first]
        self._written = self._written if len(kept) == len(self._rows) else None
        self._rows = kept
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
        """Write what has been collected so far."""
        if self._sums:
            self._close_row()
        columns = [*COLUMNS, *sorted({key for row in self._rows for key in row} - set(COLUMNS))]
        before, n_rows, size = self._written or ([], 0, -1)
        follows = before == columns and self._path.exists() and self._path.stat().st_size == size
        text = csv_text(columns, self._rows[n_rows:] if follows else self._rows, header=not follows)
        if follows:
            atomic_files.append(self._path, text, synced=self._synced)
        else:
            size = 0
            atomic_files.write_text(self._path, text, synced=self._synced)
        self._written = (columns, len(self._rows), size + len(text.encode()))

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


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, str]], *, header: bool = True) -> str:
    """Rows as CSV in these columns, with or without the first line; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of the file; a last line that a kill cut short is none."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
