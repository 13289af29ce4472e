"""Attacks by density in few dimensions: where the released images crowd more than real ones do, members are suspected.

Densities fail in many dimensions, so features are whitened to at most 32 principal components of members and holdout
together. Like every attack it never sees roles.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.evaluation.membership.attacks.distance import (
    Attacked,
    Targets,
    by_patient,
    to_allowed,
    to_nearest,
    to_other_patients,
)

DIMENSIONS = 32
WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Bandwidths that are tried, as multiples of Scott's."""
FITTED_ON = 4000
QUERIES = 2**22


def attack_by_density(targets: Targets, synthetic: Stack, *, seed: int) -> dict[str, Attacked]:
    """`density`: log p_synthetic(x) - log p_others(x), after DOMIAS (van Breugel et al. 2023), by kernels.

    `monte_carlo` (Hilprecht et al. 2019): the share of released images within epsilon of x, epsilon being the median
    over x of the distance to the nearest.
    """
    whitened = Whitening.fit(targets.features, seed=seed)
    low = replace(targets, features=whitened(targets.features), turned=tuple)
    made = whitened(synthetic)
    width = _best_width(low)
    honest_epsilon, epsilon = _honest_epsilons(low), float(np.median(to_nearest(low, made)))
    density, near = _against_release(low, made, width, epsilon)
    own, honest_density, honest_near = _against_patients(low, width, honest_epsilon)
    return {
        "density": Attacked(scores=by_patient(density - own, low), honest=_by_half(low, honest_density)),
        "monte_carlo": Attacked(scores=by_patient(near, low), honest=_by_half(low, honest_near)),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Principal components scaled to variance 1."""

    mean: NDArray[np.float64]
    axes: NDArray[np.float64]

    @classmethod
    def fit(cls, features: Stack, *, seed: int) -> "Whitening":
        """On some thousand rows, drawn blind to roles."""
        rng = np.random.default_rng([seed, *b"whitening"])
        rows = np.sort(rng.permutation(len(features))[:FITTED_ON])
        sample = np.asarray(features[rows], np.float64)
        mean = sample.mean(axis=0)
        _, spread, axes = np.linalg.svd(sample - mean, full_matrices=False)
        kept = min(DIMENSIONS, int((spread > 1e-6 * spread[0]).sum()) if spread[0] > 0 else 0)
        scale = spread[:kept] / np.sqrt(max(1, len(sample) - 1))
        return cls(mean=mean, axes=(axes[:kept] / scale[:, None]).T)

    def __call__(self, features: Stack) -> NDArray[np.float32]:
        """Coordinates of `features`, (n, at most 32); a constant space has one axis on which all are equal."""
        if not self.axes.shape[1]:
            return np.zeros((len(features), 1), np.float32)
        return np.concatenate([((block - self.mean) @ self.axes).astype(np.float32) for _, block in blocks(features)])


def _best_width(low: Targets) -> float:
    """The kernel width under which every patient is likeliest given all the others."""
    scott = len(low.features) ** (-1 / (low.features.shape[1] + 4))
    widths = [scott * factor for factor in WIDTHS]
    likelihood = np.zeros(len(widths))
    for _, squared in _squares(low, low.features, own=False):
        for i, width in enumerate(widths):
            found = torch.logsumexp(-squared / (2 * width**2), dim=1)
            likelihood[i] += float(found.sum()) - len(found) * low.features.shape[1] * np.log(width)
    return float(widths[int(np.argmax(likelihood))])


def _against_release(
    low: Targets, release: NDArray[np.float32], width: float, epsilon: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log density of the release at every real image, and the share of it that lies within `epsilon`."""
    density, near = np.empty(len(low.patients)), np.empty(len(low.patients))
    for rows, squared in _squares(low, release, own=True):
        density[rows] = torch.logsumexp(-squared / (2 * width**2), dim=1).numpy() - np.log(len(release))
        near[rows] = (squared <= epsilon**2).double().mean(dim=1).numpy()
    return density, near


def _against_patients(
    low: Targets, width: float, epsilons: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Log density of all other patients; per honest half its log density ratio and its share within epsilon."""
    halves = torch.from_numpy(low.released[:, low.patients].T.astype(np.float64))  # images x repeats
    n_released = halves.sum(dim=0)
    own_counts = torch.from_numpy(np.bincount(low.patients)[low.patients].astype(np.float64))
    own, density, near = (np.empty((len(low.patients), n)) for n in (1, halves.shape[1], halves.shape[1]))
    tiny = torch.finfo(torch.float64).tiny
    for rows, squared in _squares(low, low.features, own=False):
        exponent = (-squared / (2 * width**2)).double()
        kernel = (exponent - exponent.max(dim=1, keepdim=True).values).exp()
        total, released = kernel.sum(dim=1, keepdim=True), kernel @ halves
        others = len(low.patients) - own_counts[rows, None]
        own[rows, 0] = (torch.logsumexp(exponent, dim=1) - others[:, 0].log()).numpy()
        rest = ((total - released).clamp(min=tiny) / (others - n_released)).log()
        density[rows] = ((released.clamp(min=tiny) / n_released).log() - rest).numpy()
        for repeat, epsilon in enumerate(epsilons):
            inside = (squared <= epsilon**2).double()
            near[rows, repeat] = (inside @ halves[:, repeat] / n_released[repeat]).numpy()
    return own[:, 0], density.T, near.T


def _honest_epsilons(low: Targets) -> NDArray[np.float64]:
    table = to_other_patients(low)
    asked = [~half[low.patients] for half in low.released]
    return np.array([np.median(to_allowed(table, half)[rows]) for half, rows in zip(low.released, asked, strict=True)])


def _by_half(low: Targets, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    made = [low.without(half, by_patient(row, low)) for half, row in zip(low.released, scores, strict=True)]
    return np.array(made).reshape(len(made), low.n_patients)


def _squares(low: Targets, references: Stack, *, own: bool) -> Iterator[tuple[slice, Tensor]]:
    """Squared distances of the real images, some rows at a time; infinite to the own patient's where `own` is false."""
    every = torch.from_numpy(np.ascontiguousarray(references))
    patients = torch.from_numpy(low.patients)
    step = max(1, QUERIES // max(1, len(every)))
    for start in range(0, len(low.patients), step):
        rows = slice(start, start + step)
        squared = torch.cdist(torch.from_numpy(np.ascontiguousarray(low.features[rows])), every).square()
        if not own:
            squared[patients[rows, None] == patients[None]] = torch.inf
        yield rows, squared
