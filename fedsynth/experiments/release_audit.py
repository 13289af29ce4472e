"""The audit of a release: the run's own clipping, noise and charge, on patients whose statistics are one-hot.

Every canary has a number of the sum to itself, so that each is a separate trial; the release is taken several times.
Numbers that no canary touches show the noise, and the last one how many patients are told.
"""

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsynth.errors import BudgetSpentError
from fedsynth.experiments import mechanism_checks as checks
from fedsynth.experiments.mechanism_audit import PROPERTY, Check, MechanismAudit, check_canaries, judged
from fedsynth.privacy.accounting import Mechanism
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.mechanism import GaussianMechanism
from fedsynth.privacy.patient_statistics import RELEASE, PatientStatistics
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.privacy.secure_rng import SecretRandomness

CANARIES, BLANK = 512, 256
"""Numbers of one sum that belong to a canary each, and numbers that nobody touches."""
FEWEST_RELEASES = 8
LARGE = 10.0
"""The norm of a canary's vector before clipping."""
Floats = NDArray[np.float64]


@dataclass(kw_only=True)
class _Seen:
    """What left in all releases, in units of the noise: by canary the log likelihood ratio and whether it was in; the
    untouched numbers; how far the told number of patients was from the true one; the length of a lone patient's vector;
    and what was granted wrongly."""

    odds: list[Floats] = field(default_factory=list)
    included: list[NDArray[np.bool_]] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    blank: list[Floats] = field(default_factory=list)
    count: list[float] = field(default_factory=list)
    fetched: list[int] = field(default_factory=list)
    charged: list[int] = field(default_factory=list)
    lone: float = 0.0
    complaint: str = ""


def audit_release(
    plan: PrivatePlan, *, canaries: int = 4096, claim: float | None = None, comparisons: int = 1
) -> MechanismAudit:
    """Take the plan's release of so many canaries (rounded up) and hold what leaves against the claim."""
    check_canaries(canaries)
    started, seen = time.monotonic(), _Seen()
    for _ in range(max(FEWEST_RELEASES, -(-canaries // CANARIES))):
        _release(plan, seen)
    own = Mechanism(rate=1.0, noise=plan.noise / float(_alone()[0]), steps=1)  # of the canary's part of a vector
    coins = np.concatenate(seen.odds), np.concatenate(seen.included)
    found = judged(plan, own, coins, tuple(_properties(plan, seen, PROPERTY / comparisons)), claim, comparisons)
    return replace(found, seconds=time.monotonic() - started)


def _release(plan: PrivatePlan, seen: _Seen) -> None:
    """One release of canaries with coins of their own, in a ledger of its own."""
    included = SecretRandomness().integers(2, (CANARIES,)).numpy() == 1
    members, touched = np.flatnonzero(included), set()

    def fetch(patients: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        touched.update(patients.tolist())
        own = torch.as_tensor(members[patients.numpy()])
        return {"canary": own[:, None].expand(-1, plan.settings.slices_per_patient)}, {}

    with tempfile.TemporaryDirectory(prefix="fedsynth-audit-") as store:
        ledger = Ledger("audit", Path(store))
        mechanism = GaussianMechanism(
            plan,
            {RELEASE: PatientStatistics(_vectors, length=CANARIES + BLANK)},
            patients=[f"canary-{i}" for i in members],
            randomness=SecretRandomness(),
            run="audit",
            ledger=ledger,
        )
        mechanism.charge({RELEASE: 1}, round=0)
        left = mechanism.step(RELEASE, fetch)[RELEASE].double().numpy() * plan.settings.batch
        seen.complaint = seen.complaint or _granted_again(mechanism, fetch)
        seen.charged.append(sum(charge.steps for charge in ledger.charges("audit")))
    own, noise, lone = left[:CANARIES], plan.noise, _alone()
    shift, each = float(lone[0]), float(lone[-1])
    seen.odds.append(np.nan_to_num((2 * own - shift) * shift / (2 * noise**2)))
    seen.included.append(included)
    seen.sums.append(float(own[included].sum()) / shift)
    seen.blank.append(left[CANARIES:-1] / noise)
    seen.count.append((float(left[-1]) - len(members) * each) / noise)
    seen.lone = max(seen.lone, float(np.linalg.norm(lone)))
    seen.fetched.append(len(touched) - len(members))


def _alone() -> Floats:
    """What one patient adds to the sum."""
    batch = {"canary": torch.zeros(1, 1, dtype=torch.int64)}
    statistics = PatientStatistics(_vectors, length=CANARIES + BLANK)
    return np.asarray(statistics.clipped_sum(torch.tensor([0]), lambda _: (batch, {}))[RELEASE].double().numpy())


def _vectors(batch: dict[str, Tensor]) -> Tensor:
    """One-hot, far above the clip norm."""
    vectors = torch.zeros(len(batch["canary"]), CANARIES + BLANK, dtype=torch.float64)
    vectors[torch.arange(len(vectors)), batch["canary"]] = LARGE
    return vectors


def _granted_again(mechanism: GaussianMechanism, fetch: "object") -> str:
    try:
        mechanism.step(RELEASE, fetch)  # type: ignore[arg-type]
    except RuntimeError:
        pass
    else:
        return "a second release was not charged"
    try:
        mechanism.charge({RELEASE: 1}, round=1)
    except BudgetSpentError:
        return ""
    return "a second release was granted"


def _properties(plan: PrivatePlan, seen: _Seen, error: float) -> list[Check]:
    """Goodness of fit of all that left to what the plan declares."""
    blank, count = np.array(seen.blank), np.array(seen.count)
    squares, members = np.square(blank), int(sum(one.sum() for one in seen.included))
    noise = checks.smallest([checks.variance(squares.sum(), blank.size), checks.normal(blank.ravel())])
    cosine, total = checks.largest_cosine(blank), sum(seen.sums)
    shift = float(_alone()[0])
    moved = [checks.contribution(total, members, plan.noise / shift, members), float(seen.lone <= 1 + 1e-6)]
    told = checks.smallest(checks.variance(np.square(count).sum(), len(count)))
    found = {
        "noise": (noise, f"{np.sqrt(squares.mean()):.3f} of the declared deviation"),
        "reuse": (
            checks.independent(cosine, *blank.shape),
            f"the noise of two releases has a cosine of {cosine:.3f}",
        ),
        "contribution": (
            checks.smallest(moved),
            f"a patient moves the sum by {seen.lone:.3f} clip norms alone, and its own number by "
            f"{total / max(members, 1):.3f} of that on average",
        ),
        "count": (told, f"the number of patients is told with {count.std():.3f} of the declared noise"),
    }
    named = [Check(name=name, holds=p >= error, seen=f"{text} (p = {p:.1g})") for name, (p, text) in found.items()]
    everybody = not any(seen.fetched)
    named.append(Check(name="sampling", holds=everybody, seen=f"{'all' if everybody else 'not all'} patients are read"))
    charged = all(one == 1 for one in seen.charged) and not seen.complaint
    text = f"{len(seen.charged)} releases left, {sum(seen.charged)} were charged"
    return [*named, Check(name="charges", holds=charged, seen=f"{text}; {seen.complaint}" if seen.complaint else text)]
