"""What every patient has been charged, on disk before a step's result can leave, over runs, restarts and crashes.

One store per machine: `<store>/<site>/ledger.jsonl`, one line per charged block. Knows charges, never images.
"""

import fcntl
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from fedsynth import atomic_files
from fedsynth.errors import BudgetSpentError, FedSynthError, RefusedError
from fedsynth.privacy.accounting import Budget, Mechanism, Spent, compose, epsilon_of, fits, rounded_up
from fedsynth.privacy.patient_tags import Group, Identities
from fedsynth.runs import Run

UNIT, ADJACENCY = "patient", "add/remove"
LEDGER = "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One line of a ledger: `steps` draws at `rate` with `noise`, by `run` in `round`, on the group `patients`.

    `insecure` stands only in lines of runs whose randomness somebody could repeat: those protect nobody. `assumption`
    and `joint` stand only in lines of secure sums: against whom the noise holds, and the name of the sum that it is on.
    """

    rate: float
    noise: float
    steps: int
    delta: float
    run: str
    round: int
    patients: str
    unit: str = UNIT
    adjacency: str = ADJACENCY
    insecure: bool = False
    assumption: str = ""
    joint: str = ""

    @property
    def mechanism(self) -> Mechanism:
        """What was done."""
        return Mechanism(rate=self.rate, noise=self.noise, steps=self.steps)

    def line(self) -> str:
        """The charge as one line of JSON."""
        keys = ("unit", "adjacency", "rate", "noise", "steps", "delta", "run", "round", "patients")
        values = asdict(self)
        record = {key: values[key] for key in (*keys, "insecure", "assumption", "joint") if values[key] or key in keys}
        return json.dumps(record) + "\n"


@dataclass(frozen=True, kw_only=True)
class Account:
    """The most that any patient of a site has spent, over all runs; `not_private` names runs that protect nobody."""

    site: str
    spent: Spent
    runs: tuple[str, ...]
    steps: int
    not_private: tuple[str, ...]


def default_store() -> Path:
    """`$FEDSYNTH_STORE`, or the user's data directory."""
    if named := os.environ.get("FEDSYNTH_STORE"):
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "fedsynth"


class Ledger:
    """The ledger of one site in a store. Every look and every charge happens under the store's lock."""

    def __init__(self, site: str, store: Path | None = None) -> None:
        if not site:
            raise RefusedError("a ledger needs the name of its site")
        self.site = site
        self.store = default_store() if store is None else store
        if Run(folder=self.store).config.is_file():
            remedy = "a run is handed on and the store's salt is not: name another folder (--store or $FEDSYNTH_STORE)"
            raise RefusedError("the store of ledgers is a run directory", file=self.store, remedy=remedy)
        self.path = self.store / folder_of(site) / LEDGER
        self.identities = Identities(self.store)

    def group(self, patients: Iterable[str]) -> Group:
        """The salted group of a site's patients, for charging them."""
        with self._locked():
            return self.identities.group(patients)

    def remember(self, patients: Iterable[str]) -> Group:
        """The same group, written down so that those of later runs can be compared with it. Nobody is charged."""
        with self._locked():
            group = self.identities.group(patients)
            self.identities.remember(group)
        return group

    def charge(self, charge: Charge, group: Group, *, cap: Budget | None = None, most: int | None = None) -> None:
        """Write the charge to disk; when this returns, the block's steps may be taken.

        With a cap, it is refused when any patient of `group` would have spent more, over all sites and runs of the
        store. `most` bounds the steps of this charge's run. Check and write are one under the lock: two runs, or two
        copies of one run, cannot both take the last of a budget.
        """
        if charge.patients != group.digest:
            raise ValueError("a charge must name the group that it is for")
        with self._locked():
            if most is not None:
                refuse_above(most - self._steps_of(charge.run), charge.steps)
            if cap is not None:
                self._refuse_above(cap, group, [], [charge])
            self.identities.remember(group)
            _append(self.path, charge.line())

    def check(self, group: Group, planned: Iterable[Mechanism], cap: Budget) -> None:
        """Refuse before the start what would overspend `cap` at the end."""
        with self._locked():
            self._refuse_above(cap, group, list(planned))

    def forecast(self, group: Group, planned: Iterable[Mechanism], delta: float) -> tuple[float, float]:
        """The most that any patient of `group` has spent, over all sites and runs, and would have after `planned`."""
        with self._locked():
            met = [mechanisms_of(charges) for charges in self._histories(group)]
        more = list(planned)
        return (
            max(epsilon_of(one, delta) for one in met),
            max(epsilon_of([*one, *more], delta) for one in met),
        )

    def steps_charged(self, run: str) -> int:
        """Private steps that `run` has been charged at this site, lost blocks included."""
        with self._locked():
            return self._steps_of(run)

    def charges(self, run: str | None = None) -> list[Charge]:
        """All charges of this site, or those of one run."""
        with self._locked():
            return [charge for charge in read_ledger(self.path) if run in (None, charge.run)]

    def copy(self, run: str, path: Path) -> None:
        """Write the charges of one run to `path`: the copy that its run directory holds."""
        atomic_files.write_text(path, "".join(charge.line() for charge in self.charges(run)))

    def account(self, delta: float | None = None) -> Account:
        """The most that any patient of this site has spent, at `delta` or at the smallest delta that was declared."""
        with self._locked():
            return account_of(self.site, read_ledger(self.path), self._everywhere(), self.identities, delta)

    def _steps_of(self, run: str) -> int:
        return sum(charge.steps for charge in read_ledger(self.path) if charge.run == run)

    def _refuse_above(
        self, cap: Budget, group: Group, planned: list[Mechanism], charges: Sequence[Charge] = ()
    ) -> None:
        for history in self._histories(group):
            then = [*mechanisms_of([*history, *charges]), *planned]
            if fits(then, cap):
                continue
            before, after = epsilon_of(mechanisms_of(history), cap.delta), epsilon_of(then, cap.delta)
            raise BudgetSpentError(
                f"site {self.site} allows epsilon {cap.epsilon:g} per patient at delta {cap.delta:g}: "
                f"{rounded_up(before, 3):g} is spent and this would make it {rounded_up(after, 3):g}",
                remedy="fewer steps, more noise, or a higher cap in the site's policy",
            )

    def _histories(self, group: Group) -> list[list[Charge]]:
        return histories(group.tags, self._everywhere(), self.identities)

    def _everywhere(self) -> list[Charge]:
        """The charges of every site in the store: a patient may stand in several, and pays in each."""
        return [charge for path in sorted(self.store.glob(f"*/{LEDGER}")) for charge in read_ledger(path)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with atomic_files.told_when_unwritable(self.store):
            self.store.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.store / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def refuse_above(left: int, steps: int) -> None:
    """Refuse steps that the plan of a run does not hold."""
    if steps > left:
        remedy = "the budget was calibrated for all steps at once; plan a new run"
        raise BudgetSpentError(f"{steps} private steps are asked for and {max(0, left)} are left", remedy=remedy)


def folder_of(site: str) -> str:
    """The name of a site's folder: its own name where that is a plain one; no two sites share a folder."""
    quoted = quote(site, safe=" ")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def sites_of(store: Path) -> list[str]:
    """The sites that have a ledger in the store."""
    return sorted(unquote(path.parent.name) for path in store.glob(f"*/{LEDGER}"))


def read_ledger(path: Path) -> list[Charge]:
    """The charges in a ledger file, none where there is no file.

    A last line without its end was cut off while it was being written: its block had not begun. It is counted when it
    is whole but for the end, and dropped otherwise. Any other line that cannot be read stops everything.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise FedSynthError(f"the ledger cannot be read: {error}", file=path) from error
    charges = []
    lines = text.split("\n")
    for row, line in enumerate(lines, 1):
        try:
            charges += [_parse(line)] if line else []
        except (ValueError, TypeError, KeyError, FedSynthError) as error:
            if row == len(lines):
                continue
            remedy = "restore it from a backup; without it nobody knows what was spent"
            raise FedSynthError(f"the ledger is damaged: {error}", file=path, row=row, remedy=remedy) from error
    return charges


def mechanisms_of(charges: Iterable[Charge]) -> list[Mechanism]:
    """What charges that one patient met cost together. The sites of one secure sum share its noise: who is a patient
    of k of them moves that sum by k times the clip norm, as k releases with 1 / sqrt(k) of the noise each would."""
    met = list(charges)
    sites = Counter(charge.joint for charge in met if charge.joint)
    return [
        replace(charge.mechanism, noise=charge.noise / math.sqrt(sites[charge.joint] if charge.joint else 1))
        for charge in met
    ]


def histories(tags: Iterable[str], charges: list[Charge], identities: Identities) -> list[list[Charge]]:
    """The different lists of charges that patients of `tags` have met; each patient's is among them.

    A charge whose group cannot be compared counts for everybody.
    """
    groups = {charge.patients: identities.tags(charge.patients) for charge in charges}
    met: set[frozenset[str]] = set()
    for tag in set(tags):
        met.add(frozenset(digest for digest, members in groups.items() if members is None or tag in members))
    largest = [one for one in met if not any(one < other for other in met)]  # a subset never costs more
    return [[charge for charge in charges if charge.patients in one] for one in largest]


def account_of(
    site: str, own: list[Charge], everywhere: list[Charge], identities: Identities, delta: float | None = None
) -> Account:
    """The account of the patients whom `own` names, over the charges `everywhere`."""
    at = delta or min((charge.delta for charge in own), default=1e-5)
    groups = [identities.tags(digest) for digest in {charge.patients for charge in own}]
    known = {tag for tags in groups if tags is not None for tag in tags}
    met = histories(known, everywhere, identities)
    if any(tags is None for tags in groups):
        met.append(list(own))  # nobody can say who they were: one patient may have been in every block
    worst = max(met, key=lambda one: epsilon_of(mechanisms_of(one), at), default=[])
    return Account(
        site=site,
        spent=compose(mechanisms_of(worst), at),
        runs=tuple(dict.fromkeys(charge.run for charge in worst)),
        steps=sum(charge.steps for charge in worst),
        not_private=tuple(dict.fromkeys(charge.run for one in met for charge in one if charge.insecure)),
    )


def _parse(line: str) -> Charge:
    record: Mapping[str, Any] = json.loads(line)
    charge = Charge(**record)
    if (charge.unit, charge.adjacency) != (UNIT, ADJACENCY):
        raise ValueError(f"unit {charge.unit!r} with adjacency {charge.adjacency!r} cannot be composed here")
    _ = charge.mechanism  # checks the ranges
    return charge


def _append(path: Path, line: str) -> None:
    """Add one line and wait for the disk. What a crash left of an unfinished last line is finished or cut off."""
    with atomic_files.told_when_unwritable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        with path.open("a+b") as file:
            _mend_tail(path, file.fileno())
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if new:
            for folder in (path.parent, path.parent.parent):
                handle = os.open(folder, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)


def _mend_tail(path: Path, handle: int) -> None:
    content = path.read_bytes()
    tail = content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    try:
        _parse(tail.decode())
        os.write(handle, b"\n")
    except (ValueError, TypeError, KeyError, FedSynthError):
        os.ftruncate(handle, len(content) - len(tail))
