"""What has been spent, site by site, read from a store or from a run directory, as plain values for tables and JSON."""

import math
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from fedsynth.errors import FedSynthError
from fedsynth.privacy.accounting import Budget, Spent, compose
from fedsynth.privacy.ledger import ADJACENCY, LEDGER, UNIT, Charge, Ledger, default_store, read_ledger, sites_of
from fedsynth.privacy.lineage import Lineage, PatientGroup
from fedsynth.privacy.patient_tags import Group

SCHEMA = "fedsynth/privacy/1"


def statement(
    source: Path, *, store: Path | None = None, cap: float | None = None, lineage: Lineage | None = None
) -> dict[str, Any]:
    """Spent and remaining epsilon per site of a store or a run: the largest over patients, this run's and cumulative.

    A run directory holds its own charges; what its patients spent elsewhere is looked up in `store`. The `lineage` of
    a run that goes on from others is stated too, and counts in the largest.
    """
    earlier = lineage is not None and len(lineage.runs) > 1
    copies = {unquote(path.parent.name): path for path in sorted(source.glob(f"sites/*/{LEDGER}"))}
    if copies:
        home = default_store() if store is None else store
        per_site = {site: _of_run(site, read_ledger(path), home, cap) for site, path in copies.items()}
    elif sites_of(source):
        per_site = {site: _of_store(Ledger(site, source), cap) for site in sites_of(source)}
    elif earlier:
        per_site = {}  # a run on phantoms charges nobody, and may go on from one that did
    elif source.is_dir():
        remedy = "private runs make one; $FEDSYNTH_STORE says where the store is"
        raise FedSynthError("there is no ledger here", file=source, remedy=remedy)
    else:
        raise FedSynthError("there is no such store or run", file=source)
    figures = [site["epsilon"] for site in per_site.values()]
    figures += [lineage.guarantee().epsilon] if earlier and lineage is not None else []
    told = {"lineage": _of_lineage(lineage)} if earlier and lineage is not None else {}
    return told | {
        "schema": SCHEMA,
        "source": str(source),
        "kind": "run" if copies or earlier else "store",
        "unit": UNIT,
        "adjacency": ADJACENCY,
        "per_site": per_site,
        "largest": None if None in figures else max(figures),
        "note": "epsilon covers the networks and what they draw; the largest over sites counts where patients are "
        "disjoint, and patients that the store knows to be shared have been added up",
    }  # fmt: skip


def _of_lineage(lineage: Lineage) -> dict[str, Any]:
    """What all runs behind the weights promise together, and per group of patients."""
    found = lineage.guarantee()
    groups = [
        {
            "run": run.run,
            "site": group.site,
            "epsilon": group.epsilon,
            "over_lineage": lineage.promised(run, group).epsilon,
        }
        for run in lineage.counted
        for group in run.patients
    ]
    return {
        "epsilon": found.epsilon,
        "epsilon_replace_one": _finite(found.replace_one),
        "delta": found.delta,
        "why": found.why,
        "groups": groups,
        "runs": lineage.history(),
    }


def _of_store(ledger: Ledger, cap: float | None) -> dict[str, Any]:
    account = ledger.account()
    charges = ledger.charges()
    runs = {run: _run(one, account.spent.delta) for run, one in _by_run(charges).items()}
    return _site(account.spent, account.steps, account.not_private, cap) | {"runs": runs}


def _of_run(site: str, charges: list[Charge], store: Path, cap: float | None) -> dict[str, Any]:
    """This run's own cost from its copy; the cumulative one from the store where it knows the site and the run."""
    delta = min((charge.delta for charge in charges), default=1e-5)
    runs = {run: _run(one, delta) for run, one in _by_run(charges).items()}
    known = site in sites_of(store) and set(runs) <= {charge.run for charge in Ledger(site, store).charges()}
    if known:
        account = Ledger(site, store).account(delta)
        return _site(account.spent, account.steps, account.not_private, cap) | {"runs": runs}
    own = compose([charge.mechanism for charge in charges], delta)
    why = f"the store {store} does not know this run: what its patients spent elsewhere is not counted"
    insecure = tuple({charge.run for charge in charges if charge.insecure})
    return {"why": why} | _site(own, sum(charge.steps for charge in charges), insecure, cap) | {"runs": runs}


def _site(spent: Spent, steps: int, not_private: tuple[str, ...], cap: float | None) -> dict[str, Any]:
    """One site's record. Where a run used randomness that can be repeated there is no epsilon at all."""
    epsilon = math.inf if not_private else spent.epsilon
    record: dict[str, Any] = {
        "epsilon": _finite(epsilon),
        "epsilon_renyi": None if not_private else _finite(spent.renyi),
        "epsilon_replace_one": None if not_private else _finite(spent.replace_one),
        "delta": spent.delta,
        "accountant": spent.accountant,
        "steps": steps,
        "cap": cap,
        "remaining": None if cap is None else max(0.0, cap - epsilon),
        "private": not not_private,
    }
    if not_private:
        record["why"] = f"NOT PRIVATE: {', '.join(not_private)} used randomness that can be repeated"
    return record


def _run(charges: list[Charge], delta: float) -> dict[str, Any]:
    spent = compose([charge.mechanism for charge in charges], delta)
    insecure = any(charge.insecure for charge in charges)
    epsilon = None if insecure else _finite(spent.epsilon)
    against = "; ".join(sorted({charge.assumption for charge in charges if charge.assumption}))
    told = {"epsilon": epsilon, "steps": sum(charge.steps for charge in charges), "private": not insecure}
    return told | ({"holds_against": against} if against else {})


def _by_run(charges: list[Charge]) -> dict[str, list[Charge]]:
    return {run: [one for one in charges if one.run == run] for run in dict.fromkeys(charge.run for charge in charges)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def spent_by(group: PatientGroup, store: Path | None = None) -> float | None:
    """The most that any patient of a group has spent over all runs of the store; None where the store knows no tags."""
    ledger = Ledger(group.site, default_store() if store is None else store)
    tags = ledger.identities.tags(group.digest) if group.digest else None
    if tags is None:
        return None
    return ledger.forecast(Group(group.digest, tags), (), group.delta)[0]


def check_cap(cap: float | None, delta: float = 1e-5) -> None:
    """Refuse a cap that is no epsilon."""
    if cap is not None:
        Budget(epsilon=cap, delta=delta)
