"""Does a network that learned classes from synthetic images tell those of real patients? Accuracy and AUC per arm."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fedsynth.data import ImageSet
from fedsynth.evaluation.utility.patient_scores import Measure, Rows, Values
from fedsynth.evaluation.utility.training_arms import LOCAL, Learned

# How well predicted classes fit: accuracy, balanced accuracy, AUC and calibration.
#
# All take the true class numbers (n,) and the probabilities (n, classes) of the same images.


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
    """The area under the ROC curve of each class against the rest, averaged over the classes that can be scored."""
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


LEAD = ("accuracy", "balanced_accuracy", "auc", "calibration")
COMPARED = ("accuracy",)
"""The scores of which the ratio to real images and the skill over the controls are given."""
LOWER_IS_BETTER = ("calibration",)


def score_arm(networks: dict[str, Learned], holdout: ImageSet) -> pd.DataFrame:
    """A row per image with a class and per network: `row,patient,site,truth,of` and a probability per class."""
    number = {name: i for i, name in enumerate(holdout.header.classes)}
    truth = holdout.cases["class"].map(number)
    tables = []
    for site, network in networks.items():
        chances = np.stack(list(network.predict(holdout)))
        table = holdout.cases[["patient", "site"]].assign(row=range(len(holdout)), truth=truth, of=site)
        tables.append(table.assign(**{f"p{i}": chances[:, i] for i in range(chances.shape[1])}).dropna())
    return pd.concat(tables, ignore_index=True).astype({"truth": int})


def measures(scored: Sequence[pd.DataFrame]) -> dict[str, Measure]:
    """Accuracy, balanced accuracy, AUC and calibration error of one arm from a table per seed.

    Hospitals that learnt alone each score all images, and their marks are averaged.
    """
    return {name: _measure(scored, measure, each=name == "accuracy") for name, measure in MEASURES.items()}


def at_home(arm: str, scored: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """What a hospital sees of an arm: of networks that learnt alone, its own only."""
    if arm != LOCAL:
        return list(scored)
    return [table[table["of"] == table["site"]].assign(of="").sort_values("row") for table in scored]


def _measure(scored: Sequence[pd.DataFrame], measure: Callable[[Truth, Chances], float], *, each: bool) -> Measure:
    of_seed = [[part for _, part in table.groupby("of", sort=True)] for table in scored]
    first = of_seed[0][0]
    truth, patients = first["truth"].to_numpy(np.int64), first["patient"].to_numpy(str)
    chances = [[_chances(part) for part in parts] for parts in of_seed]

    def of_seeds(rows: Rows) -> Values:
        return np.array([np.mean([measure(truth[rows], one[rows]) for one in networks]) for networks in chances])

    per_patient = np.stack([_right_per_patient(networks, truth, patients) for networks in chances]) if each else None
    return Measure(patients=patients, sites=first["site"].to_numpy(str), of_seeds=of_seeds, each=per_patient)


def _right_per_patient(networks: Sequence[Chances], truth: Truth, patients: NDArray[np.str_]) -> Values:
    right = np.mean([one.argmax(1) == truth for one in networks], axis=0)
    return np.asarray(pd.Series(right).groupby(patients).mean(), np.float64)


def _chances(part: pd.DataFrame) -> Chances:
    columns = [name for name in part.columns if name.startswith("p") and name[1:].isdecimal()]
    return np.asarray(part[columns], np.float64)
