"""What a hospital's node does, read from the hospital's own files: no server is asked, no number of patients told."""

import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fedsynth import atomic_files
from fedsynth.errors import FedSynthError, RefusedError
from fedsynth.federation.approval import waiting
from fedsynth.federation.egress_log import EGRESS, read_egress
from fedsynth.federation.policy import Policy, load_policy
from fedsynth.federation.site_caps import DailyUsage, Usage, runs_kept
from fedsynth.federation.site_context import SiteFile
from fedsynth.privacy.accounting import rounded_up
from fedsynth.privacy.ledger import Ledger, sites_of

NODE_LOCK = "node.lock"
_PATIENCE = 1.0  # seconds: whoever asks whether a node runs holds the lock for a moment


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Of one run: answers, what left, when something last left, and the last reason that was given for none."""

    folder: str
    answers: int
    last_round: int
    bytes: int
    last: datetime | None
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class SiteStatus:
    """Of one hospital. `spent` is the epsilon of its most charged patient, over all runs, where it keeps a ledger."""

    name: str
    server: str
    node_runs: bool
    policy: Policy
    spent: float
    used: Usage
    runs: tuple[RunStatus, ...]
    refusals: tuple[tuple[str, int], ...]
    waiting: tuple[str, ...]


def look_at(site: SiteFile) -> SiteStatus:
    """Read everything; the newest run comes last."""
    policy = load_policy(site.policy)
    logs = {site.folder, site.policy.parent, *runs_kept(site.folder)}
    try:
        runs = [_run(folder) for folder in runs_kept(site.folder)]
        refusals = Counter(code for folder in logs for code in _refusals(folder))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"an {EGRESS} has a line of another shape: {error!r}"
        raise FedSynthError(problem, file=site.folder, remedy="put it back from a backup, or move it away") from error
    return SiteStatus(
        name=site.name,
        server=site.server or "",
        node_runs=node_runs(site.folder),
        policy=policy,
        spent=_spent(site, policy),
        used=DailyUsage(site.folder).today(),
        runs=tuple(sorted(runs, key=lambda run: run.last.timestamp() if run.last else 0.0)),
        refusals=tuple(sorted(refusals.items())),
        waiting=tuple(plan.name for plan in waiting(site.folder)) if policy.approved else (),
    )


def node_runs(folder: Path) -> bool:
    """Whether a node works in this hospital's folder."""
    try:
        with _lock(folder / NODE_LOCK, os.O_RDWR):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def hold_lock(folder: Path) -> None:
    """Say that a node works here, until this process ends, whatever program it becomes; another node is refused."""
    with atomic_files.told_when_unwritable(folder):
        handle = os.open(folder / NODE_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < patience:
                time.sleep(0.05)
                continue
            os.close(handle)
            remedy = "end it first, or leave it"
            raise RefusedError("a node of this hospital runs already", file=folder, remedy=remedy) from None
    os.set_inheritable(handle, True)


@contextmanager
def _lock(path: Path, flags: int) -> Iterator[None]:
    handle = os.open(path, flags)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _run(folder: Path) -> RunStatus:
    lines = read_egress(folder / EGRESS)
    answers = [line for line in lines if line["message"] == "train"]
    refused = lines and lines[-1]["message"] == "refusal"
    return RunStatus(
        folder=folder.name,
        answers=len(answers),
        last_round=max((int(line["round"]) for line in answers), default=0),
        bytes=sum(int(line["bytes"]) for line in lines),
        last=datetime.fromisoformat(lines[-1]["when"]) if lines else None,
        refusal=next(iter(lines[-1]["content"]), "") if refused else "",
    )


def _refusals(folder: Path) -> list[str]:
    return [next(iter(line["content"]), "") for line in read_egress(folder / EGRESS) if line["message"] == "refusal"]


def _spent(site: SiteFile, policy: Policy) -> float:
    store = site.ledger_store
    if not sites_of(store):
        return 0.0
    account = Ledger(site.name, store).account(policy.delta)
    return rounded_up(account.spent.epsilon, 3)
