"""Does a network that learned tumours from synthetic images find those of real patients? Scores per arm."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from fedsynth.benchmark.utility.arms import LOCAL, Learned
from fedsynth.benchmark.utility.measure import Measure, mean_over_patients
from fedsynth.benchmark.utility.overlap import score_masks
from fedsynth.images import ImageSet

LEAD = ("dice", "fp_area", "dice_mean", "brats_slice_dice")
"""What every table leads with."""
COMPARED = ("dice", "dice_mean", "brats_slice_dice")
"""The scores of which the ratio to real images and the skill over the controls are given, the main one first."""
LOWER_IS_BETTER = ("fp_area", "hd95", "missed")


def judge(networks: dict[str, Learned], holdout: ImageSet, *, distances: bool = True) -> pd.DataFrame:
    """The rows of `score_masks`, with the site that a network serves in `of`; "" where it serves all."""
    tables = []
    for site, network in networks.items():
        guesses = (chances.argmax(0).astype(np.uint8) for chances in network.predict(holdout))
        tables.append(score_masks(holdout, guesses, distances=distances).assign(of=site))
    return pd.concat(tables, ignore_index=True)


def measures(judged: Sequence[pd.DataFrame]) -> dict[str, Measure]:
    """The columns of `score_masks` for one arm, from a table per training.

    Sites that trained alone each segment all patients, and their scores are averaged.
    """
    columns = [name for name in judged[0].columns if name not in ("patient", "site", "of")]
    means = [table.groupby(["patient", "site"], sort=True)[columns].mean() for table in judged]
    patients, sites = (means[0].index.get_level_values(level).to_numpy(str) for level in (0, 1))

    def measure(column: str) -> Measure:
        tables = np.stack([mean[column].to_numpy(np.float64) for mean in means])
        return mean_over_patients(tables, patients, sites, most=np.inf if column in ("hd95", "fp_area") else 1.0)

    return {column: measure(column) for column in columns}


def at_home(arm: str, judged: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """What a site sees of an arm: of networks that trained alone, its own only."""
    if arm != LOCAL:
        return list(judged)
    return [table[table["of"] == table["site"]] for table in judged]
