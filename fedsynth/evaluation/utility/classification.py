"""Does a network that learned classes from synthetic images tell those of real patients? Accuracy and AUC per arm."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from fedsynth.data import ImageSet
from fedsynth.evaluation.utility.patient_scores import Measure, Rows, Values
from fedsynth.evaluation.utility.training_arms import Networks, scored_by

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
OF_ONE_NETWORK = ("auc", "calibration")
"""What compares probabilities of different images, which only one network's can be."""


def score_arm(networks: Networks, holdout: ImageSet) -> pd.DataFrame:
    """A row per image with a class: `case,patient,site,truth,network` and a probability per class, by case.

    `network` is the site whose network was asked; nothing where one network was asked about all.
    """
    number = {name: i for i, name in enumerate(holdout.header.classes)}
    tables = []
    for network, images in scored_by(networks, holdout):
        chances = np.stack(list(network.predict(images)))
        table = images.cases[["case", "patient", "site"]].assign(truth=images.cases["class"].map(number))
        table = table.assign(network=table["site"] if len(networks) > 1 else "")
        tables.append(table.assign(**{f"p{i}": chances[:, i] for i in range(chances.shape[1])}).dropna())
    return pd.concat(tables).sort_values("case", ignore_index=True).astype({"truth": int})


def measures(scored: Sequence[pd.DataFrame]) -> dict[str, Measure]:
    """Accuracy, balanced accuracy, AUC and calibration error of one arm from a table per seed.

    AUC and calibration set probabilities of different images side by side. Those of different networks mean different
    things: where each site has its own, both are means over the sites, weighted by patients.
    """
    return {name: _measure(scored, name) for name in MEASURES}


def _measure(scored: Sequence[pd.DataFrame], name: str) -> Measure:
    truth, patients = scored[0]["truth"].to_numpy(np.int64), scored[0]["patient"].to_numpy(str)
    networks = scored[0]["network"].to_numpy(str) if name in OF_ONE_NETWORK else np.full(len(truth), "")
    weights = 1 / scored[0].groupby("patient")["patient"].transform("size").to_numpy(np.float64)
    chances, measure = [_chances(table) for table in scored], MEASURES[name]

    def of_seeds(rows: Rows) -> Values:
        parts = [rows[networks[rows] == network] for network in np.unique(networks[rows])]
        found = np.array([[measure(truth[part], one[part]) for part in parts] for one in chances])
        known = np.isfinite(found) * np.array([weights[part].sum() for part in parts])  # a site may have one class only
        total = np.where(np.isfinite(found), found, 0) * known
        return np.asarray(
            np.divide(total.sum(1), known.sum(1), out=np.full(len(found), np.nan), where=known.any(1)), np.float64
        )

    each = name == "accuracy"
    per_patient = np.stack([_right_per_patient(one, truth, patients) for one in chances]) if each else None
    return Measure(patients=patients, sites=scored[0]["site"].to_numpy(str), of_seeds=of_seeds, each=per_patient)


def _right_per_patient(chances: Chances, truth: Truth, patients: NDArray[np.str_]) -> Values:
    return np.asarray(pd.Series(chances.argmax(1) == truth).groupby(patients).mean(), np.float64)


def _chances(table: pd.DataFrame) -> Chances:
    columns = [name for name in table.columns if name.startswith("p") and name[1:].isdecimal()]
    return np.asarray(table[columns], np.float64)
