"""The healthy reference brain: tissue maps of the MNI152 atlas that ships inside nilearn. Knows no patients.

Coordinates are millimetres in the atlas' own space: x to the patient's right, y to the front, z up, origin at the
anterior commissure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]

_LOW, _HIGH = np.array([-80.0, -116.0, -72.0]), np.array([80.0, 84.0, 92.0])
"""The box kept from the atlas: the brain and a margin of at least 6 mm."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Several maps on one regular grid in atlas millimetres: (x, y, z, maps), the first node at `low`."""

    maps: Volume
    step_mm: float
    low: NDArray[np.float64]

    def at(self, points: NDArray[np.float32]) -> Volume:
        """Trilinear interpolation at `points` (3, ...): (maps, ...); zero outside the box.

        One gather per corner for all maps at once: twice as fast as `map_coordinates` map by map.
        """
        sizes = np.array(self.maps.shape[:3])
        places = points.reshape(3, -1) - self.low.astype(np.float32)[:, None]
        places /= np.float32(self.step_mm)
        inside = np.flatnonzero(((places >= 0) & (places <= sizes[:, None] - 1)).all(axis=0))
        places = places[:, inside]
        first = np.minimum(places.astype(np.int32), sizes[:, None] - 2).astype(np.int64)
        x, y, z = places - first
        nodes = self.maps.reshape(-1, self.maps.shape[3])
        start = (first[0] * sizes[1] + first[1]) * sizes[2] + first[2]
        found = np.zeros((len(inside), nodes.shape[1]), np.float32)
        for i, along_x in enumerate((1 - x, x)):
            for j, along_y in enumerate((1 - y, y)):
                for k, along_z in enumerate((1 - z, z)):
                    corner = np.take(nodes, start + (i * sizes[1] + j) * sizes[2] + k, axis=0)
                    corner *= (along_x * along_y * along_z).astype(np.float32)[:, None]
                    found += corner
        values = np.zeros((nodes.shape[1], points[0].size), np.float32)
        values[:, inside] = found.T
        return values.reshape(-1, *points.shape[1:])


@dataclass(frozen=True, kw_only=True, eq=False)
class Atlas:
    """`tissue`: csf, grey, white and brain as shares of a voxel, smoothed to the wanted voxel size.

    `surroundings`: a coarse grid of what lesions and ventricles are placed by: depth below the brain's surface in mm,
    smoothed white matter, smoothed ventricles and the three derivatives of the latter (per mm). `deep_white` lists
    the atlas points (n, 3) where a glioma may start.
    """

    tissue: Grid
    surroundings: Grid
    deep_white: NDArray[np.float32]


@lru_cache(maxsize=4)
def load_atlas(voxel_mm: float) -> Atlas:
    """The atlas made ready for images of `voxel_mm`; about half a second, once per process and voxel size."""
    tissue = _tissue_maps()
    depth = ndimage.distance_transform_edt(tissue[3, ::2, ::2, ::2] > 0.5, sampling=2).astype(np.float32)
    csf, white = (ndimage.gaussian_filter(tissue[part], 1.0)[::2, ::2, ::2] for part in (0, 2))
    ventricles = ndimage.gaussian_filter(_ventricles(csf, depth), 3.0)
    slopes = np.stack(np.gradient(ventricles, 2.0))
    white = ndimage.gaussian_filter(white, 2.0)
    surroundings = _grid([depth, white, ventricles, *slopes], 2)
    return Atlas(tissue=_for_voxels(tissue, voxel_mm), surroundings=surroundings, deep_white=_deep_white(depth, white))


def _tissue_maps() -> Volume:
    """csf, grey, white, brain at 1 mm. The atlas has no fluid map: what is neither grey nor white in the brain is."""
    t1, grey, white = (_read(name) for name in ("t1", "gm", "wm"))
    solid = ndimage.gaussian_filter((t1 > 0.02) | (grey + white > 0.1), 1.0, output=np.float32) > 0.5
    for plane in range(solid.shape[2]):
        solid[:, :, plane] = ndimage.binary_fill_holes(solid[:, :, plane])
    brain = ndimage.gaussian_filter(solid, 0.7, output=np.float32)
    grey, white = np.minimum(grey, brain), np.minimum(white, brain)
    return np.stack([np.clip(brain - grey - white, 0, 1), grey, white, brain])


def _read(name: str) -> Volume:
    """One map of the atlas, 0 to 1, cut to the box."""
    packed = files("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with as_file(packed) as path:
        image = nib.load(path)
        first = np.round(_LOW - image.affine[:3, 3]).astype(int)
        last = np.round(_HIGH - image.affine[:3, 3]).astype(int) + 1
        values = np.asarray(image.dataobj)
    box = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
    return values[box].astype(np.float32) / np.float32(255)


def _ventricles(fluid: Volume, depth: Volume) -> Volume:
    """The fluid deep inside the brain: lateral and third ventricles, on the coarse grid."""
    x, y, z = (_LOW[axis] + 2 * np.arange(size) for axis, size in enumerate(fluid.shape))
    inside = (np.abs(x)[:, None, None] < 45) & ((y > -70) & (y < 45))[None, :, None] & ((z > -12) & (z < 40))
    return np.where(inside & (depth > 28), fluid, 0).astype(np.float32)


def _deep_white(depth: Volume, white: Volume) -> NDArray[np.float32]:
    """Hemispheric white matter away from the surface, the midline, the brain stem and the cerebellum."""
    x, y, z = (_LOW[axis] + 2 * np.arange(size) for axis, size in enumerate(depth.shape))
    above = (z > -8)[None, None, :] & ((z > 2)[None, None, :] | (y > -35)[None, :, None])
    place = (white > 0.6) & (depth > 14) & (np.abs(x)[:, None, None] > 14) & above & (z < 48)
    return (_LOW + 2 * np.argwhere(place)).astype(np.float32)


def _for_voxels(tissue: Volume, voxel_mm: float) -> Grid:
    """The maps with the detail that `voxel_mm` can carry, on a coarser grid where that loses nothing.

    Slices are thicker than pixels are wide, so that tissues share a pixel more often along z.
    """
    sigma = 0.3 * voxel_mm
    smooth = [ndimage.gaussian_filter(part, (sigma, sigma, 1.7 * sigma)) for part in tissue]
    return _grid(smooth, 1) if sigma < 0.9 else _grid([part[::2, ::2, ::2] for part in smooth], 2)


def _grid(maps: Sequence[Volume], step_mm: float) -> Grid:
    return Grid(maps=np.ascontiguousarray(np.stack(maps, axis=-1), np.float32), step_mm=step_mm, low=_LOW)
