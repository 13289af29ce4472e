"""The blind baseline: can members be told from the holdout without looking at what was released?

If they can, the roles were not drawn at random (another scanner, other years), and any attack that succeeds may have
found the difference between the patients instead of a leak. It sees real images, or features of them, and roles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.permutation_test import permute_roles
from fedsynth.evaluation.roc import auc, auc_interval, aucs

FACTS = "brightness and contrast"
FEWEST_PATIENTS = 10
PERMUTATIONS = 1999
RIDGE = 1.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MOST_PATIENTS = 2000
"""More are not needed to see a difference that matters, and the kernel matrix is of this size squared."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Blind:
    """The AUC of a classifier on real patients left out, its interval, and the exact p-value of a difference.

    `space` is where the classifier does best. The p-value is joint over spaces and over the single fact that differs
    most, whose AUC is `single`: a classifier is weak where one fact of many differs, and a single fact where all do.
    """

    auc: float
    low: float
    high: float
    single: float
    p_value: float
    space: str
    n: int

    def rejects(self, level: float) -> bool:
        """Whether members differ from the holdout by themselves, so that no test between them means anything."""
        return self.p_value <= level


def blind_baseline(
    facts: NDArray[np.floating],
    cohort: Cohort,
    *,
    seed: int,
    features: Mapping[str, NDArray[np.floating]] | None = None,
    permutations: int = PERMUTATIONS,
    most: int = MOST_PATIENTS,
) -> Blind:
    """Kernel ridge regressions of the role on `facts` (patients, d) and on the `features` of each space.

    Everything is relative to its stratum, every prediction is for a patient left out. The p-value ranks what is found
    among what redrawn roles give: a left-out AUC is not centred on 0.5, but the redrawn ones are off it alike. Of more
    than `most` patients a sample is looked at, half of it members where there are as many.
    """
    rng = np.random.default_rng([seed, *b"blind"])
    chosen = _sample(cohort.member, most, rng)
    member, stratum = cohort.member[chosen], cohort.stratum[chosen]
    if len(chosen) < FEWEST_PATIENTS or not 0 < member.sum() < len(member):
        return Blind(auc=0.5, low=0.0, high=1.0, single=0.5, p_value=1.0, space=FACTS, n=len(chosen))
    roles = np.vstack([member[None], permute_roles(member, stratum, permutations, rng)])
    centred = centred_by_site(roles.astype(float), stratum).T
    statistics, predicted = [], {}
    for name, rows in {FACTS: facts, **(features or {})}.items():
        scaled = _scaled(centred_by_site(np.asarray(rows, float)[chosen].T, stratum).T)
        left_out = _left_out_predictions(_kernel(scaled), centred)
        predicted[name] = centred_by_site(left_out[:, 0], stratum)
        statistics.append((left_out * centred).sum(axis=0) / np.maximum(np.linalg.norm(left_out, axis=0), 1e-12))
        if name == FACTS:
            single = _furthest_fact(scaled, roles)
            statistics.append(single)
    space = max(predicted, key=lambda name: auc(predicted[name], member))
    low, high = auc_interval(predicted[space], member, rng)
    return Blind(
        auc=auc(predicted[space], member),
        low=low,
        high=high,
        single=float(single[0]),
        p_value=_rank_of_the_furthest(np.column_stack(statistics)),
        space=space,
        n=len(chosen),
    )


def _rank_of_the_furthest(values: NDArray[np.float64]) -> float:
    """The rank of the first row (rows, k) by its largest value, in deviations of its column: no ties as of p-values."""
    spread = np.maximum(values.std(axis=0), 1e-12)
    furthest = ((values - values.mean(axis=0)) / spread).max(axis=1)
    return float(np.mean(furthest >= furthest[0] - 1e-12))


def _sample(member: NDArray[np.bool_], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    if len(member) <= most:
        return np.arange(len(member))
    by_role = (np.flatnonzero(member == role) for role in (True, False))
    return np.sort(np.concatenate([rng.permutation(patients)[: most // 2] for patients in by_role]))


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


def means_of_patients(features: Stack, patients: NDArray[np.int64], n_patients: int) -> NDArray[np.float64]:
    """The mean of each patient's images."""
    return patient_facts(features, patients, n_patients)[:, : features.shape[1]]


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


def _left_out_predictions(kernel: NDArray[np.float64], roles: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each patient is predicted by all others, for every column of roles, in closed form."""
    hat = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), kernel).T
    leverage = np.diag(hat)[:, None]
    return np.asarray((hat @ roles - leverage * roles) / (1 - leverage))
