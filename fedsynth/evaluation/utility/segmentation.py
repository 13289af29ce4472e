"""Does a network that learned tumours from synthetic images find those of real patients? Scores per arm."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.evaluation.utility.patient_scores import Measure, mean_over_patients
from fedsynth.evaluation.utility.training_arms import Networks, scored_by

# How well predicted masks lie on true ones, per patient: Dice, false positives, lesions found, Hausdorff distance.
#
# Dice of a patient counts the pixels of all images together, and does not exist for a label that the patient does not
# have. Three numbers beside it see what Dice on ill patients skips:
# - `fp_area`: pixels found in an image without any lesion, averaged over such images of the patient;
# - `brats_dice`, per patient, and `brats_slice_dice`, per image: the BraTS convention, in which nothing found where
#   nothing is counts 1, and one pixel found there counts 0;
# - `lesion_sensitivity` and `lesion_precision`: connected components found, and components that are lesions. A true and
#   a found one match where their intersection is at least a tenth of their union.
#
# Distances are taken image by image, over the images that have a lesion, and averaged per patient. An image in which
# nothing was found counts with its own diagonal, the largest distance that it could hold: were it left out, who misses
# small lesions would look the better for it. (BraTS does the same with its volumes: 373.13 mm.) The share of such
# images stands beside the distance.


MATCH = 0.1
"""Intersection over union from which on two components are one lesion."""

Mask = NDArray[np.bool_]


@dataclass(kw_only=True)
class _Patient:
    """What was counted of one patient; `pixels` is (whole lesion and labels, both or found or true)."""

    site: str
    pixels: NDArray[np.int64]
    lesions: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    slice_dice: list[float] = field(default_factory=list)
    false_area: list[int] = field(default_factory=list)
    far: list[float] = field(default_factory=list)
    missed: list[bool] = field(default_factory=list)


def score_masks(images: ImageSet, guesses: Iterable[NDArray[np.uint8]], *, distances: bool = True) -> pd.DataFrame:
    """One row per patient, as the module says, and `dice_<label>` of each; what does not apply is NaN.

    `guesses` are predicted label maps in the order of `images`. `dice` is that of all labels together, `dice_mean` the
    mean over the labels that the patient has.
    """
    assert images.masks is not None
    labels = images.header.mask_labels[1:]
    found: dict[str, _Patient] = {}
    for row, guess in enumerate(guesses):
        case, truth = images.cases.iloc[row], np.asarray(images.masks[row])
        blank = _Patient(site=case["site"], pixels=np.zeros((len(labels) + 1, 3), np.int64))
        patient = found.setdefault(case["patient"], blank)
        patient.pixels += _pixels(guess, truth, len(labels))
        _count(patient, guess > 0, truth > 0, images.header.spacing_mm if distances else None)
    return pd.DataFrame([{"patient": name, **_row(one, labels)} for name, one in found.items()])


def _pixels(guess: NDArray[np.uint8], truth: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    pairs = [(guess > 0, truth > 0), *((guess == number, truth == number) for number in range(1, n + 1))]
    return np.array([[(a & b).sum(), a.sum(), b.sum()] for a, b in pairs], np.int64)


def _count(patient: _Patient, found: Mask, true: Mask, spacing: Sequence[float] | None) -> None:
    """What is counted image by image, of the whole lesion."""
    patient.slice_dice.append(brats_dice(int((found & true).sum()), int(found.sum()), int(true.sum())))
    patient.lesions += count_lesions(found, true)
    if not true.any():
        patient.false_area.append(int(found.sum()))
        return
    patient.missed.append(not found.any())
    if spacing is not None:
        patient.far.append(hausdorff95(found, true, spacing))


def _row(one: _Patient, labels: Sequence[str]) -> dict[str, str | float]:
    dice = [2 * both / (found + true) if true else np.nan for both, found, true in one.pixels]
    detected, lesions, right, components = one.lesions
    return {
        "site": one.site,
        "dice": dice[0],
        "fp_area": _mean(one.false_area),
        "dice_mean": _mean([value for value in dice[1:] if np.isfinite(value)]),
        "brats_dice": brats_dice(*map(int, one.pixels[0])),
        "brats_slice_dice": _mean(one.slice_dice),
        "lesion_sensitivity": detected / lesions if lesions else np.nan,
        "lesion_precision": right / components if components else np.nan,
        "hd95": _mean(one.far),
        "missed": _mean(one.missed),
        **({} if len(labels) == 1 else {f"dice_{name}": dice[number] for number, name in enumerate(labels, 1)}),
    }


def brats_dice(both: int, found: int, true: int) -> float:
    """Dice that counts 1 where nothing is and nothing was found, and 0 where something was."""
    return 2 * both / (found + true) if found + true else 1.0


def count_lesions(found: Mask, true: Mask) -> NDArray[np.int64]:
    """Connected components: true ones that were found, true ones, found ones that are true, found ones."""
    corners = np.ones((3,) * true.ndim, int)
    (a, n_found), (b, n_true) = (ndimage.label(mask, corners) for mask in (found, true))
    if not (n_found and n_true):
        return np.array([0, n_true, 0, n_found])
    together = np.bincount((a * (n_true + 1) + b).ravel(), minlength=(n_found + 1) * (n_true + 1))
    together = together.reshape(n_found + 1, n_true + 1)
    union = together[1:].sum(1, keepdims=True) + together[:, 1:].sum(0, keepdims=True) - together[1:, 1:]
    match = together[1:, 1:] >= MATCH * union
    return np.array([match.any(0).sum(), n_true, match.any(1).sum(), n_found])


def hausdorff95(found: Mask, true: Mask, spacing: Sequence[float]) -> float:
    """The larger of the two directed distances between outlines that 95 % of an outline stays within, in mm.

    Where nothing was `found` it is the diagonal of the image.
    """
    if not found.any():
        return float(np.hypot.reduce(np.multiply(true.shape, spacing)))
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (found, true)]
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing) for edge in edges]
    return float(max(np.percentile(away[1][edges[0]], 95), np.percentile(away[0][edges[1]], 95)))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else np.nan


LEAD = ("dice", "fp_area", "dice_mean", "brats_slice_dice")
"""What every table leads with."""
COMPARED = ("dice", "dice_mean", "brats_slice_dice")
"""The scores of which the ratio to real images and the skill over the controls are given, the main one first."""
LOWER_IS_BETTER = ("fp_area", "hd95", "missed")


def score_arm(networks: Networks, holdout: ImageSet, *, distances: bool = True) -> pd.DataFrame:
    """The rows of `score_masks`, by patient."""
    tables = []
    for network, images in scored_by(networks, holdout):
        guesses = (chances.argmax(0).astype(np.uint8) for chances in network.predict(images))
        tables.append(score_masks(images, guesses, distances=distances))
    return pd.concat(tables).sort_values("patient", ignore_index=True)


def measures(scored: Sequence[pd.DataFrame]) -> dict[str, Measure]:
    """The columns of `score_masks` for one arm, from a table per training."""
    columns = [name for name in scored[0].columns if name not in ("patient", "site")]
    patients, sites = (scored[0][name].to_numpy(str) for name in ("patient", "site"))

    def measure(column: str) -> Measure:
        tables = np.stack([table[column].to_numpy(np.float64) for table in scored])
        return mean_over_patients(tables, patients, sites, most=np.inf if column in ("hd95", "fp_area") else 1.0)

    return {column: measure(column) for column in columns}
