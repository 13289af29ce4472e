"""The audit of the mechanism: the run's own sampling, clipping, noise, division and charges, held against the claim.

Thousands of canaries with secret coins share one training (Steinke, Nasr and Jagielski 2023, arXiv 2305.08846). There
is one look, whose tests were fixed beforehand and share an error of 5 %.
"""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError
from fedsynth.evaluation.audit.epsilon_bounds import count_right, one_run_bound
from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.score import Result, Score, Verdict
from fedsynth.experiments import mechanism_checks as checks
from fedsynth.experiments.mechanism_training import UNIT, Training
from fedsynth.privacy.accounting import Mechanism
from fedsynth.privacy.ledger import Ledger
from fedsynth.privacy.plan import PrivatePlan
from fedsynth.privacy.tradeoff import advantage, proven_epsilon

NAME, CANARIES = "audit-mechanism", 4_096
CURVE, ONE_RUN, PROPERTY = 0.02, 0.005, 0.005
"""How the 5 % are shared: the bound by the curve, the one-run bound, and each of five properties."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One declared property: whether it `holds`, and what was seen of it."""

    name: str
    holds: bool
    seen: str


@dataclass(frozen=True, kw_only=True)
class MechanismAudit:
    """What the look showed. `found` of the `included` canaries and `wrong` of the others were guessed to be in.

    `proven` is the epsilon that they prove for subsampled Gaussian steps, `expected` the most that can be expected
    of so many canaries where the mechanism is as planned; `one_run` is proven without any assumption.
    """

    plan: PrivatePlan
    claim: float
    canaries: int
    included: int
    found: int
    wrong: int
    proven: float
    expected: float
    one_run: float
    checks: tuple[Check, ...]
    seconds: float

    @property
    def contradictions(self) -> list[str]:
        """Each begins with the name of the property that is contradicted."""
        largest = max(self.proven, self.one_run)
        said = [f"epsilon: at least {largest:.2f} was spent"] if largest > self.claim else []
        return said + [f"{one.name}: {one.seen}" for one in self.checks if not one.holds]

    @property
    def verdict(self) -> Verdict:
        """A contradiction, or none."""
        return "fail" if self.contradictions else "no contradiction found"


def audit_mechanism(
    plan: PrivatePlan, *, canaries: int = CANARIES, claim: float | None = None, comparisons: int = 1
) -> MechanismAudit:
    """Run the plan's mechanism on so many canaries (rounded up to 1,024) and hold what leaves against the claim.

    Nobody's data are read and nobody is charged. `claim` takes the place of the plan's epsilon; `comparisons` counts
    the mechanisms that are audited together, which share the error.
    """
    check_canaries(canaries)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedsynth-audit-") as store:
        training = Training(plan, -(-canaries // UNIT), Ledger("audit", Path(store)))
    checks = (*_properties(training, PROPERTY / comparisons), _charges(training))
    found = judged(plan, plan.mechanism, (training.seen.odds, training.seen.included), checks, claim, comparisons)
    return replace(found, seconds=time.monotonic() - started)


def check_canaries(canaries: int) -> None:
    """Refuse none at all."""
    if canaries < 1:
        raise ConfigError("--canaries must be at least 1", value=canaries)


def judged(
    plan: PrivatePlan,
    mechanism: Mechanism,
    seen: tuple[NDArray[np.float64], NDArray[np.bool_]],
    checks: tuple[Check, ...],
    claim: float | None,
    comparisons: int,
) -> MechanismAudit:
    """What canaries prove of the plan: by each the log likelihood ratio of being in, and whether it was.

    `mechanism` is the one that a canary's own number went through.
    """
    odds, coins = seen
    guessed, delta = odds > 0, plan.settings.delta
    n, n_in, n_out = len(coins), int(coins.sum()), int((~coins).sum())
    found, wrong = int(guessed[coins].sum()), int(guessed[~coins].sum())
    error = (1 - advantage(mechanism)) / 2
    right = count_right(odds, coins, n // 10, np.random.default_rng(0))
    return MechanismAudit(
        plan=plan,
        claim=plan.claim.epsilon if claim is None else claim,
        canaries=n,
        included=n_in,
        found=found,
        wrong=wrong,
        proven=_proven(mechanism, delta, (wrong, n_out), (n_in - found, n_in), comparisons),
        expected=_proven(mechanism, delta, (round(error * n_out), n_out), (round(error * n_in), n_in), comparisons),
        one_run=one_run_bound(canaries=n, guesses=n // 10, right=right, delta=delta, level=1 - ONE_RUN / comparisons),
        checks=checks,
        seconds=0.0,
    )


def _proven(
    mechanism: Mechanism, delta: float, wrong: tuple[int, int], missed: tuple[int, int], comparisons: int
) -> float:
    """The epsilon that canaries prove of which so many (of how many) were guessed wrongly to be in, or missed.

    Both rates lie below their Clopper-Pearson limits at once: an honest mechanism's canaries are independent.
    """
    false_positives, false_negatives = (
        clopper_pearson(*counts, 1 - CURVE / comparisons)[1] for counts in (wrong, missed)
    )
    return proven_epsilon(mechanism, delta, false_positives=false_positives, false_negatives=false_negatives)


def _properties(training: Training, error: float) -> list[Check]:
    """Goodness of fit of all that left to what the plan declares."""
    plan, seen = training.plan, training.seen
    squares, vectors, samples = np.array(seen.squares), np.concatenate(seen.noise), np.array(seen.samples)
    spread = np.sqrt(squares.mean(0) / seen.sizes)
    n, m = squares.shape[0] * int(seen.sizes.sum()), len(training.nobody) * int(seen.sizes.sum())
    nobody = float(np.sum(training.nobody))
    noise = [
        checks.smallest(checks.variance(squares.sum(0), len(squares) * seen.sizes)),
        checks.smallest(checks.variance(squares.sum(1), seen.sizes.sum())),
        checks.normal(vectors.ravel()),
    ]
    times, sums = (np.bincount(seen.tensor, weights=one) for one in (seen.sampled, seen.sums[0]))
    others = len(squares) * len(seen.odds) - int(times.sum())
    moved = [checks.contribution(total, count, plan.noise, count) for total, count in zip(sums, times, strict=True)]
    moved += [checks.contribution(seen.sums[1].sum(), 0, plan.noise, others), float(training.lone <= 1 + 1e-6)]
    cosine = checks.largest_cosine(vectors)
    found = {
        "sampling": (
            checks.sampling(samples, plan.settings.rate),
            f"a share of {samples.mean():.4f} is sampled where {plan.settings.rate:.4g} is declared, or not each "
            "patient in each step by a coin of its own",
        ),
        "noise": (checks.smallest(noise), f"{spread.round(3).tolist()} of the declared deviation, by tensor"),
        "reuse": (
            checks.independent(cosine, *vectors.shape),
            f"the noise of two steps or tensors has a cosine of {cosine:.3f}",
        ),
        "contribution": (
            checks.smallest(moved),
            f"a patient moves the sum by {sums.sum() / max(times.sum(), 1):.3f} clip norms on average, and by "
            f"{training.lone:.3f} in all tensors together",
        ),
        "division": (
            checks.equal_variance(float(squares.sum()), n, nobody, m),
            f"noise has {np.sqrt(squares.sum() / n):.3f} of its declared deviation with {len(training.patients)} "
            f"patients and {np.sqrt(nobody / m):.3f} with none",
        ),
    }
    return [Check(name=name, holds=p >= error, seen=f"{text} (p = {p:.1g})") for name, (p, text) in found.items()]


def _charges(training: Training) -> Check:
    """The ledger against the steps that left."""
    plan, left = training.plan, len(training.seen.squares)
    charged = sum(one.steps for one in training.charges)
    true = all(
        (one.rate, one.noise, one.delta) == (plan.settings.rate, plan.noise, plan.settings.delta)
        for one in training.charges
    )
    seen = f"{left} steps left, {charged} were charged, {plan.steps} are planned"
    seen += "" if true else ", and not with what was done"
    holds = charged == left == plan.steps and true and not training.complaint
    return Check(name="charges", holds=holds, seen=f"{seen}; {training.complaint}" if training.complaint else seen)


def as_result(audits: Sequence[MechanismAudit]) -> Result:
    """The result in its common form, told by the audit whose bound exceeds its claim most."""
    worst = max(audits, key=lambda one: (one.verdict == "fail", one.proven - one.claim))
    bound = Score(value=worst.proven, low=worst.proven, baseline=worst.expected, n=worst.canaries)
    return Result(
        benchmark=NAME,
        verdict=worst.verdict,
        scores={"epsilon_lower_bound": bound},
        details={"mechanisms": [_described(one) for one in audits]},
        inputs={},
        seed=0,
        settings={"canaries": worst.canaries, "error": CURVE + ONE_RUN + 5 * PROPERTY},
        seconds=sum(one.seconds for one in audits),
    )


def _described(one: MechanismAudit) -> dict[str, Any]:
    names = ("verdict", "contradictions", "claim", "canaries", "included", "found", "wrong")
    numbers = ("proven", "expected", "one_run", "seconds")
    return {name: getattr(one, name) for name in (*names, *numbers)} | {
        "mechanism": one.plan.summary(),
        "checks": {check.name: {"holds": check.holds, "seen": check.seen} for check in one.checks},
    }
