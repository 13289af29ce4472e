"""The blind baseline: can members be told from the holdout without looking at what was released?

If they can, the roles were not drawn at random (another scanner, other years), and any attack that succeeds may have
found the difference between the patients instead of a leak. It sees real images, or features of them, and roles.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.benchmark.leakage.cohort import Cohort
from fedsynth.benchmark.leakage.curves import auc, auc_interval, aucs
from fedsynth.benchmark.leakage.statistics.permutation import min_p, permute_roles
from fedsynth.images import ImageSet
from fedsynth.images.rows import Stack, blocks

LEVEL = 0.01
"""One honest report in a hundred is voided for nothing; at 5 % it would be one in twenty."""
FOLDS = 5
PERMUTATIONS = 999
RIDGE = 1.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOST_PATIENTS = 2000
"""More are not needed to see a difference that matters, and the kernel matrix is of this size squared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blind:
    """The AUC of a cross-validated classifier on real patients, its interval, and the exact p-value of a difference.

    The p-value is that of the classifier and of the single fact that differs most, jointly; `single` is the latter's
    AUC. A classifier is weak where one fact of many differs, and a single fact where all do a little.
    """

    auc: float
    low: float
    high: float
    single: float
    p_value: float
    n: int

    @property
    def fires(self) -> bool:
        """Whether members differ from the holdout by themselves, so that no membership test means anything."""
        return self.p_value <= LEVEL


def blind_baseline(
    facts: NDArray[np.floating], cohort: Cohort, *, seed: int, permutations: int = PERMUTATIONS
) -> Blind:
    """A kernel ridge classifier on `facts` (patients, d), by patient in five folds, sites compared within themselves.

    The p-value ranks what is found among what is found on roles redrawn within their strata, learnt again each time:
    a cross-validated AUC is not centred on 0.5, but the redrawn ones are off it in the same way.
    """
    rng = np.random.default_rng([seed, *b"blind"])
    chosen = np.sort(rng.permutation(len(cohort))[:MOST_PATIENTS])
    members, strata, site = cohort.member[chosen], cohort.stratum[chosen], cohort.site[chosen]
    if len(chosen) < 2 * FOLDS or not 0 < members.sum() < len(members):
        return Blind(auc=0.5, low=0.0, high=1.0, single=0.5, p_value=1.0, n=len(chosen))
    scaled = _scaled(centred_by_site(np.asarray(facts, float)[chosen].T, site).T)
    roles = np.vstack([members[None], permute_roles(members, strata, permutations, rng)])
    predicted = _predictions(_kernel(scaled), roles.T.astype(float), rng.permutation(len(chosen)) % FOLDS)
    predicted = centred_by_site(predicted.T, site)
    learnt = np.array([auc(scores, role) for scores, role in zip(predicted, roles, strict=True)])
    single = _furthest_fact(scaled, roles)
    found = np.column_stack([learnt, single])
    low, high = auc_interval(predicted[0], members, rng)
    p = min_p(found[0], found[1:])
    return Blind(auc=float(learnt[0]), low=low, high=high, single=float(single[0]), p_value=p, n=len(chosen))


def facts_of_images(images: ImageSet, cohort: Cohort) -> NDArray[np.float64]:
    """Per patient what a scanner or an archive leaves in images: brightness and contrast by channel, and their number.

    Mean and quantiles of each channel, averaged over the patient's images, their spread, and the log of how many.
    """
    rows = []
    scale = 255.0 if images.images.dtype == np.uint8 else 1.0
    for _, block in blocks(images.images):
        values = block.reshape(*block.shape[:2], -1) / scale
        spread = np.quantile(values, QUANTILES, axis=2).transpose(1, 2, 0)
        detail = np.abs(np.diff(values, axis=2)).mean(axis=2, keepdims=True)
        stacked = np.concatenate([values.mean(axis=2, keepdims=True), spread, detail], axis=2)
        rows.append(stacked.reshape(len(block), -1))
    return patient_facts(np.concatenate(rows), cohort.numbers(images), len(cohort), counts=True)


def patient_facts(
    features: Stack, patients: NDArray[np.int64], n_patients: int, *, counts: bool = False
) -> NDArray[np.float64]:
    """Mean and standard deviation of `features` over each patient's images, and with `counts` the log of how many."""
    n = np.bincount(patients, minlength=n_patients)[:, None].astype(float)
    total, squares = (np.zeros((n_patients, features.shape[1])) for _ in range(2))
    for start, block in blocks(features):
        values, rows = block.astype(float), patients[start : start + len(block)]
        np.add.at(total, rows, values)
        np.add.at(squares, rows, values**2)
    mean = total / n
    spread = np.sqrt(np.maximum(squares / n - mean**2, 0))
    return np.hstack([mean, spread, np.log(n)] if counts else [mean, spread])


def centred_by_site(scores: NDArray[np.float64], site: NDArray[np.integer]) -> NDArray[np.float64]:
    """Scores (..., patients) less the mean of each site: what one scanner shifts must not be read as membership.

    Not the median: where an attack succeeds, it falls among members at one site and among the holdout at the next.
    """
    found = np.array(scores, float)
    for here in np.unique(site):
        inside = site == here
        if np.isfinite(found[..., inside]).any():
            found[..., inside] -= np.nanmean(found[..., inside], axis=-1, keepdims=True)
    return found


def _scaled(facts: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = facts.std(axis=0)
    varied = spread > 1e-9
    return np.asarray((facts - facts.mean(axis=0))[:, varied] / spread[varied])


def _furthest_fact(facts: NDArray[np.float64], roles: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Under each assignment of roles, the AUC of the fact that tells most, in whichever direction."""
    furthest = np.full(len(roles), 0.5)
    for fact in facts.T:
        found = aucs(fact, roles)
        np.maximum(furthest, np.maximum(found, 1 - found), out=furthest)
    return furthest


def _kernel(facts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian, as wide as the median distance, with a linear part, which sees small shifts best."""
    squares = np.square(facts).sum(axis=1)
    inner = facts @ facts.T
    distances = np.maximum(squares[:, None] + squares - 2 * inner, 0)
    median = np.median(distances[~np.eye(len(facts), dtype=bool)])
    made: NDArray[np.float64] = np.exp(-distances / max(median, 1e-12)) + inner / max(1, facts.shape[1])
    return made


def _predictions(
    kernel: NDArray[np.float64], labels: NDArray[np.float64], fold: NDArray[np.intp]
) -> NDArray[np.float64]:
    """What each patient is predicted by the other folds, for many columns of labels at once."""
    made = np.empty_like(labels)
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        mean = labels[outside].mean(axis=0)
        ridge = kernel[np.ix_(outside, outside)] + RIDGE * np.eye(len(outside))
        made[inside] = kernel[np.ix_(inside, outside)] @ np.linalg.solve(ridge, labels[outside] - mean)
    return made
