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
    """Several maps on one regular grid in atlas millimetres: (maps, x, y, z)."""

    maps: Volume
    step_mm: float

    def at(self, points: NDArray[np.float32], which: Sequence[int] | None = None) -> Volume:
        """Linear interpolation at `points` (3, ...): (maps, ...); zero outside the box."""
        chosen = range(len(self.maps)) if which is None else which
        places = (points - _LOW.astype(np.float32).reshape(3, *[1] * (points.ndim - 1))) / np.float32(self.step_mm)
        sampled = [ndimage.map_coordinates(self.maps[i], places, order=1, prefilter=False) for i in chosen]
        return np.stack(sampled).astype(np.float32, copy=False)


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
    surroundings = Grid(maps=np.concatenate([np.stack([depth, white, ventricles]), slopes]), step_mm=2)
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
    """The maps with the detail that `voxel_mm` can carry, on a coarser grid where that loses nothing."""
    sigma = 0.3 * voxel_mm
    smooth = np.stack([ndimage.gaussian_filter(part, sigma) for part in tissue]) if sigma > 0.3 else tissue
    if sigma < 0.9:
        return Grid(maps=smooth, step_mm=1)
    return Grid(maps=np.ascontiguousarray(smooth[:, ::2, ::2, ::2]), step_mm=2)
