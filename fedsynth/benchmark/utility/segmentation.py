"""Does a network that learnt tumours from synthetic images find those of real patients? Dice and HD95 per arm."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedsynth.benchmark.utility.arms import LOCAL, Learned
from fedsynth.benchmark.utility.measure import Measure, mean_over_patients
from fedsynth.benchmark.utility.overlap import WHOLE, everything_dice, score_masks
from fedsynth.images import ImageSet


def judge(networks: dict[str, Learned], holdout: ImageSet, *, distances: bool = True) -> pd.DataFrame:
    """The rows of `score_masks`, with the hospital that a network serves in `of`; "" where it serves all."""
    tables = []
    for site, network in networks.items():
        guesses = (chances.argmax(0).astype(np.uint8) for chances in network.predict(holdout))
        tables.append(score_masks(holdout, guesses, distances=distances).assign(of=site))
    return pd.concat(tables, ignore_index=True)


def measures(arm: str, judged: Sequence[pd.DataFrame]) -> dict[str, Measure]:
    """`dice`, `dice_<label>`, `hd95`, `missed` and `false_alarm` of one arm from a table per seed.

    All but `dice_<label>` are of the whole lesion. Hospitals that learnt alone each judge all patients, and their marks
    are averaged.
    """
    labels = list(dict.fromkeys(judged[0]["label"]))
    main = WHOLE if WHOLE in labels else labels[0]
    found = {name: _measure(judged, main, name) for name in ("dice", "hd95", "missed", "false_alarm")}
    return found | {f"dice_{label}": _measure(judged, label, "dice") for label in labels if label != main}


def at_home(arm: str, judged: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """What a hospital sees of an arm: of networks that learnt alone, its own only."""
    if arm != LOCAL:
        return list(judged)
    return [table[table["of"] == table["site"]] for table in judged]


def baselines(holdout: ImageSet) -> dict[str, float]:
    """The Dice of calling the whole brain a lesion, by the names of `measures`."""
    found = everything_dice(holdout)
    main = WHOLE if WHOLE in found else next(iter(found), "")
    return {("dice" if label == main else f"dice_{label}"): value for label, value in found.items()}


def _measure(judged: Sequence[pd.DataFrame], label: str, column: str) -> Measure:
    of_seed = [
        table[table["label"] == label].groupby(["patient", "site"], sort=True)[column].mean() for table in judged
    ]
    patients = of_seed[0].index.get_level_values(0).to_numpy(str)
    sites = of_seed[0].index.get_level_values(1).to_numpy(str)
    tables = np.stack([table.to_numpy(np.float64) for table in of_seed])
    return mean_over_patients(tables, patients, sites, most=np.inf if column == "hd95" else 1.0)
