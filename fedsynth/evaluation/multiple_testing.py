"""Choosing among many: corrections for several tests, and lists with a stated rate of false discoveries."""

import numpy as np
from numpy.typing import NDArray

# Conformal p-values of single images or patients against a calibration set, and what so many can resolve.


def conformal_p(scores: NDArray[np.floating], calibration: NDArray[np.floating]) -> NDArray[np.float64]:
    """For each score, the share of itself and the calibration scores that are at least as large: large is evidence.

    Exact where score and calibration are exchangeable: one image per holdout patient, not all of a patient's.
    """
    calibration = np.sort(np.asarray(calibration, float))
    if np.isnan(calibration).any() or np.isnan(scores).any():
        raise ValueError("a score is not a number")
    at_least = len(calibration) - np.searchsorted(calibration, np.asarray(scores, float), side="left")
    return np.asarray((1 + at_least) / (len(calibration) + 1), float)


def smallest_p(n_calibration: int) -> float:
    """No conformal p-value against so many calibration scores is smaller."""
    return 1 / (n_calibration + 1)


def resolution_limit(n_calibration: int, rate: float) -> float:
    """The smallest share of all tested for which Benjamini and Hochberg at `rate` could flag any; 1 and more: none."""
    return smallest_p(n_calibration) / rate


def holm(p: NDArray[np.floating]) -> NDArray[np.float64]:
    """Holm's adjusted p-values: those at most alpha are significant, with no false one but for a chance of alpha."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def target_decoy(
    scores: NDArray[np.floating],
    is_target: NDArray[np.bool_],
    rate: float,
    *,
    n_targets: int | None = None,
    n_decoys: int | None = None,
) -> NDArray[np.bool_]:
    """The targets whose score is high enough that decoys say at most `rate` of the chosen are there by chance.

    Members are targets, holdout patients decoys. Above a threshold, (1 + decoys) x n_targets / (n_decoys + 1) targets
    are expected by chance: without that factor a split of 70 to 30 would double the rate. This is Benjamini and
    Hochberg's rule on the conformal p-values of the targets, so the rate holds for every sample size. The numbers may
    be those of all patients where `scores` holds only some, the unscored being below every threshold.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    values: NDArray[np.float64] = np.asarray(scores, float)
    targets, decoys = values[is_target], values[~is_target]
    n_targets = len(targets) if n_targets is None else n_targets
    n_decoys = len(decoys) if n_decoys is None else n_decoys
    if n_targets < len(targets) or n_decoys < len(decoys):
        raise ValueError("more scores than patients")
    thresholds = np.unique(targets)
    chosen = _at_least(targets, thresholds)
    expected = (1 + _at_least(decoys, thresholds)) * n_targets / (n_decoys + 1)
    allowed = thresholds[expected <= rate * chosen * (1 + 1e-12)]
    if len(allowed) == 0:
        return np.zeros(len(scores), bool)
    return np.asarray(is_target & (values >= allowed[0]), bool)


def fewest_discoveries(n_targets: int, n_decoys: int, rate: float) -> int | None:
    """The shortest list that `target_decoy` can give at all, reached when no decoy scores as high; None if none can."""
    fewest = int(np.ceil(n_targets / (n_decoys + 1) / rate * (1 - 1e-12)))
    return fewest if fewest <= n_targets else None


def _at_least(values: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.intp]:
    return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")
