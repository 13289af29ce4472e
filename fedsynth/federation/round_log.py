"""`rounds.csv` of a federated run: a row per round and site, who was left out and why."""

import csv
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError
from fedsynth.federation.messages import Reply
from fedsynth.training.loss_log import COLUMNS, csv_text

NOTE = "note"


@dataclass(frozen=True, kw_only=True)
class LogMark:
    """How much of the list of rows belongs to a checkpoint, and the SHA-256 of that much."""

    bytes: int = 0
    sha256: str = ""


class RoundLog:
    """The table, a row added after every round, and beside the checkpoints the list of rows that it is made from.

    A resumed run goes on from `kept`, the mark in its checkpoint (a whole table in those of earlier versions). Private
    runs are not `timed`: a step takes longer the more patients were drawn. `spent` tells the epsilon of a number of
    charged steps at a site, where there is one. Not `synced`: see `atomic_files.write_bytes`.
    """

    def __init__(
        self,
        path: Path,
        rows: Path,
        *,
        kept: LogMark | str,
        timed: bool,
        spent: Callable[[str, float], float] = lambda site, steps: math.nan,
        synced: bool = True,
    ) -> None:
        self._path, self._rows, self._timed, self._spent, self._synced = path, rows, timed, spent, synced
        lines = _lines(_parse(kept)) if isinstance(kept, str) else self._kept_lines(kept)
        self._mark, self._bytes, self._pending = hashlib.sha256(lines), len(lines), b""
        self._columns = _columns(_rows(lines))
        self._follows = False  # whether the table is known to be what the list says
        self._charged = {row["site"]: float(row["charged"]) for row in _rows(lines) if row.get("charged")}
        if isinstance(kept, str) or self._written() != lines:
            atomic_files.write_bytes(self._rows, lines)

    def keep(self) -> LogMark:
        """Rows that were added since are on the disk; the mark for a checkpoint."""
        if self._pending:
            atomic_files.append(self._rows, self._pending.decode(), synced=self._synced)
            self._mark.update(self._pending)
            self._bytes, self._pending = self._bytes + len(self._pending), b""
        return LogMark(bytes=self._bytes, sha256=self._mark.hexdigest())

    def restore(self) -> bool:
        """Write the kept table where the file lacks any of it or goes on beyond it. True where rows were lacking."""
        there: list[dict[str, str]] = []
        with suppress(FedSynthError):
            there = [_filled(row) for row in read_rounds(self._path)]
        kept = _rows(self._written())
        table = csv_text(self._columns, kept)
        if not self._path.exists() or self._path.read_bytes() != table.encode():  # also where only its end is cut
            atomic_files.write_text(self._path, table)
        self._follows = True
        return there[: len(kept)] != kept

    def rounds_written(self) -> int:
        """The last round in the file, whatever was kept."""
        return max((int(row["round"]) for row in read_rounds(self._path)), default=0)

    def charged(self) -> dict[str, float]:
        """Private steps by site, as the last row of each has them."""
        return dict(self._charged)

    def add(self, number: int, replies: Sequence[Reply], *, note: str = "") -> None:
        """One round's rows, with a note on each of them, added to the table."""
        rows = []
        for reply in replies:
            notes = "; ".join(filter(None, (note, reply.note)))
            rows.append(_filled(self._row(number, reply) | {NOTE: notes}))
        self._pending += _lines(rows)
        columns = _columns([dict.fromkeys(self._columns, ""), *rows])
        if columns == self._columns and self._follows and self._path.exists():
            atomic_files.append(self._path, csv_text(columns, rows, header=False), synced=False)
            return
        self._columns, self._follows = columns, True
        whole = _rows(self._written() + self._pending)
        atomic_files.write_text(self._path, csv_text(columns, whole), synced=False)  # can be made again from the list

    def _written(self) -> bytes:
        return self._rows.read_bytes() if self._rows.exists() else b""

    def _kept_lines(self, mark: LogMark) -> bytes:
        """The list up to the mark; where it is damaged, made again from the table."""
        lists: tuple[Callable[[], bytes], ...] = (self._rows.read_bytes, lambda: _lines(read_rounds(self._path)))
        for read in lists if mark.bytes else ():
            with suppress(OSError, FedSynthError):
                lines = read()[: mark.bytes]
                if hashlib.sha256(lines).hexdigest() == mark.sha256:
                    return lines
        if not mark.bytes:
            return b""
        problem = "the round log is damaged, and so is the list that it is made from"
        remedy = f"put {self._rows} or {self._path} back from a backup, or start a new run"
        raise FedSynthError(problem, file=self._path, remedy=remedy)

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
    rows = [row for path in paths for row in read_rounds(path)]
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


def read_rounds(path: Path) -> list[dict[str, str]]:
    """The rows of a table, none where there is none. A last one without its end is being written, or was cut off."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        rows = _parse(text[: text.rfind("\n") + 1])
        whole = all(None not in row and None not in row.values() and int(row["round"]) > 0 for row in rows)
    except (csv.Error, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        problem, remedy = "the round log is damaged", "put it back from a backup, or start a new run"
        raise FedSynthError(problem, file=path, remedy=remedy)
    return rows


def _parse(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def _columns(rows: Iterable[Mapping[str, str]]) -> list[str]:
    losses = sorted({key for row in rows for key in row} - {*COLUMNS, NOTE})
    return [*COLUMNS, NOTE, *losses]


def _lines(rows: Iterable[Mapping[str, str]]) -> bytes:
    """One JSON object a line, in one spelling: the same rows are the same bytes."""
    return b"".join(json.dumps(_filled(row), sort_keys=True).encode() + b"\n" for row in rows)


def _rows(lines: bytes) -> list[dict[str, str]]:
    return [json.loads(line) for line in lines.splitlines()]


def _filled(row: Mapping[str, str]) -> dict[str, str]:
    """A row without its empty cells: a table gets columns when a site first tells a number."""
    return {name: value for name, value in row.items() if value}
