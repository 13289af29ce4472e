"""How much a single patient is told by the output: an attacker's true positives, patients beyond doubt, an epsilon.

*Depends on members* is true of every generator that learnt anything; this says how far. It knows numbers of patients,
not images or distances.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsynth.evaluation.bootstrap import LEVEL, clopper_pearson
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.replication import Copies
from fedsynth.evaluation.roc import RESOLVED_BY, true_positive_rate
from fedsynth.evaluation.score import Score

FALSE_POSITIVES = 0.01
MOST_FALSE = 0.1
"""Where the holdout resolves no smaller rate than this, nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What an attacker who looks for single patients gets.

    `recognised` is the share of members above the score that a share of the holdout exceeds: 1 %, or the smallest that
    so many holdout patients resolve, its `baseline`. `certain` of `members` have an image that counts as their copy,
    and `wrong` of `holdout`; `epsilon` is the smallest with which any guarantee of pure differential privacy could
    still hold (95 %), from these numbers.
    """

    recognised: Score
    certain: int
    members: int
    wrong: int
    holdout: int
    epsilon: float

    def __str__(self) -> str:
        fits = f" No guarantee with an epsilon below {self.epsilon:.2g} (delta = 0) fits that." if self.epsilon else ""
        return f"{self._recognised()} {self._certain()}{fits}"

    def _recognised(self) -> str:
        score = self.recognised
        if score.value is None or score.baseline is None:
            return f"How many members an attacker recognises is unknown: {score.why}."
        low, high, rate = percent(score.low or 0.0), percent(score.high or 0.0), percent(score.baseline)
        return (
            f"An attacker recognises {percent(score.value)} of the members ({low} to {high}) where he is wrong about "
            f"{rate} of the others; guessing gives {rate}."
        )

    def _certain(self) -> str:
        if self.wrong:
            return (
                f"{self.certain} of {self.members} members have an image that counts as their copy, and {self.wrong} "
                f"of {self.holdout} holdout patients, who cannot have been copied."
            )
        return f"Beyond doubt is the evidence for {self.certain or 'none'} of {self.members} members."


def effect_of(
    scores: NDArray[np.floating], copies: Copies, cohort: Cohort, *, apart: NDArray[np.bool_] | None = None
) -> Effect:
    """From one score per patient, larger for whom the output points to, and from the copies.

    Patients `apart`, whose persons stand in both roles, are left out.
    """
    asked = np.ones(len(cohort), bool) if apart is None else ~apart
    copied = np.isin(np.arange(len(cohort)), copies.patients) & asked
    member, holdout = cohort.member & asked, ~cohort.member & asked
    certain, wrong = int((copied & member).sum()), int((copied & holdout).sum())
    epsilon = 0.0
    if certain and holdout.any():
        low, high = clopper_pearson(certain, int(member.sum()))[0], clopper_pearson(wrong, int(holdout.sum()))[1]
        epsilon = max(0.0, float(np.log(low / high)))
    known = np.where(np.isfinite(scores), scores, -1e30)
    return Effect(
        recognised=_recognised(known[member], known[holdout]),
        certain=certain,
        members=int(member.sum()),
        wrong=wrong,
        holdout=int(holdout.sum()),
        epsilon=epsilon,
    )


def _recognised(members: NDArray[np.floating], holdout: NDArray[np.floating]) -> Score:
    """The share of members above the quantile of the holdout, with an interval that holds whatever the scores are.

    The quantile lies between two ranks of the holdout, and the share above each has Clopper and Pearson's interval:
    either is wrong in 2.5 % of all cases at most.
    """
    n, rate = len(holdout), max(FALSE_POSITIVES, RESOLVED_BY / max(len(holdout), 1))
    if rate > MOST_FALSE or not len(members):
        needed = round(RESOLVED_BY / MOST_FALSE)
        return Score(
            value=None, why=f"{n} holdout patients resolve no small rate of errors; {needed} do", n=len(members)
        )
    one_side = (1 - LEVEL) / 4
    fewest, most = (int(rank) for rank in stats.binom.ppf([one_side, 1 - one_side], n, rate))
    falling = np.append(np.sort(holdout)[::-1], -np.inf)
    highest = falling[fewest - 1] if fewest else np.inf
    half = (1 + LEVEL) / 2
    is_member = np.arange(len(members) + n) < len(members)
    return Score(
        value=true_positive_rate(np.concatenate([members, holdout]), is_member, rate),
        low=clopper_pearson(int((members > highest).sum()), len(members), half)[0],
        high=clopper_pearson(int((members > falling[most]).sum()), len(members), half)[1],
        baseline=rate,
        n=len(members),
    )


def percent(share: float) -> str:
    """A share in words, with two digits where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
