"""Where the pixels of a phantom lie, and smooth random fields that can be read at any of them without making the rest.

A 3-D volume has RAS axes: from the patient's left to right, from back to front, from bottom to top. A 2-D image lies as
every axial slice of an image set does (`fedsynth.data.preprocessing.upright`): the front of the head is up, the
patient's left is on the left. Plane k of the volume, turned that way, is the image of plane k.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""One or more maps on the pixels of one axial plane: (maps, rows, columns) or (rows, columns)."""

FIELD_MM = 208.0
CENTRE_MM = (0.0, -17.0, 6.0)
LOWEST_MM, HIGHEST_MM = -22.0, 58.0
"""The height (atlas z) of the planes that 2-D sets are cut from: from the temporal lobes to near the vertex."""

_UNIT = 0.479 ** (-1.5)
"""1 / standard deviation of a cubic B-spline on unit normal nodes, averaged over a cell, in three dimensions."""


@dataclass(frozen=True, kw_only=True)
class Viewport:
    """A cube of `size` voxels a side around the head; positions are millimetres from its centre."""

    size: int

    @property
    def spacing_mm(self) -> float:
        """Edge of a voxel."""
        return FIELD_MM / self.size

    @property
    def offsets_mm(self) -> NDArray[np.float64]:
        """Voxel centres along an axis, rising to the patient's right, front or top."""
        middle = (self.size - 1) / 2
        return (np.arange(self.size, dtype=np.float64) - middle) * self.spacing_mm

    @property
    def planes(self) -> range:
        """The axial planes that 2-D images are cut from."""
        heights = self.offsets_mm + CENTRE_MM[2]
        inside = np.flatnonzero((heights >= LOWEST_MM) & (heights <= HIGHEST_MM))
        return range(int(inside[0]), int(inside[-1]) + 1)

    def points(self, plane: int) -> Plane:
        """x, y, z of every pixel of the axial plane: (3, rows, columns)."""
        line = self.offsets_mm.astype(np.float32)
        y, x = np.meshgrid(line[::-1], line, indexing="ij")
        return np.stack([x, y, np.full_like(x, line[plane])])


def as_volume(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Planes (depth, ..., rows, columns) from bottom to top as a volume (..., x, y, z) with RAS axes."""
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1)[..., ::-1, :, :].swapaxes(-3, -2))


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """A smooth random field, mean 0, variance about 1: cubic B-splines on nodes (maps, x, y, z) `step_mm` apart."""

    nodes: Plane
    step_mm: float

    def plane(self, view: Viewport, plane: int) -> Plane:
        """The field on the pixels of an axial plane: (maps, rows, columns)."""
        weights = _weights_of_view(view.size, self.step_mm)
        near = np.flatnonzero(weights[plane])  # a cubic spline reaches four nodes
        nodes = np.ascontiguousarray(self.nodes[..., near[0] : near[-1] + 1].swapaxes(1, 2))
        flat = np.einsum("myxz,z->myx", nodes, weights[plane, near[0] : near[-1] + 1])
        rows = np.einsum("myx,ry->mrx", flat, weights[::-1])
        field: Plane = np.einsum("mrx,cx->mrc", rows, weights)
        return field

    def at(self, point: NDArray[np.float64]) -> NDArray[np.float32]:
        """The field at one point: (maps,)."""
        x, y, z = _weights(np.asarray(point, np.float64), self.step_mm)
        values: NDArray[np.float32] = np.einsum("mxyz,x,y,z->m", self.nodes, x, y, z)
        return values


def draw_lattice(rng: np.random.Generator, step_mm: float, maps: int = 1) -> Lattice:
    """A random field whose bumps are about two steps wide."""
    nodes = rng.standard_normal((maps, *[_count(step_mm)] * 3), dtype=np.float32) * np.float32(_UNIT)
    return Lattice(nodes=nodes, step_mm=step_mm)


def _count(step_mm: float) -> int:
    return int(np.ceil(FIELD_MM / step_mm)) + 4


@lru_cache(maxsize=64)
def _weights_of_view(size: int, step_mm: float) -> Plane:
    return _weights(Viewport(size=size).offsets_mm, step_mm)


def _weights(offsets_mm: NDArray[np.float64], step_mm: float) -> Plane:
    """The share of every node in the field at the offsets: (offsets, nodes), each row adds up to 1."""
    count = _count(step_mm)
    distance = np.abs(offsets_mm[:, None] / step_mm + (count - 1) / 2 - np.arange(count))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)
