"""Scores by class and by lesion size of the holdout's patients. Sites have scores of their own in every result.

A group of fewer than six patients has none: its number would be nearly that of one of them.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.summary import label_counts
from fedsynth.evaluation.score import Score
from fedsynth.evaluation.utility.patient_scores import FEWEST_PATIENTS, Measure, ratio, score_rows

CLASS, SIZE = "class", "lesion size"
THIRDS = ("smallest third", "middle third", "largest third")


def patient_groups(holdout: ImageSet) -> dict[str, dict[str, NDArray[np.str_]]]:
    """Patients by class, where all images of a patient have one, and by thirds of the lesion's size, if any."""
    cases = holdout.cases[["patient", "class"]]
    by_patient = cases.groupby("patient")["class"].unique()
    one = {name: classes[0] for name, classes in by_patient.items() if len(classes) == 1 and classes[0]}
    classes = {name: _named(patient for patient, own in one.items() if own == name) for name in holdout.header.classes}
    return {CLASS: classes, SIZE: _thirds(holdout)}


def subgroup_scores(
    measures: Mapping[str, Measure],
    real: Mapping[str, Measure],
    groups: Mapping[str, Mapping[str, NDArray[np.str_]]],
    *,
    name: str,
    seed: int,
) -> dict[str, dict[str, dict[str, Score]]]:
    """`name` of each arm, and its ratio to the arm on `real` images where it has one, by kind of group and group."""
    found: dict[str, dict[str, dict[str, Score]]] = {}
    for kind, by_name in groups.items():
        for group, patients in by_name.items():
            scores = {}
            for arm, measure in measures.items():
                rows = measure.scored(np.flatnonzero(np.isin(measure.patients, patients)))
                if len(np.unique(measure.patients[rows])) < FEWEST_PATIENTS:
                    continue
                scores[f"{name}/{arm}"] = score_rows(measure, rows, seed=seed)
                if arm in real:
                    scores[f"{name}_ratio/{arm}"] = ratio(measure, real[arm], seed=seed, rows=rows)
            if scores:
                found.setdefault(kind, {})[group] = scores
    return found


def _thirds(holdout: ImageSet) -> dict[str, NDArray[np.str_]]:
    if holdout.masks is None:
        return {}
    voxels = label_counts(holdout.masks, len(holdout.header.mask_labels))[:, 1:].sum(axis=1)
    sizes = holdout.cases[["patient"]].assign(size=voxels).groupby("patient")["size"].sum()
    ordered = sizes[sizes > 0].sort_values(kind="stable").index.to_numpy(str)
    return dict(zip(THIRDS, np.array_split(ordered, len(THIRDS)), strict=True))


def _named(patients: Iterable[str]) -> NDArray[np.str_]:
    return np.array(list(patients), str)
