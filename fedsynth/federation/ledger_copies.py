"""Whether a hospital's ledger holds all that its runs were charged, by the copies in the folders of those runs.

A ledger that was put back from an old backup is a whole one; only the copies tell what it lacks.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from fedsynth.errors import LostChargesError
from fedsynth.federation.site_caps import runs_kept
from fedsynth.privacy.ledger import LEDGER, Charge, read_ledger


def refuse_older(ledger: Path, charges: Iterable[Charge], home: Path) -> None:
    """Refuse `charges`, read from `ledger`, where a run that is kept in `home` was charged more."""
    known = Counter(charges)
    for folder in runs_kept(home):
        copy = folder / LEDGER
        lost = sum((Counter(read_ledger(copy)) - known).values())
        if lost:
            problem = f"the ledger lacks {lost} charge(s) that {copy} holds: it is older than that run"
            remedy = "put the newest ledger back, or add the lines that it lacks"
            raise LostChargesError(problem, file=ledger, remedy=remedy)
