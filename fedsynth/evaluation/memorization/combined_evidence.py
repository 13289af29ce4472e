"""All spaces together: what none shows beyond doubt, many show of the same patient.

A copy under noise lies a little nearer to its patient in most spaces; a stranger lies nearer to one patient here and
to another one there. So the depths (-log of the ratio) of an image are added up over the spaces, patient by patient,
each in units of what is usual in its space. It reads tables of distances and knows no images or roles.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.evaluation.memorization.ratios import FEWEST_IN_TAIL, LEVEL, MARGIN, Nearest, Threshold

TOGETHER = "all spaces"
FEWEST_SPACES = 3
"""With fewer there is nothing to add up."""
MOST = 30.0
"""No space counts for more, so that none decides alone: each has a threshold of its own."""
MIDDLE = (0.3, 0.7)
"""The scale of a space is that between these quantiles of its depths: doubles among the real images do not move it."""
TAIL = (0.8, 0.95)
"""The tail is fitted between these quantiles; beyond the second, doubles that were not recognised may stand."""


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Of every space the usual distance to the next patient and the usual depth; infinite where nothing tells it."""

    usual: Mapping[str, float]
    depth: Mapping[str, float]


def learn_scales(real: Mapping[str, Nearest], usual: Mapping[str, float]) -> Scales:
    """From real images against all but their own person, and the usual distances that these were looked up with."""
    depth = {}
    for space, near in real.items():
        depths = -np.log(near.ratios)
        telling = depths[depths > 0]
        depth[space] = np.inf
        if len(telling) >= FEWEST_IN_TAIL:
            low, high = np.quantile(telling, MIDDLE)
            depth[space] = max(float(high - low) / np.log((1 - MIDDLE[0]) / (1 - MIDDLE[1])), 1e-6)
    return Scales(usual=usual, depth=depth)


@dataclass(frozen=True, kw_only=True, eq=False)
class Combined:
    """Of every image (n,): the patient whom the spaces show most, how much (mean over spaces), and the first of them.

    `spaces` are numbers in the order of the tables: where that patient shows most.
    """

    patients: NDArray[np.int64]
    depths: NDArray[np.float64]
    spaces: NDArray[np.int64]


def combine(near: Mapping[str, Nearest], scales: Scales, person: NDArray[np.int64]) -> Combined:
    """Add up the depths of the nearest patients.

    The sum is over the spaces given and divided by the number of spaces learnt from, so that fewer show less.
    """
    patients = np.stack([found.patients for found in near.values()], axis=1)
    depths = [np.minimum(-np.log(of.ratios) / scales.depth[space], MOST) for space, of in near.items()]
    depth = np.stack(depths, axis=1)
    who = person[patients]
    total = np.zeros(depth.shape)
    for space in range(depth.shape[1]):
        total += np.where(who == who[:, space, None], depth[:, space, None], 0)
    best = total.argmax(axis=1)[:, None]
    same = who == np.take_along_axis(who, best, axis=1)
    shown = np.where(same, depth, -1).argmax(axis=1)
    return Combined(
        patients=np.take_along_axis(patients, shown[:, None], axis=1)[:, 0],
        depths=np.take_along_axis(total, best, axis=1)[:, 0] / len(scales.depth),
        spaces=shown,
    )


def combined_threshold(depths: NDArray[np.float64], owners: NDArray[np.integer], n_comparisons: int) -> Threshold:
    """From the combined depths of real images, for `n_comparisons` images, as the ratio exp(-depth).

    The exponential tail is fitted between two quantiles and what lies beyond counts as cut off, so that doubles that
    nobody recognised do not make it look heavier. The quantile is that of a prediction, as in single spaces. Where
    all spaces tell the same, the mean of their depths has the exponential tail of a single one, in its units, and the
    middle of the depths does not show it: the threshold is never below that tail's.
    """
    start, end = (float(quantile) for quantile in np.quantile(depths, TAIL))
    tail = depths > start
    inside = tail & (depths < end)
    known = len(np.unique(owners[inside]))
    if known < FEWEST_IN_TAIL:
        return Threshold(ratio=0.0, smallest_real=float(np.exp(-depths.max())), start=start, scale=1.0, beyond=1.0)
    scale = max(float((np.minimum(depths[tail], end) - start).sum()) / int(inside.sum()), 1e-6)
    beyond = float(tail.mean())
    deepest = start + scale * known * (max(1.0, n_comparisons * beyond / LEVEL) ** (1 / known) - 1)
    deepest = max(deepest, float(depths.max()) / MARGIN, float(np.log(max(1.0, n_comparisons / LEVEL))))
    return Threshold(
        ratio=float(np.exp(-deepest)),
        smallest_real=float(np.exp(-depths.max())),
        start=start,
        scale=scale,
        beyond=beyond,
    )
