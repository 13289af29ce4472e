"""How much a single patient is told by the output: an attacker's true positives, patients beyond doubt, an epsilon.

*Depends on members* is true of every generator that learnt anything; this says how far. It knows numbers of patients,
not images or distances.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.replication import Copies
from fedsynth.evaluation.roc import true_positive_interval, true_positive_rate
from fedsynth.evaluation.score import Score

FALSE_POSITIVES = 0.01


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What an attacker who looks for single patients gets.

    `recognised` is the share of members above the score that at most 1 % of the holdout exceeds; its interval holds the
    patient bootstrap and the binomial one. `certain` of `members` have an image that counts as their copy; `epsilon` is
    the smallest with which any guarantee could still hold (95 %), from how many members and holdout patients have one.
    """

    recognised: Score
    certain: int
    members: int
    epsilon: float

    def __str__(self) -> str:
        low, high = self.recognised.low or 0.0, self.recognised.high or 0.0
        fits = f" No guarantee with an epsilon below {self.epsilon:.2g} fits that." if self.epsilon > 0 else ""
        return (
            f"An attacker recognises {percent(self.recognised.value or 0.0)} of the members ({percent(low)} to "
            f"{percent(high)}) where he is wrong about 1 % of the others; guessing gives 1 %. Beyond doubt is the "
            f"evidence for {self.certain or 'none'} of {self.members} members.{fits}"
        )


def effect_of(scores: NDArray[np.floating], copies: Copies, cohort: Cohort, *, seed: int) -> Effect:
    """From one score per patient, larger for whom the output points to, and from the copies."""
    member, n_members, n_holdout = cohort.member, cohort.n_members, cohort.n_holdout
    known = np.where(np.isfinite(scores), scores, -1e30)
    value = true_positive_rate(known, member, FALSE_POSITIVES)
    rng = np.random.default_rng([seed, *b"effect"])
    drawn = true_positive_interval(known, member, FALSE_POSITIVES, rng)
    exact = clopper_pearson(round(value * n_members), n_members)
    copied = np.unique(copies.patients)
    certain, wrong = int(member[copied].sum()), int((~member[copied]).sum())
    low, high = clopper_pearson(certain, n_members)[0], clopper_pearson(wrong, n_holdout)[1]
    return Effect(
        recognised=Score(
            value=value,
            low=min(drawn[0], exact[0]),
            high=max(drawn[1], exact[1]),
            baseline=FALSE_POSITIVES,
            n=n_members,
        ),
        certain=certain,
        members=n_members,
        epsilon=max(0.0, float(np.log(low / high))) if low > 0 else 0.0,
    )


def percent(share: float) -> str:
    """A share in words, with two digits where it is small."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
