"""What a membership test means: its verdict in words, and every number with its interval, baseline and controls.

An attack that fails shows that this attack failed. The words never say more than that.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.membership import inference
from fedsynth.evaluation.membership.inference import LEVEL, Z_POWER, Attack, Membership
from fedsynth.evaluation.roc import (
    FALSE_POSITIVE_RATES,
    RESOLVED_BY,
    auc,
    auc_interval,
    resolvable,
    roc,
    true_positive_interval,
    true_positive_rate,
)
from fedsynth.evaluation.score import Score, Verdict

LARGEST_UNSEEN = 0.75
"""A test that could miss a larger AUC than this reassures nobody."""
SMALLEST_SITE = 4
REPEATS = 1000


@dataclass(frozen=True, kw_only=True)
class MembershipVerdict:
    """The verdict, in one word and in sentences for a data steward."""

    verdict: Verdict
    words: str


def membership_verdict(found: Membership) -> MembershipVerdict:
    """*leak* when the joint exact test rejects at 5 % while the controls hold; *pass* only where it could have
    rejected.

    Each of k attacks with a 95 % interval of its own would call k honest sets in 40 a leak, so one joint p-value
    decides and the intervals stand beside it.
    """
    if words := _broken(found):
        return MembershipVerdict(verdict="invalid", words=words)
    if found.cohort.not_drawn:
        words = f"Nothing can be said: {found.cohort.not_drawn}, and members may differ from the holdout by themselves."
        return MembershipVerdict(verdict="inconclusive", words=words)
    best = strongest(found)
    reached = f"{best.label} reaches an AUC of {_of(found, best):.2f} (0.5 is guessing; joint p = {found.p_value:.2g})"
    if found.p_value <= LEVEL:
        words = f"Members can be distinguished from patients who were never seen: {reached}, and the controls hold."
        return MembershipVerdict(verdict="leak", words=words)
    if found.resolvable_auc > LARGEST_UNSEEN:
        patients = patients_needed(found)
        words = (
            f"Too few patients: only an AUC of {found.resolvable_auc:.2f} or more would have been found with 80 % "
            f"power. About {patients} members and as many holdout patients would show {LARGEST_UNSEEN:g}."
        )
        return MembershipVerdict(verdict="inconclusive", words=words)
    words = (
        f"No attack tells members from the holdout beyond its controls: the strongest, {reached}. An AUC of "
        f"{found.resolvable_auc:.2f} or more would have been found with 80 % power. That these attacks fail does not "
        f"prove that none succeeds."
    )
    return MembershipVerdict(verdict="pass", words=words)


def strongest(found: Membership) -> Attack:
    """The attack with the smallest p-value of its own."""
    return min(found.attacks, key=lambda attack: (attack.p_value, -_of(found, attack)))


def patients_needed(found: Membership) -> int:
    """Members (and as many holdout patients) with which an AUC of `LARGEST_UNSEEN` would be found, roughly."""
    members, holdout = found.cohort.n_members, found.cohort.n_holdout
    alike = 2 * members * holdout / (members + holdout)
    beyond = LARGEST_UNSEEN - 0.5
    # An AUC of n against n has a null variance of about 1 / (6 n); 2.5 is the critical value over some ten attacks.
    fewest = ((2.5 + Z_POWER) / beyond) ** 2 / 6
    return math.ceil(max(fewest, alike * ((found.resolvable_auc - 0.5) / beyond) ** 2))


def scores_of(found: Membership, *, seed: int) -> dict[str, Score]:
    """The AUC of every attack, and its true-positive rates where the holdout can carry them.

    Baseline of an AUC is the classifier that sees no release, control the mean over honest sets.
    """
    scores: dict[str, Score] = {}
    for number, attack in enumerate(found.attacks):
        rng = np.random.default_rng([seed, number, *b"curves"])
        scores[attack.label] = auc_score(
            attack.scores, found.cohort.member, rng, baseline=found.blind.auc, control=_mean(attack.honest)
        )
        for rate in FALSE_POSITIVE_RATES:
            name = f"{attack.label}, true positives at {100 * rate:g} % false ones"
            scores[name] = rate_score(attack.scores, found.cohort.member, rate, rng)
    return scores


def site_scores(found: Membership, *, seed: int) -> dict[str, dict[str, Score]]:
    """The AUC of every attack among the patients of each site."""
    cohort = found.cohort
    scores: dict[str, dict[str, Score]] = {}
    for site, name in enumerate(cohort.sites):
        inside = cohort.site == site
        rng = np.random.default_rng([seed, site, *b"sites"])
        scores[name] = {a.label: auc_score(a.scores[inside], cohort.member[inside], rng) for a in found.attacks}
    return scores if len(cohort.sites) > 1 else {}


def auc_score(
    scores: NDArray[np.float64],
    member: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    baseline: float | None = None,
    control: float | None = None,
) -> Score:
    """An AUC with its patient bootstrap; not resolvable with fewer than four members or holdout patients."""
    fewest = int(min(member.sum(), (~member).sum()))
    if fewest < SMALLEST_SITE:
        why = f"not resolvable: {int(member.sum())} members and {int((~member).sum())} holdout patients"
        return Score(value=None, why=why, n=len(member))
    low, high = auc_interval(scores, member, rng, repeats=REPEATS)
    return Score(value=auc(scores, member), low=low, high=high, baseline=baseline, control=control, n=len(member))


def rate_score(scores: NDArray[np.float64], member: NDArray[np.bool_], rate: float, rng: np.random.Generator) -> Score:
    """The true-positive rate at a false-positive rate, whose baseline is that rate itself."""
    holdout = int((~member).sum())
    if not resolvable(holdout, rate):
        needed = math.ceil(RESOLVED_BY / rate - 1e-9)
        why = f"not resolvable: {holdout} holdout patients, and {100 * rate:g} % needs {needed}"
        return Score(value=None, why=why, n=len(member))
    low, high = true_positive_interval(scores, member, rate, rng, repeats=REPEATS)
    return Score(value=true_positive_rate(scores, member, rate), low=low, high=high, baseline=rate, n=len(member))


def details_of(found: Membership, told: MembershipVerdict) -> dict[str, Any]:
    """Everything beside the scores: words, p-values, controls, the ROC of every attack."""
    cohort = found.cohort
    return {
        "words": told.words,
        "strongest": strongest(found).label,
        "p_value": None if cohort.not_drawn else found.p_value,
        "level": LEVEL,
        "permutations": found.permutations,
        "resolvable_auc": None if cohort.not_drawn else found.resolvable_auc,
        "member_share": cohort.n_members / len(cohort),
        "controls": {
            "blind": asdict(found.blind) | {"rejects": found.blind.rejects(inference.CONTROL_LEVEL)},
            "honest": {"p_value": found.honest_p, "rejects": found.honest_p <= inference.CONTROL_LEVEL},
            "among_members": {"p_value": found.members_p, "rejects": found.members_p <= inference.CONTROL_LEVEL},
        },
        "attacks": {attack.label: _attack_details(attack, cohort.member) for attack in found.attacks},
    }


def _attack_details(attack: Attack, member: NDArray[np.bool_]) -> Mapping[str, Any]:
    curve = roc(attack.scores, member)
    corners = np.r_[True, np.diff(curve.false_positive)[1:] + np.diff(curve.false_positive)[:-1] > 0, True]
    return {
        "p_value": attack.p_value,
        "honest": attack.honest,
        "among_members": attack.among_members,
        "roc": {"false_positive": curve.false_positive[corners], "true_positive": curve.true_positive[corners]},
    }


def _broken(found: Membership) -> str:
    """Which control failed, in words; empty where all hold."""
    if found.blind.rejects(inference.CONTROL_LEVEL):
        return (
            f"INVALID: members differ from the holdout without any synthetic image being looked at (a classifier's "
            f"AUC {found.blind.auc:.2f}, that of one fact {found.blind.single:.2f}, p = {found.blind.p_value:.2g}). "
            f"Whatever an attack finds may be that difference. Draw the roles at random: fedsynth split."
        )
    if found.honest_p <= inference.CONTROL_LEVEL:
        worst = max(found.attacks, key=lambda attack: abs((_mean(attack.honest) or 0.5) - 0.5))
        return (
            f"INVALID: {worst.label} singles out patients of an honest set, half of the holdout (AUC "
            f"{_mean(worst.honest):.2f} where 0.5 is right). A reference that was fitted on the holdout does this."
        )
    if found.members_p <= inference.CONTROL_LEVEL:
        worst = max(found.attacks, key=lambda attack: abs((_mean(attack.among_members) or 0.5) - 0.5))
        return (
            f"INVALID: {worst.label} tells random halves of the members apart (AUC {_mean(worst.among_members):.2f})."
        )
    return ""


def _of(found: Membership, attack: Attack) -> float:
    return auc(attack.scores, found.cohort.member)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
