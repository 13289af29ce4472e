"""Opening pictures and volumes so that every damaged file is one sentence naming it.

Volumes come out with RAS axes. It knows file formats and nothing of data sets.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import SourceError

NIFTI = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A three-dimensional array with RAS axes; `affine` takes voxel numbers to millimetres in RAS."""

    array: NDArray[Any]
    affine: NDArray[np.float64]
    file: Path

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Millimetres from one voxel to the next along x, y and z."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))


def open_picture(path: Path) -> NDArray[Any]:
    """A picture as (channels, height, width) in its own numbers; grey pictures have one channel, alpha is dropped."""
    from PIL import Image

    _require_file(path)
    try:
        array, n_pictures = _read_picture(path)
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError) as error:
        raise SourceError(f"is no readable picture: {_first(error)}", file=path, remedy=SKIP) from error
    if n_pictures != 1:
        raise SourceError("holds several pictures where one is expected", file=path, value=n_pictures)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return require_finite(array, path)


def open_volume(path: Path) -> Volume:
    """A NIfTI, MHD/MHA, NRRD file or a folder with one DICOM series, with its axes turned to RAS."""
    if path.name.lower().endswith(NIFTI):
        _require_file(path)
        array, affine = _open_nifti(path)
    else:
        array, affine = _open_itk(path)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        remedy = "give one three-dimensional volume per file"
        raise SourceError(
            f"has {array.ndim} dimensions where 3 are expected", file=path, value=array.shape, remedy=remedy
        )
    if array.dtype.kind not in "iufb":
        raise SourceError("its voxels are not plain numbers", file=path, value=str(array.dtype))
    array = array.astype(np.float32) if array.dtype.kind == "f" else array
    return _to_ras(require_finite(array, path), affine, path)


def require_same_grid(first: Volume, other: Volume) -> None:
    """Both must cover the same voxels in space; a corner may be off by a tenth of a voxel."""
    if first.array.shape != other.array.shape:
        problem = f"has another shape than {first.file.name}, {first.array.shape}"
        raise SourceError(problem, file=other.file, value=other.array.shape, remedy="resample it to that grid")
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in first.array.shape])).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    apart = np.linalg.norm(((first.affine - other.affine) @ corners)[:3], axis=0).max()
    if apart > 0.1 * min(first.spacing_mm):
        problem = f"lies on another grid than {first.file.name}: a corner is {apart:.3g} mm away"
        raise SourceError(problem, file=other.file, remedy="resample it to that grid")


def as_labels(array: NDArray[Any], file: Path) -> NDArray[np.int64]:
    """Mask voxels as whole numbers; scaled files such as 0.99999997 are rounded, anything else is refused."""
    whole = np.rint(array)
    off = np.abs(array - whole) > 1e-3
    if off.any():
        raise SourceError("a mask voxel is not a whole number", file=file, value=float(array[off][0]))
    labels: NDArray[np.int64] = whole.astype(np.int64)
    return labels


def map_labels(array: NDArray[Any], table: dict[int, int], file: Path) -> NDArray[np.uint8]:
    """Translate the source's label numbers by `table`; a number that it does not hold is an error naming the file."""
    labels = as_labels(array, file)
    known = np.array(sorted(table))
    place = np.searchsorted(known, labels).clip(max=len(known) - 1)
    strange = known[place] != labels
    if strange.any():
        remedy = f"known labels: {', '.join(map(str, known))}"
        raise SourceError("the mask has an unknown label", file=file, value=int(labels[strange][0]), remedy=remedy)
    new = np.array([table[int(number)] for number in known], np.uint8)
    mapped: NDArray[np.uint8] = new[place]
    return mapped


def require_finite(array: NDArray[Any], file: Path) -> NDArray[Any]:
    """The array itself, or an error naming the file when a voxel is NaN or infinite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise SourceError(f"voxel {place} is not a finite number", file=file, value=float(array[place]), remedy=SKIP)
    return array


SKIP = "mend or remove the file, or give --skip-corrupt"


def _read_picture(path: Path) -> tuple[NDArray[Any], int]:
    from PIL import Image

    with Image.open(path) as picture:
        n_pictures = getattr(picture, "n_frames", 1)
        if picture.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBA", "RGBX"):
            return np.asarray(picture.convert("RGB")), n_pictures
        if picture.mode in ("LA", "1"):
            return np.asarray(picture.convert("L")), n_pictures
        return np.asarray(picture), n_pictures


def _open_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    try:
        image = nibabel.load(path)
        return np.asanyarray(image.dataobj), np.asarray(image.affine, np.float64)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error, KeyError) as error:
        raise SourceError(f"is no readable volume: {_first(error)}", file=path, remedy=SKIP) from error


def _open_itk(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    import SimpleITK

    SimpleITK.ProcessObject_SetGlobalWarningDisplay(False)
    try:
        image = SimpleITK.ReadImage(_dicom_files(path) if path.is_dir() else str(_require_file(path)))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise SourceError(f"is no readable volume: {reason}", file=path, remedy=SKIP) from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        raise SourceError("has several numbers per voxel", file=path, value=image.GetNumberOfComponentsPerPixel())
    array = SimpleITK.GetArrayFromImage(image).transpose()
    affine = np.eye(4)
    if image.GetDimension() == 3:
        lps_to_ras = np.diag([-1.0, -1.0, 1.0])
        affine[:3, :3] = lps_to_ras @ np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
        affine[:3, 3] = lps_to_ras @ image.GetOrigin()
    return array, affine


def _dicom_files(folder: Path) -> tuple[str, ...]:
    import SimpleITK

    series = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        remedy = "give a folder with one DICOM series"
        raise SourceError("the folder must hold exactly one series", file=folder, value=len(series), remedy=remedy)
    files: tuple[str, ...] = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    return files


def _to_ras(array: NDArray[Any], affine: NDArray[np.float64], path: Path) -> Volume:
    from nibabel import orientations

    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise SourceError("its header gives no usable orientation and spacing", file=path)
    turn = orientations.io_orientation(affine)
    turned = orientations.apply_orientation(array, turn)
    return Volume(array=turned, affine=affine @ orientations.inv_ornt_aff(turn, array.shape), file=path)


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise SourceError("the file is missing", file=path)
    return path


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
