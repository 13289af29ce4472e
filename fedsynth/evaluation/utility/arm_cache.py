"""Scores of arms that do not depend on the synthetic set, kept on disk: runs of one real set train them once.

A file holds scores of named holdout patients and never leaves the site. Its name is a digest of everything that the
scores follow from: the images and their roles, the settings, the seed and the code.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import fedsynth
from fedsynth import atomic_files


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """One training of an arm, scored: a table, the steps of each network, and how many collapsed.

    `repeated` trainings had collapsed and were repeated from another start; `collapsed` ones did so again.
    """

    table: pd.DataFrame
    steps: list[int] = field(default_factory=list)
    repeated: int = 0
    collapsed: int = 0


@dataclass(frozen=True, kw_only=True)
class ArmCache:
    """The folder of kept arms; without a `folder`, or where it cannot be written, nothing is kept."""

    folder: Path | None = None

    def get(self, facts: Mapping[str, Any], make: Callable[[], Trainings], *, wait: bool) -> Trainings | None:
        """What was kept for `facts`, or what `make` gives, kept from now on.

        Without `wait` None is given where another process is making it.
        """
        name = hashlib.sha256(json.dumps({**facts, "code": _code()}, sort_keys=True, default=str).encode()).hexdigest()
        if (handle := self._open(f"{name}.lock")) is None or self.folder is None:
            return make()
        path = self.folder / f"{name}.json"
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return None
            if (kept := _read(path)) is not None:
                return kept
            made = make()
            atomic_files.write_text(path, json.dumps(_as_json(made)))
            return made
        finally:
            os.close(handle)

    def _open(self, name: str) -> int | None:
        """The file to lock; None where nothing can be kept."""
        if self.folder is None:
            return None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None


def _as_json(made: Trainings) -> dict[str, Any]:
    table = {name: column.tolist() for name, column in made.table.items()}
    return {"table": table, "steps": made.steps, "repeated": made.repeated, "collapsed": made.collapsed}


def _read(path: Path) -> Trainings | None:
    """None for a file that is missing or damaged: it is made again."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Trainings(**{**kept, "table": pd.DataFrame(kept["table"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


@cache
def _code() -> str:
    """A digest of the package's source and of torch's version: another code may give other scores."""
    found = hashlib.sha256(torch.__version__.encode())
    for path in sorted(Path(fedsynth.__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
