"""How well predicted masks lie on true ones: Dice per label and for the whole lesion, and the 95 % Hausdorff distance.

The unit is the patient: pixels of all images of a patient are counted together. A label that a patient does not have
counts for nothing in Dice or distance; what is painted there all the same is the share of false alarms.

Distances are taken image by image, over the images that have the label, and averaged per patient. An image in which
nothing of it was found counts with its own diagonal, the largest distance that it could hold: were it left out, who
misses small lesions would look the better for it. (BraTS does the same with its volumes: 373.13 mm.) The share of such
images stands beside the distance, so that nobody takes the one for the other.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.images import ImageSet

WHOLE = "whole"
"""All labels but background together."""

Mask = NDArray[np.bool_]


def score_masks(images: ImageSet, guesses: Iterable[NDArray[np.uint8]], *, distances: bool = True) -> pd.DataFrame:
    """One row per patient and label: `patient,site,label,dice,hd95,missed,false_alarm`; what does not apply is NaN.

    `guesses` are predicted label maps in the order of `images`. With one foreground label there is no `whole`.
    """
    assert images.masks is not None
    labels = images.header.mask_labels[1:]
    counts: dict[tuple[str, str], NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    far, missed = defaultdict[tuple[str, str], list[float]](list), defaultdict[tuple[str, str], list[bool]](list)
    site_of = dict(zip(images.cases["patient"], images.cases["site"], strict=True))
    for row, guess in enumerate(guesses):
        patient, truth = images.cases["patient"].iloc[row], np.asarray(images.masks[row])
        for label, (found, true) in _pairs(guess, truth, labels):
            counts[patient, label] += (found & true).sum(), found.sum(), true.sum()
            if true.any():
                missed[patient, label].append(not found.any())
            if true.any() and distances:
                far[patient, label].append(hausdorff95(found, true, images.header.spacing_mm))
    rows = []
    for (patient, label), (both, found, true) in counts.items():
        dice = 2 * both / (found + true) if true else np.nan
        distance, share = _mean(far[patient, label]), _mean(missed[patient, label])
        alarm = np.nan if true else float(found > 0)
        rows.append((patient, site_of[patient], label, dice, distance, share, alarm))
    return pd.DataFrame(rows, columns=["patient", "site", "label", "dice", "hd95", "missed", "false_alarm"])


def everything_dice(images: ImageSet) -> dict[str, float]:
    """The Dice of calling every pixel of the brain a lesion: the baseline that knows nothing, per label and whole."""
    assert images.masks is not None
    guesses = (np.asarray(images.images[row]).max(0) > 0 for row in range(len(images)))
    pixels: dict[tuple[str, str], NDArray[np.int64]] = defaultdict(lambda: np.zeros(3, np.int64))
    for row, brain in enumerate(guesses):
        for label, (_, true) in _pairs(np.zeros_like(images.masks[row]), np.asarray(images.masks[row]), _names(images)):
            key = images.cases["patient"].iloc[row], label
            pixels[key] += (brain & true).sum(), brain.sum(), true.sum()
    scores = defaultdict(list)
    for (_, label), (both, found, true) in pixels.items():
        if true:
            scores[label].append(2 * both / (found + true))
    return {label: float(np.mean(values)) for label, values in scores.items()}


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


def _names(images: ImageSet) -> tuple[str, ...]:
    return images.header.mask_labels[1:]


def _pairs(
    guess: NDArray[np.uint8], truth: NDArray[np.uint8], labels: Sequence[str]
) -> list[tuple[str, tuple[Mask, Mask]]]:
    pairs = [(name, (guess == number, truth == number)) for number, name in enumerate(labels, 1)]
    return pairs if len(labels) == 1 else [*pairs, (WHOLE, (guess > 0, truth > 0))]
