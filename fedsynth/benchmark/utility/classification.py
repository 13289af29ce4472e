"""Does a network that learnt classes from synthetic images tell those of real patients? Accuracy and AUC per arm."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from fedsynth.benchmark.utility.accuracy import MEASURES, Chances, Truth, most_frequent
from fedsynth.benchmark.utility.arms import LOCAL, Learned
from fedsynth.benchmark.utility.measure import Measure, Rows
from fedsynth.images import ImageSet


def judge(networks: dict[str, Learned], holdout: ImageSet) -> pd.DataFrame:
    """A row per image with a class and per network: `row,patient,site,truth,of` and a probability per class."""
    number = {name: i for i, name in enumerate(holdout.header.classes)}
    truth = holdout.cases["class"].map(number)
    tables = []
    for site, network in networks.items():
        chances = np.stack(list(network.predict(holdout)))
        table = holdout.cases[["patient", "site"]].assign(row=range(len(holdout)), truth=truth, of=site)
        tables.append(table.assign(**{f"p{i}": chances[:, i] for i in range(chances.shape[1])}).dropna())
    return pd.concat(tables, ignore_index=True).astype({"truth": int})


def measures(arm: str, judged: Sequence[pd.DataFrame]) -> dict[str, Measure]:
    """Accuracy, balanced accuracy, AUC and calibration error of one arm from a table per seed.

    Hospitals that learnt alone each judge all images, and their marks are averaged.
    """
    parts = [part.reset_index(drop=True) for table in judged for _, part in table.groupby("of", sort=True)]
    return {name: _measure(parts, measure, each=name == "accuracy") for name, measure in MEASURES.items()}


def at_home(arm: str, judged: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """What a hospital sees of an arm: of networks that learnt alone, its own only."""
    if arm != LOCAL:
        return list(judged)
    return [table[table["of"] == table["site"]].assign(of="").sort_values("row") for table in judged]


def baselines(holdout: ImageSet) -> dict[str, float]:
    """What always naming the commonest class reaches."""
    named = holdout.cases["class"][holdout.cases["class"] != ""]
    share = most_frequent(pd.factorize(named)[0].astype(np.int64))
    return {"accuracy": share, "balanced_accuracy": 1 / named.nunique(), "auc": 0.5}


def _measure(parts: list[pd.DataFrame], measure: Callable[[Truth, Chances], float], *, each: bool) -> Measure:
    first = parts[0]
    truth = first["truth"].to_numpy(np.int64)
    chances = [_chances(part) for part in parts]

    def value(rows: Rows) -> float:
        return float(np.mean([measure(truth[rows], of_part[rows]) for of_part in chances]))

    patients = first["patient"].to_numpy(str)
    per_patient = None
    if each:
        right = np.mean([of_part.argmax(1) == truth for of_part in chances], axis=0)
        per_patient = np.asarray(pd.Series(right).groupby(patients).mean(), np.float64)
    return Measure(patients=patients, sites=first["site"].to_numpy(str), value=value, each=per_patient)


def _chances(part: pd.DataFrame) -> Chances:
    columns = [name for name in part.columns if name.startswith("p") and name[1:].isdecimal()]
    return np.asarray(part[columns], np.float64)
