"""Opens volumes of every supported kind as arrays in canonical RAS orientation.

NIfTI and MGH through nibabel, MetaImage and NRRD through SimpleITK, DICOM series through `dicom`. It knows files and
geometry only: nothing of patients, channels or labels.
"""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers.dicom import DICOM_KINDS, read_series, read_slices
from fedsynth.data.importers.volume import SKIP, Volume, affine_of, kind_of, require_path, to_ras, unreadable
from fedsynth.errors import SourceError

# Looks at a MetaImage (.mhd, .mha) before ITK does, which tells of missing or short data on stderr only.


BYTES = {"UCHAR": 1, "CHAR": 1, "USHORT": 2, "SHORT": 2, "UINT": 4, "INT": 4, "FLOAT": 4, "DOUBLE": 8}
LONGEST_HEADER = 65536


def check_metaimage(path: Path) -> None:
    """The data must be there and as long as the header says; kinds that only ITK understands are left to ITK."""
    if path.suffix.lower() not in (".mhd", ".mha"):
        return
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    head, found, tail = start.partition(b"ElementDataFile")
    if not found:
        raise SourceError("is not a MetaImage: its header names no data", file=path, remedy=SKIP)
    named = dict(_field(line) for line in head.splitlines() if b"=" in line)
    line = tail.splitlines()[0]
    data = line.replace(b"=", b"", 1).strip().decode("utf-8", "replace")
    if data.upper() == "LOCAL":
        header = len(head) + len(found) + len(line) + 1
        _check_length(path, path.stat().st_size - header, named)
    elif data.upper().split()[:1] != ["LIST"] and "%" not in data:
        beside = path.parent / data
        if not beside.is_file():
            raise SourceError(f"its data file {data!r} is missing", file=path, remedy="put both files side by side")
        _check_length(beside, beside.stat().st_size, named)


def _field(line: bytes) -> tuple[str, str]:
    key, _, value = line.decode("latin1").partition("=")
    return key.strip(), value.strip()


def _check_length(path: Path, length: int, named: dict[str, str]) -> None:
    wanted = _announced(named)
    if wanted is not None and length < wanted:
        raise SourceError(f"is cut off: {wanted} bytes of voxels are announced", file=path, value=length, remedy=SKIP)


def _announced(named: dict[str, str]) -> int | None:
    """The bytes that the header promises, or None where it does not say."""
    if named.get("CompressedData", "False").lower() == "true":
        packed = named.get("CompressedDataSize", "")
        return int(packed) if packed.isdigit() else None
    width = BYTES.get(named.get("ElementType", "").removeprefix("MET_"))
    sizes = named.get("DimSize", "").split()
    if width is None or not all(size.isdigit() for size in sizes):
        return None
    return math.prod(int(size) for size in sizes) * width


NIBABEL_KINDS = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
SIMPLEITK_KINDS = {".mhd": "MetaImageIO", ".mha": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}
VOLUME_KINDS = (*NIBABEL_KINDS, *SIMPLEITK_KINDS, *DICOM_KINDS)
MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


def open_volume(path: Path) -> Volume:
    """The volume in `path` (a file, or a folder that is one DICOM series); every voxel is finite."""
    require_path(path)
    if path.is_dir():
        return read_series(path)
    kind = kind_of(path, VOLUME_KINDS)
    if kind in NIBABEL_KINDS:
        return _read_with_nibabel(path)
    if kind in SIMPLEITK_KINDS:
        return _read_with_simpleitk(path, SIMPLEITK_KINDS[kind])
    if kind in DICOM_KINDS or _says_dicom(path):
        return read_slices(path, [path])
    remedy = f"volumes are {', '.join(VOLUME_KINDS)} or a folder with one DICOM series"
    raise SourceError("is not a known kind of volume", file=path, remedy=remedy)


def _says_dicom(path: Path) -> bool:
    """Scanners write DICOM files without any ending, but with their mark at byte 128."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_with_nibabel(path: Path) -> Volume:
    import nibabel

    try:
        image = nibabel.load(path)
        packed = path.name.lower().endswith((".nii.gz", ".mgz"))
        voxels = _unpacked(path, type(image)) if packed else np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, np.float64)
        unit = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else "mm"
    except Exception as error:  # a decoder fed with broken bytes may raise anything
        raise unreadable(path, error) from error
    scale = MM_PER_UNIT.get(unit, 1.0)
    return to_ras(voxels, np.diag([scale, scale, scale, 1.0]) @ affine, path)


def _unpacked(path: Path, kind: Any) -> NDArray[Any]:
    """The voxels of a packed file, read to its very end: only there the checksum is compared, where nibabel stops."""
    with gzip.open(path) as stream:
        voxels: NDArray[Any] = np.asanyarray(kind.from_stream(stream).dataobj)
        while stream.read(2**20):
            pass
    return voxels


def _read_with_simpleitk(path: Path, reader: str) -> Volume:
    import SimpleITK

    check_metaimage(path)
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = SimpleITK.ReadImage(str(path), imageIO=reader)
    except Exception as error:  # a decoder fed with broken bytes may raise anything
        raise unreadable(path, error) from error
    if image.GetNumberOfComponentsPerPixel() > 1:
        n, remedy = image.GetNumberOfComponentsPerPixel(), "give one channel per file"
        raise SourceError("has several numbers per voxel", file=path, value=n, remedy=remedy)
    voxels = SimpleITK.GetArrayFromImage(image).T
    if voxels.ndim != 3:
        return to_ras(voxels, np.eye(4), path)
    return to_ras(voxels, affine_of(image), path)
