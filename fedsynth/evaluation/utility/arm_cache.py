"""Scores of arms that do not depend on the synthetic set: runs of one real set train them once."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from fedsynth.evaluation.shared_cache import Form, SharedCache


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
        return SharedCache(folder=self.folder).get_now(facts, make, TRAININGS, wait=wait)


def _write(made: Trainings) -> bytes:
    table = {name: column.tolist() for name, column in made.table.items()}
    facts = {"table": table, "steps": made.steps, "repeated": made.repeated, "collapsed": made.collapsed}
    return json.dumps(facts).encode()


def _read(kept: bytes) -> Trainings:
    facts = json.loads(kept)
    return Trainings(**{**facts, "table": pd.DataFrame(facts["table"])})


TRAININGS = Form(ending=".json", write=_write, read=_read)
