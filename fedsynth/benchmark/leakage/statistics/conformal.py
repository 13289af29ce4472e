"""Conformal p-values of single images or patients against a calibration set, and what so many can resolve."""

import numpy as np
from numpy.typing import NDArray


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
