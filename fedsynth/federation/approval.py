"""Plans that a person at the hospital has read and approved: the list, its check, and a plan as a page to read.

A plan is everything that a server says of a run, and the version of fedsynth that reads it; a change of any of it is
another plan. The list says nothing of patients and holds for every run of the plan; of private runs the ledger bounds
how many there can be. It binds fedsynth, not a server that hands out other code.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsynth import __version__, atomic_files, config
from fedsynth.errors import ConfigError, FedSynthError
from fedsynth.federation.asked import asked_of
from fedsynth.federation.error_codes import ErrorCode, PolicyRefusedError
from fedsynth.federation.policy import Asked, Policy
from fedsynth.federation.settings import FederationSettings, check_family

WAITING = "plans-waiting"
MOST_WAITING = 20  # a server may think of as many plans as it likes
BINDS = "Approval binds the installed fedsynth. A server that hands your node other code is not bound by it."
_OF_THE_SERVER = ("store",)  # where its own ledgers would lie: a site has its own


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One plan; its name ends in the first letters of its hash. Files are named by the whole hash: what a server says
    stands in no path."""

    settings: FederationSettings

    @property
    def table(self) -> dict[str, Any]:
        """All that the server says of the run."""
        table = config.as_table(self.settings)
        if not table["trackers"]:
            del table["trackers"]  # as in plans that were approved before there were any
        if "privacy" in table:
            table["privacy"] = {key: value for key, value in table["privacy"].items() if key not in _OF_THE_SERVER}
        return table

    @property
    def sha256(self) -> str:
        """Of all of it and of the version here, in one spelling."""
        said = json.dumps({"fedsynth": __version__, "plan": self.table}, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def name(self) -> str:
        """What a person types to approve it."""
        return f"{self.settings.generator}-{self.sha256[:16]}"

    def waits_in(self, home: Path) -> Path:
        """Its file while nobody has decided."""
        return home / WAITING / f"{self.sha256}.toml"


def check_approved(policy: Policy, settings: FederationSettings, site: str, home: Path) -> None:
    """Refuse a plan that nobody here has approved, where the policy asks for it, and keep it for a person to read.

    What the policy refuses anyhow, or no version of fedsynth could train, is not kept.
    """
    if policy.approved is None:
        return
    check_family(settings)
    policy.check(asked_of(settings, site))
    plan = Plan(settings=settings)
    if plan.sha256 in approved(policy.approved):
        return
    with suppress(FedSynthError):
        _keep_waiting(plan, plan.waits_in(home))
    problem = f"nobody here has approved the plan {plan.name}; see it with: fedsynth site approve"
    raise PolicyRefusedError(problem, ErrorCode.POLICY_APPROVED)


def approved(path: Path) -> dict[str, dict[str, str]]:
    """The list: hash to name and day. None is approved where there is no list yet; a damaged one is an error."""
    if not path.exists():
        return {}
    table = config.parse_toml(path)
    if not all(isinstance(entry, dict) for entry in table.values()):
        raise ConfigError("is no list of approved plans", file=path, remedy="make it with: fedsynth site approve")
    return {str(sha256): dict(entry) for sha256, entry in table.items()}


def approve(plan: Plan, path: Path, home: Path) -> None:
    """Add the plan to the list; it waits no longer."""
    entry = {"name": plan.name, "approved": datetime.now(UTC).isoformat(timespec="seconds")}
    config.save_toml(path, {**approved(path), plan.sha256: entry})
    plan.waits_in(home).unlink(missing_ok=True)


def waiting(home: Path) -> list[Plan]:
    """Plans that were refused because nobody had approved them, by name."""
    found = []
    for path in sorted((home / WAITING).glob("*.toml")):
        with suppress(ConfigError):  # of another version, whose settings had other names
            found.append(read_plan(path))
    return found


def read_plan(path: Path) -> Plan:
    """A plan from a file like the server's `federation.toml`."""
    return Plan(settings=config.load_toml(FederationSettings, path))


def page(plan: Plan, policy: Policy, asked: Asked, *, spent: float | None = None) -> str:
    """The plan as a page: what it means, what this hospital's policy says of it, and every setting.

    Text of the server's that a terminal would obey, or that runs backwards, is shown as its code.
    """
    lines = [f"Plan {plan.name}", "", *_meaning(plan.settings, asked), "", *_verdict(policy, asked), BINDS]
    if spent is not None and policy.max_epsilon:
        lines.append(f"Spent before: epsilon {spent:g} of {policy.max_epsilon:g} per patient.")
    rest = config.to_toml(plan.table).rstrip()
    end = f"SHA-256 {plan.sha256}, for fedsynth {__version__}"
    return _shown("\n".join([*lines, "", "All settings:", rest, "", end]))


def _shown(text: str) -> str:
    return "".join(one if one == "\n" or one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _meaning(settings: FederationSettings, asked: Asked) -> list[str]:
    told = [
        f"Trains the generator {settings.generator!r} at {settings.sites} hospitals: {settings.rounds} round(s) of "
        f"{settings.local_steps} step(s) at each, of which {settings.quorum} must answer."
    ]
    privacy = settings.privacy
    if privacy is None:
        told.append("WITHOUT PRIVACY: the server sees weights that can hold images of patients.")
    elif privacy.insecure_seed is not None:
        told.append("NOT PRIVATE: its randomness can be repeated (insecure-seed).")
    else:
        told.append(f"Private: each patient spends epsilon {privacy.epsilon:g} at delta {privacy.delta:g}.")
        told.append(f"It declares {asked.patients} patients for this hospital; the number is public and not counted.")
    if settings.secure_sum and settings.shares is not None:
        told.append(f"The promise rests on a secure sum: at most {settings.shares.colluding} hospitals may collude.")
    if settings.start is not None:
        told.append("It goes on from networks of another run, which the server sends.")
    told.append(
        f"What leaves each hospital: {_leaves(settings)}, or sums over patients where the family is fitted; no images."
    )
    if settings.trackers:
        told.append(
            f"The server also writes the losses that your policy lets leave for: {', '.join(settings.trackers)}."
        )
    return told


def _leaves(settings: FederationSettings) -> str:
    if settings.federation == "one-shot":
        return "once, at the end, its whole sampler, trained on its patients alone and released as it is"
    return "weights of generator and discriminator" if settings.share == "all" else "weights of the generator alone"


def _verdict(policy: Policy, asked: Asked) -> list[str]:
    try:
        policy.check(asked)
    except PolicyRefusedError as error:
        return [f"This hospital's policy REFUSES it, approved or not: {error}"]
    return ["This hospital's policy allows it."]


def _keep_waiting(plan: Plan, path: Path) -> None:
    if path.exists() or len(list(path.parent.glob("*.toml"))) >= MOST_WAITING:
        return
    head: Mapping[str, Any] = plan.table
    atomic_files.write_text(path, config.to_toml(head))
