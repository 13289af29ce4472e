"""Linear discriminants of images, trained to look past alterations: noise, blur, contrast, small turns and warps.

Every real image, members and holdout alike, is altered in each way; what alterations change counts little, what makes
people differ counts much (linear discriminant analysis, in closed form). It knows single images and no patients.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import blocks
from fedsynth.evaluation.feature_spaces.appearance import Grid
from fedsynth.evaluation.feature_spaces.detail import blurred, despeckled_cells
from fedsynth.evaluation.feature_spaces.encoder import Changes, augment
from fedsynth.evaluation.feature_spaces.grid_space import Features, GridSpace, principal_axes
from fedsynth.evaluation.feature_spaces.registered import even_detail, even_details

Kind = Literal["intensity", "detail"]
MOST, NUMBERS = 128, 64
"""Principal components at most, also no more than half of the images; and discriminants of these."""
SAMPLE = 1000
"""Images learnt from at most."""
RIDGE = 0.1
"""Added to what alterations change, in shares of its mean, so that nothing counts without bound."""
NOISE, BLUR, GAMMAS = 0.08, 1 / 43, (0.6, 1.6)
"""Noise of about an eighth of the range before pooling, a blur of one and a half pixels in 64, and contrasts."""
STILL = {"noise": 0.0, "curve": 0.0, "blurred": 0.0}
TURNED = Changes(degrees=8, zoom=0.03, shift=0.02, warp=0.0, **STILL)
BENT = Changes(degrees=0, zoom=0.0, shift=0.0, warp=0.03, **STILL)
ALTERATIONS = ("noise", "blur", "contrast", "turn", "warp")


class Discriminant(GridSpace):
    """Up to sixty-four numbers of unit length per image, of its intensities or of its even detail.

    `left_out` names alterations that are not learnt from, for measuring what that costs.
    """

    whole = False
    n_orientations = 8
    n_inverted = 0

    def __init__(self, kind: Kind, left_out: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.kind, self.left_out = kind, left_out
        self.name = "discriminant" if kind == "intensity" else f"discriminant-{kind}"
        self._mean = np.zeros(1, np.float32)
        self._basis = np.zeros((1, 1), np.float32)

    def grids(self, images: ImageSet) -> Grid:
        """The intensities of every image on the cells, or their even detail."""
        return even_details(images) if self.kind == "detail" else despeckled_cells(images)

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Find the discriminants of `real`, or of a sample where there are many images."""
        rng = np.random.default_rng([seed, *b"discriminant"])
        chosen = np.sort(rng.permutation(len(real))[:SAMPLE])
        grid = np.ascontiguousarray(despeckled_cells(real)[chosen])
        rows = self._rows(self.grids(real)[chosen])
        self._mean = rows.mean(axis=0)
        _, components = principal_axes(rows - self._mean, min(MOST, len(rows) // 2))
        seen = (rows - self._mean) @ components
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        learnt = [name for name in ALTERATIONS if name not in self.left_out]
        within = np.zeros((components.shape[1],) * 2)
        for name in learnt:
            made = _altered(grid, name, rng, generator)
            again = self._rows(even_detail(made) if self.kind == "detail" else made)
            moved = (again - self._mean) @ components - seen
            within += moved.T @ moved / (len(rows) * len(learnt))
        self._basis = np.asarray(components @ _discriminants(seen.T @ seen / len(rows), within), np.float32)
        super().fit(real, seed=seed)

    def embed(self, grid: Grid) -> Features:
        """The discriminants, of unit length."""
        found = (self._rows(grid) - self._mean) @ self._basis
        return np.asarray(found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12), np.float32)

    def _rows(self, grid: Grid) -> Features:
        flat = grid.reshape(len(grid), -1)
        flat = flat if self.kind == "detail" else flat - flat.mean(axis=1, keepdims=True)
        return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9), np.float32)


def _altered(grid: Grid, name: str, rng: np.random.Generator, generator: torch.Generator) -> Grid:
    """Every image altered in one way."""
    each = (len(grid),) + (1,) * (grid.ndim - 1)
    if name == "noise":
        return np.asarray(np.clip(grid + rng.normal(0, NOISE, grid.shape), 0, 1), np.float32)
    if name == "blur":
        return blurred(grid, BLUR)
    if name == "contrast":
        return np.asarray(np.power(np.clip(grid, 0, 1), rng.choice(GAMMAS, each)), np.float32)
    middle = grid.mean(axis=tuple(range(1, grid.ndim)), keepdims=True)
    parts = [
        augment(torch.from_numpy(part), TURNED if name == "turn" else BENT, generator).numpy()
        for _, part in blocks(grid - middle)
    ]
    return np.asarray(np.concatenate(parts) + middle, np.float32)


def _discriminants(total: NDArray[np.float64], within: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions that tell images apart most in units of what alterations change, each of even spread over images.

    A direction counts by the share of its spread that is not of alterations.
    """
    n = len(within)
    change, axes = np.linalg.eigh(within + RIDGE * max(float(np.trace(within)) / n, 1e-12) * np.eye(n))
    white = axes / np.sqrt(change)
    spread, turn = np.linalg.eigh(white.T @ total @ white)
    kept = np.argsort(-spread)[:NUMBERS]
    return np.asarray(white @ turn[:, kept] / np.sqrt(1 + spread[kept]))
