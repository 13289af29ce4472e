"""Cuts volumes into slices, the right way up. The one place that decides how a slice lies in its picture.

Axial: anterior up. Coronal and sagittal: superior up. The first column has the smallest x (the patient's left is on the
left of axial and coronal slices) or the smallest y (the face of a sagittal slice looks to the right).
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Axis = Literal["axial", "coronal", "sagittal"]
AXES: tuple[Axis, ...] = get_args(Axis)
_NUMBER: dict[Axis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


def count_slices(volume: NDArray[Any], axis: Axis) -> int:
    """How many slices `volume` (..., right, anterior, superior) has along `axis`."""
    return int(volume.shape[_NUMBER[axis] - 3])


def cut_slice(volume: NDArray[Any], axis: Axis, index: int) -> NDArray[Any]:
    """Slice `index` of `volume` (..., right, anterior, superior) as (..., height, width).

    Index 0 is the lowest (axial), hindmost (coronal) or leftmost (sagittal) slice.
    """
    plane = np.take(volume, index, axis=_NUMBER[axis] - 3)
    return np.flip(np.swapaxes(plane, -1, -2), axis=-2)


def slice_spacing(spacing_mm: tuple[float, ...], axis: Axis) -> tuple[float, float]:
    """The spacing of a slice's rows and columns."""
    columns, rows = (spacing for number, spacing in enumerate(spacing_mm) if number != _NUMBER[axis])
    return rows, columns
