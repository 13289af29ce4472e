"""Patches of detail that may move a little: finds bent, turned and half copies, whose cells no longer lie as they did.

Every patch of an image looks for itself around the same place in the other image, so a smooth warp or a turn by some
degrees costs little, and a collage keeps the patches that it took. This module makes the detail, the patches and their
components, whitened over members and holdout together; `registered_distances.py` compares. It knows no patients.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fedsynth.data import ImageSet
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.evaluation.feature_spaces.appearance import Grid, views
from fedsynth.evaluation.feature_spaces.detail import blurred, despeckled_cells
from fedsynth.evaluation.feature_spaces.grid_space import Features, GridSpace, remembered, tables

FINE, WIDE = 1 / 48, 1 / 10
"""Detail lies between blurs of these shares of the frame."""
QUIET = 0.3
EDGE, REACH = 9, 3
"""A patch has so many cells along an axis, and looks so many cells to every side."""
PLACES = 5
"""Patches along an axis."""
COMPONENTS = 32
EVEN = 0.05
"""Added to the deviations of components, in shares of the first one's, so that noise is not blown up."""
SOFT = 0.25
"""Patches with less than this share of the usual squared length count for less: they show next to nothing."""
DEGREES = (-11.0, 11.0)
"""Besides as it lies, the image is turned by these; patches reach a few degrees further on their own."""
SAMPLE = 1000
AT_ONCE = 2**25
"""Bytes of images whose patches are made at once."""


class Registered(GridSpace):
    """The detail of an image as one row; `registered_distances.py` compares images. Of two dimensions only."""

    name = "registered"
    whole = False
    n_orientations = 2
    n_inverted = 0

    def __init__(self) -> None:
        super().__init__()
        self._basis: list[Tensor] = []
        self._soft = 1.0
        self._size = (1, 1, 1)
        self.places: tuple[Stack, list[Tensor]] | None = None

    def grids(self, images: ImageSet) -> Grid:
        """The detail of every image, of even strength over the frame."""
        return even_details(images)

    def embed(self, grid: Grid) -> Features:
        """The grid as it is."""
        return np.ascontiguousarray(grid, np.float32).reshape(len(grid), -1)

    def fit(self, real: ImageSet, *, seed: int) -> None:
        """Find the components of every patch of `real`, or of a sample where there are many images."""
        rng = np.random.default_rng([seed, *b"registered"])
        grid = self.grids(real)
        self._size = grid.shape[1:]
        chosen = torch.from_numpy(np.ascontiguousarray(grid[np.sort(rng.permutation(len(grid))[:SAMPLE])]))
        self._basis, lengths = [], []
        for number in range(PLACES**2):
            window = _window(chosen, number, reach=0)
            rows = window.flatten(1)
            variance, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
            deviation = variance[-COMPONENTS:].clamp(min=0).sqrt().flip(0)
            basis = axes[:, -COMPONENTS:].flip(1) / (deviation + EVEN * deviation[0]).clamp(min=1e-6)
            self._basis.append(basis.T.reshape(-1, *window.shape[1:]).contiguous())
            lengths.append((rows @ basis).square().sum(dim=1))
        self._soft = max(SOFT * float(torch.stack(lengths).median()), 1e-12)

    def views(self, images: ImageSet) -> Iterator[Features]:
        """The images as they are, mirrored, and turned a little to both sides."""
        made: list[Features] = []
        for start, grid in blocks(self.grids(images)):
            turned = (_turned(torch.from_numpy(np.ascontiguousarray(grid)), degrees).numpy() for degrees in DEGREES)
            seen = [self.embed(view) for view in (*islice(views(grid), self.n_orientations), *turned)]
            made = made or tables(len(seen), len(images), *seen[0].shape[1:])
            for table, view in zip(made, seen, strict=True):
                table[start : start + len(grid)] = view
        yield from made

    def features(self, images: ImageSet) -> Features:
        """The grid of every image; one that shows nothing is like no other."""
        return self.embed(self.grids(images))

    def still(self, rows: Features) -> Tensor:
        """The components of every patch in its place: (patches, n, components)."""
        parts = [[self._patch(grid, number, 0)[:, 0] for number in range(PLACES**2)] for grid in self._blocks(rows)]
        return torch.cat([torch.stack(part) for part in parts], dim=1)

    def moving(self, rows: Features) -> Iterator[Tensor]:
        """Patch by patch, its components at every place that it may come from: (n, places, components)."""
        for number in range(PLACES**2):
            yield torch.cat([self._patch(grid, number, REACH) for grid in self._blocks(rows)])

    def _blocks(self, rows: Features) -> Iterator[Tensor]:
        """The rows as grids, some at a time."""
        for _, part in blocks(rows, n_bytes=AT_ONCE):
            yield torch.from_numpy(np.ascontiguousarray(part, np.float32)).view(len(part), *self._size)

    def _patch(self, grid: Tensor, number: int, reach: int) -> Tensor:
        found = F.conv2d(_window(grid, number, reach), self._basis[number]).flatten(2).transpose(1, 2)
        return (found / (found.square().sum(dim=-1, keepdim=True) + self._soft).sqrt()).contiguous()


def fits(real: ImageSet) -> bool:
    """Whether the images have two dimensions and room for patches."""
    return real.header.dimensions == 2 and min(real.images.shape[2:]) >= EDGE + 2 * REACH


def even_details(images: ImageSet) -> Grid:
    """The detail of every image on the cells, of even strength over the frame."""
    found = ((start, even_detail(values)) for start, values in blocks(despeckled_cells(images)))
    return remembered(images, "even detail", lambda: found)


def even_detail(values: Grid) -> Grid:
    """The detail of images on the cells, of even strength over the frame."""
    detail = blurred(values, FINE) - blurred(values, WIDE)
    squares = np.square(detail).mean(axis=1, keepdims=True)
    overall = np.sqrt(squares.mean(axis=tuple(range(1, squares.ndim)), keepdims=True))
    return np.asarray(detail / (np.sqrt(blurred(squares, WIDE)) + QUIET * overall + 1e-6), np.float32)


def _window(grid: Tensor, number: int, reach: int) -> Tensor:
    """A square patch of an even grid with `reach` cells more to every side, 0 outside: (n, channels, edge, edge)."""
    half, edge = EDGE // 2, 2 * reach + EDGE
    along = [np.linspace(half + 1, size - 2 - half, PLACES).round().astype(int) for size in grid.shape[2:]]
    first = [int(along[0][number // PLACES]) - half - reach, int(along[1][number % PLACES]) - half - reach]
    inside = [slice(max(0, start), start + edge) for start in first]
    missing = [(max(0, -start), max(0, start + edge - size)) for start, size in zip(first, grid.shape[2:], strict=True)]
    return F.pad(grid[:, :, inside[0], inside[1]], (*missing[1], *missing[0]))


def _turned(grid: Tensor, degrees: float) -> Tensor:
    angle = np.deg2rad(degrees)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]], dtype=torch.float32)
    places = F.affine_grid(turn.expand(len(grid), 2, 3), list(grid.shape), align_corners=False)
    return F.grid_sample(grid, places, align_corners=False)
