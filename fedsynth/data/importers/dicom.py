"""One DICOM series as one volume: slices sorted by where they lie, gaps and doubles named, rescaled to real units."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers.volume import LPS_TO_RAS, SKIP, Volume, affine_of, kind_of, to_ras, unreadable
from fedsynth.errors import SourceError

DICOM_KINDS = (".dcm", ".dicom", ".ima")
SAME_PLACE_MM = 1e-3
UNEVEN_SHARE = 0.1
MODALITY, DESCRIPTION, PHOTOMETRIC, THICKNESS = "0008|0060", "0008|103e", "0028|0004", "0018|0050"


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """One file of a series: voxels (x, y, frames) and the place of the first voxel in LPS millimetres."""

    file: Path
    voxels: NDArray[Any]
    direction: NDArray[np.float64]
    spacing: tuple[float, ...]
    origin: NDArray[np.float64]
    thickness: float
    image: Any


def read_series(folder: Path) -> Volume:
    """The series in `folder`; other files may lie beside it, but a second series is refused."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    found = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        below = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
        remedy = f"name the folder of one series, for example {folder / below[0]}" if below else "name a DICOM series"
        raise SourceError("the folder holds no DICOM series", file=folder, remedy=remedy)
    files = {name: SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), name) for name in found}
    if len(found) > 1:
        listed = "; ".join(f"{name} ({_described(files[name])})" for name in found)
        raise SourceError(
            f"the folder holds {len(found)} series: {listed}", file=folder, remedy="give each its own folder"
        )
    listed_files = [Path(name) for name in files[found[0]]]
    _refuse_stray(folder, listed_files)
    return read_slices(folder, listed_files)


def read_slices(source: Path, files: list[Path]) -> Volume:
    """The volume that `files` make up; `source` is what errors about the whole are named after."""
    slices = [_read_slice(file) for file in files]
    if len(slices) == 1 and slices[0].voxels.shape[2] > 1:
        return to_ras(slices[0].voxels, affine_of(slices[0].image), source)
    first = slices[0]
    for other in slices:
        _refuse_mixed(other, first)
    normal = first.direction[:, 2]
    slices.sort(key=lambda one: float(normal @ one.origin))
    affine = np.eye(4)
    affine[:3, :2] = first.direction[:, :2] * np.array(first.spacing[:2])
    affine[:3, 2] = _step(source, slices, normal)
    affine[:3, 3] = slices[0].origin
    voxels = np.concatenate([one.voxels for one in slices], axis=2)
    return to_ras(voxels, LPS_TO_RAS @ affine, source)


def _refuse_stray(folder: Path, series: list[Path]) -> None:
    """A damaged slice is not even listed; at the end of a series nothing else would tell that it is missing."""
    names = {file.name for file in series}
    for file in sorted(folder.iterdir()):
        if file.name not in names and file.is_file() and kind_of(file, DICOM_KINDS) and not file.name.startswith("."):
            raise SourceError("is no readable DICOM image", file=file, remedy=SKIP)


def _read_slice(file: Path) -> Slice:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(file), imageIO="GDCMImageIO")
    except Exception as error:  # a decoder fed with broken bytes may raise anything
        raise unreadable(file, error) from error
    kind = _tag(image, PHOTOMETRIC)
    if image.GetNumberOfComponentsPerPixel() > 1 or kind == "MONOCHROME1" or image.GetDimension() != 3:
        remedy = "volumes are gray values that grow with brightness"
        raise SourceError("cannot be part of a volume", file=file, value=kind or "colours", remedy=remedy)
    thickness = _tag(image, THICKNESS)
    return Slice(
        file=file,
        voxels=_small(SimpleITK.GetArrayFromImage(image).T),
        direction=np.reshape(image.GetDirection(), (3, 3)),
        spacing=image.GetSpacing(),
        origin=np.array(image.GetOrigin()),
        thickness=float(thickness) if thickness.replace(".", "", 1).isdigit() and float(thickness) > 0 else 1.0,
        image=image,
    )


def _small(voxels: NDArray[Any]) -> NDArray[Any]:
    """Rescaled slices come with 32 or 64 bits; what fits into fewer is kept in fewer, for a CT has hundreds."""
    if voxels.dtype.kind == "f":
        return voxels.astype(np.float32)
    fits = voxels.size and voxels.min() >= -(2**15) and voxels.max() < 2**15
    return voxels.astype(np.int16) if fits else voxels


def _refuse_mixed(other: Slice, first: Slice) -> None:
    remedy = "keep scouts and other series out of the folder"
    if other.voxels.shape != first.voxels.shape:
        problem = f"the slice has another size than {first.file.name}, {first.voxels.shape}"
        raise SourceError(problem, file=other.file, value=other.voxels.shape, remedy=remedy)
    if not np.allclose(other.direction, first.direction, atol=1e-3):
        raise SourceError(f"the slice is turned against {first.file.name}", file=other.file, remedy=remedy)
    if not np.allclose(other.spacing[:2], first.spacing[:2], rtol=1e-3):
        problem = f"the pixels have another size than in {first.file.name}, {first.spacing[:2]} mm"
        raise SourceError(problem, file=other.file, value=other.spacing[:2], remedy=remedy)


def _step(source: Path, slices: list[Slice], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way from one slice to the next, sheared where the gantry was tilted; it must be the same everywhere."""
    if len(slices) == 1:
        return np.asarray(normal * slices[0].thickness)
    gaps = np.diff([float(normal @ one.origin) for one in slices])
    if gaps.min() < SAME_PLACE_MM:
        at = int(np.argmin(gaps))
        problem = f"{slices[at].file.name} and {slices[at + 1].file.name} lie at the same place"
        remedy = "a series with several phases, echoes or copies is not one volume: keep one of each"
        raise SourceError(problem, file=source, remedy=remedy)
    middle = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - middle)))
    if abs(gaps[worst] - middle) > UNEVEN_SHARE * middle:
        names = f"{slices[worst].file.name} and {slices[worst + 1].file.name}"
        problem = f"the slices are {middle:.3g} mm apart, but {names} {gaps[worst]:.3g} mm"
        raise SourceError(problem, file=source, remedy="add the missing slices, or leave the series out")
    return np.asarray((slices[-1].origin - slices[0].origin) / (len(slices) - 1))


def _described(files: tuple[str, ...]) -> str:
    """What tells one series from another: how it was called, and its kinds of image."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(files[0])
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return f"{len(files)} files"
    named = (reader.GetMetaData(key).strip() for key in (MODALITY, DESCRIPTION) if reader.HasMetaDataKey(key))
    return ", ".join([*filter(None, named), f"{len(files)} files"])


def _tag(image: Any, key: str) -> str:
    return str(image.GetMetaData(key)).strip() if image.HasMetaDataKey(key) else ""
