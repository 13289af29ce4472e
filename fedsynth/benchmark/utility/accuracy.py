"""How well predicted classes fit: accuracy, balanced accuracy, AUC and calibration.

All take the true class numbers (n,) and the probabilities (n, classes) of the same images.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import stats

BINS = 10

Truth = NDArray[np.int64]
Chances = NDArray[np.float64]


def accuracy(truth: Truth, chances: Chances) -> float:
    """The share of images whose likeliest class is the true one."""
    return float((chances.argmax(1) == truth).mean())


def balanced_accuracy(truth: Truth, chances: Chances) -> float:
    """The mean over the classes that occur of the share of their images that are told right."""
    right = chances.argmax(1) == truth
    return float(np.mean([right[truth == number].mean() for number in np.unique(truth)]))


def auc(truth: Truth, chances: Chances) -> float:
    """The area under the ROC curve of each class against the rest, averaged over the classes that can be judged."""
    areas = []
    for number in range(chances.shape[1]):
        own = truth == number
        n, others = int(own.sum()), int((~own).sum())
        if n and others:
            ranks = stats.rankdata(chances[:, number])[own].sum()
            areas.append((ranks - n * (n + 1) / 2) / (n * others))  # Mann and Whitney
    return float(np.mean(areas)) if areas else np.nan


def calibration_error(truth: Truth, chances: Chances) -> float:
    """How far confidence lies from truth (Guo et al. 2017): mean over ten bins, weighted by their images."""
    sure, right = chances.max(1), chances.argmax(1) == truth
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


MEASURES: dict[str, Callable[[Truth, Chances], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "auc": auc,
    "calibration": calibration_error,
}
