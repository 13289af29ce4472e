"""A volume in canonical orientation, and the sentences for files and voxels that are not what they should be.

It knows geometry and messages: no file format, no patients.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import SourceError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_GRID_VOXELS = 0.1
SKIP = "mend or remove the file, or give --skip-corrupt"


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxels on axes that point right, anterior and superior; `affine` takes voxel indices to RAS millimetres."""

    array: NDArray[Any]
    affine: NDArray[np.float64]
    file: Path

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance between neighbouring voxels along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def to_ras(voxels: NDArray[Any], affine: NDArray[np.float64], file: Path) -> Volume:
    """Check a decoded array and turn its axes to the nearest right, anterior, superior; nothing is resampled."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        remedy = "give one volume per file: split a time series into its volumes first"
        raise SourceError(f"has {voxels.ndim} axes where a volume has 3", file=file, value=voxels.shape, remedy=remedy)
    if 0 in voxels.shape:
        raise SourceError("has no voxels", file=file, value=voxels.shape)
    if voxels.dtype.kind not in "biuf":
        remedy = "give one number per voxel, one channel per file"
        raise SourceError("has colours or several numbers per voxel", file=file, value=str(voxels.dtype), remedy=remedy)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        remedy = "write the file again with a valid orientation"
        raise SourceError("its orientation matrix is not usable", file=file, remedy=remedy)
    if voxels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32, copy=False)
    require_finite(voxels, file)
    turn = io_orientation(affine)
    turned = apply_orientation(voxels, turn)
    return Volume(array=turned, affine=affine @ inv_ornt_aff(turn, voxels.shape), file=file)


def affine_of(image: Any) -> NDArray[np.float64]:
    """The RAS affine of a three-dimensional SimpleITK image, whose own axes point left, posterior, superior."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def require_same_grid(first: Volume, other: Volume) -> None:
    """Both must have the same shape and cover the same voxels in space, to a tenth of a voxel."""
    shape, name = first.array.shape, first.file.name
    remedy = f"resample it to the grid of {name}"
    if other.array.shape != shape:
        problem = f"has another shape than {name}, {shape}"
        raise SourceError(problem, file=other.file, value=other.array.shape, remedy=remedy)
    corners = np.array([[*np.multiply(corner, np.array(shape) - 1), 1] for corner in np.ndindex(2, 2, 2)]).T
    apart = np.abs(np.linalg.solve(first.affine, other.affine @ corners) - corners).max()
    if apart <= SAME_GRID_VOXELS:
        return
    if not np.allclose(first.spacing_mm, other.spacing_mm, rtol=1e-3):
        there, here = (tuple(round(mm, 4) for mm in volume.spacing_mm) for volume in (first, other))
        problem = f"lies on another grid than {name}, whose voxels are {there} mm"
        raise SourceError(problem, file=other.file, value=here, remedy=remedy)
    problem = f"lies on another grid than {name}: a corner is {apart:.3g} voxels away"
    raise SourceError(problem, file=other.file, remedy=remedy)


def require_finite(array: NDArray[Any], file: Path) -> NDArray[Any]:
    """The array itself, or an error that names the first value that is NaN or infinite and counts them."""
    if array.dtype.kind != "f":
        return array
    bad = ~np.isfinite(array)
    if bad.any():
        place = tuple(int(index) for index in np.unravel_index(int(np.argmax(bad)), bad.shape))
        problem = f"{int(bad.sum())} of {bad.size} values are not finite, the first at {place}"
        raise SourceError(problem, file=file, value=float(array[place]), remedy=SKIP)
    return array


def kind_of(path: Path, kinds: tuple[str, ...]) -> str:
    """The ending of the file's name that stands in `kinds`, or nothing; capitals do not matter."""
    name = path.name.lower()
    return next((kind for kind in kinds if name.endswith(kind)), "")


def require_path(path: Path) -> None:
    """Name a path that is not there, and the nearest folder above it that is."""
    if path.exists():
        return
    if path.is_symlink():
        raise SourceError(
            "is a link to a file that does not exist", file=path, remedy="fetch the file or mend the link"
        )
    above = next((folder for folder in path.parents if folder.exists()), path.parent)
    remedy = "check the spelling" if above == path.parent else f"the path exists up to {above}"
    raise SourceError("there is no such file or folder", file=path, remedy=remedy)


def unreadable(path: Path, error: BaseException) -> SourceError:
    """What to say when a decoder gives up: its own reason, shortened, without the path that it repeats."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Reason:")]
    lines = lines or [type(error).__name__]
    reason = lines[-1] if isinstance(error, RuntimeError) else lines[0]
    reason = re.sub(r"^(sitk::|ITK )ERROR: |\(0x[0-9a-f]+\)", "", reason.replace(str(path), path.name))[:160]
    return SourceError(f"cannot be decoded: {reason}", file=path, remedy=SKIP)
