"""Detail at one scale: what is left of an image without speckles, fine noise and slow shading. Finds altered copies.

A median filter takes single voxels out, a difference of two blurs keeps what lies between them, and whitened components
fitted on members and holdout together make it tell people apart. Extraction alone looks here, so that dependence is
spread over no more spaces. It knows single images, nothing of patients or roles.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.evaluation.feature_spaces.appearance import Grid, despeckled, pooled, posed_intensities
from fedsynth.evaluation.feature_spaces.grid_space import Features, GridSpace, principal_axes, remembered

Kind = Literal["detail", "evened", "posed", "mixtures"]
FINE, WIDE = 1 / 32, 1 / 8
"""Blurs of these shares of the frame: detail lies between them."""
COMPONENTS = {"detail": 64, "evened": 128, "posed": 64, "mixtures": 64}
SAMPLE = 4000
"""Components are found from so many real images at most."""
QUIET = 0.3
"""Where detail is weaker than this share of the image's own, evening does not raise it: there is only noise."""
FLAT = 1e-4
"""An image whose detail stays below this, in shares of the range, shows nothing."""


class Detail(GridSpace):
    """Up to 64 or 128 numbers per image.

    `detail` is linear in the image, which stands noise best; `evened` divides by the local strength of detail, which
    stands shading, windows and few grey levels best; `posed` is `detail` after moving the body to one pose. `mixtures`
    is `detail` for mixtures of two images, which `distance_tables.py` looks for among these features.
    """

    whole = False
    n_orientations = 8
    n_inverted = 0

    def __init__(self, kind: Kind, channel: int | None = None, name: str = "") -> None:
        super().__init__()
        self.name = name or kind
        self.kind, self.channel = kind, channel
        self.mixtures = kind == "mixtures"
        self._mean = np.zeros(1, np.float32)
        self._basis = np.zeros((1, 1), np.float32)
        self._soft = 1.0

    def grids(self, images: ImageSet) -> Grid:
        """The detail of every image, on cells half as fine as the appearance's."""
        kind = "detail" if self.mixtures else self.kind
        made = remembered(images, f"detail, {kind}", lambda: _details(images, kind))
        return made if self.channel is None else made[:, self.channel : self.channel + 1]

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Find the components of `real`, or of an even sample where there are many images."""
        rng = np.random.default_rng([seed, *b"detail"])
        chosen = np.sort(rng.permutation(len(real))[:SAMPLE])
        rows = _of_one_length(self.grids(real)[chosen])
        self._mean = rows.mean(axis=0)
        spread, axes = principal_axes(rows - self._mean, min(COMPONENTS[self.kind], len(rows) // 4))
        deviation = np.maximum(spread, 1e-6 * max(1.0, float(spread[0]))) / np.sqrt(len(rows))
        self._basis = np.ascontiguousarray(axes / deviation, np.float32)
        lengths = np.square((rows - self._mean) @ self._basis).sum(axis=1)
        self._soft = max(float(np.median(lengths)), 1e-12)
        super().fit(real, seed=seed)

    def embed(self, grid: Grid) -> Features:
        """Whitened components, long rows shortened: what is far from everybody must not make others look near."""
        rows = (_of_one_length(grid) - self._mean) @ self._basis
        return np.asarray(rows / np.sqrt(np.square(rows).sum(axis=1, keepdims=True) + self._soft), np.float32)


def despeckled_cells(images: ImageSet) -> Grid:
    """The intensities of every image on the cells, speckles taken out; those of one colour show nothing: all zero."""
    return remembered(images, "despeckled", lambda: _despeckled(images.images))


def _despeckled(images: Stack) -> Iterator[tuple[int, Grid]]:
    for start, grid in despeckled(images):
        grid[np.ptp(grid.reshape(len(grid), -1), axis=1) < FLAT] = 0
        yield start, grid


def _details(images: ImageSet, kind: str) -> Iterator[tuple[int, Grid]]:
    for start, values in posed_intensities(images.images) if kind == "posed" else blocks(despeckled_cells(images)):
        fine, wide = (blurred(values, share) for share in (FINE, WIDE))
        found = fine - wide
        strength = np.abs(found).reshape(len(found), -1).max(axis=1)
        if kind == "evened":
            axes = tuple(range(1, found.ndim))
            overall = np.sqrt(np.square(found).mean(axis=axes[1:], keepdims=True))
            found = found / (np.sqrt(blurred(np.square(found), WIDE)) + QUIET * overall + 1e-6)
        found[strength < FLAT] = 0
        yield start, pooled(found, max(2, max(values.shape[2:]) // 2))


def blurred(values: Grid, share: float) -> Grid:
    """A Gaussian blur along every axis, of a `share` of it, the image mirrored at its borders."""
    for axis in range(2, values.ndim):
        weights = _blur(values.shape[axis], share * values.shape[axis])
        values = np.moveaxis(np.tensordot(values, weights, ([axis], [1])), -1, axis)
    return np.ascontiguousarray(values, np.float32)


def _blur(n: int, sigma: float) -> Grid:
    """The matrix (n, n) of a blur; rows add up to one."""
    at, of = np.arange(n)[:, None], np.arange(n)[None]
    images = (of, -of - 1, 2 * n - 1 - of)
    weights = sum(np.exp(-np.square((at - image) / sigma) / 2) for image in images)
    return np.asarray(weights / np.sum(weights, axis=1, keepdims=True), np.float32)


def _of_one_length(grid: Grid) -> Features:
    rows = grid.reshape(len(grid), -1)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
