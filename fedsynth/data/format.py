"""Every promise of the image-set format, checked; a broken one is named with its file, row and value."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fedsynth.data.lazy_arrays import Stack
from fedsynth.data.roles import ROLES, Split
from fedsynth.errors import ConfigError, ImageSetError, nearest

# What an image set says about itself: the content of `imageset.toml`, format 1.


Origin = Literal["real", "synthetic"]
SPLITS = "splits"
"""The key of the provenance under which a set put together of others keeps how each site's roles were drawn."""
PHANTOM = "phantom"
"""The key of the provenance that marks a set of phantoms: by the format its origin is real, but it shows nobody."""

CONSISTS_OF = "consists-of"
"""The key of the provenance that says whose altered images a synthetic set shows, if anybody's."""
PUBLIC_SET = "public-set"
"""The key under which that set is described (name, digest, origin, provenance); a list where there are several."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The description of an image set.

    `mask_labels` names the values of the masks, background first, and is empty where there are no masks.
    `spacing_mm` has one number per spatial axis, so its length (2 or 3) is the number of dimensions.
    `provenance` is free: the reader or the phantom records there how the set was made and what was left out.
    """

    name: str
    origin: Origin
    channels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    format: Literal[1] = 1
    classes: tuple[str, ...] = ()
    mask_labels: tuple[str, ...] = ()
    split: Split | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, names in (("channels", self.channels), ("classes", self.classes), ("mask-labels", self.mask_labels)):
            if len(set(names)) != len(names) or "" in names:
                raise ConfigError(f"{key!r} must be different, non-empty names", value=list(names))
        if not self.channels:
            raise ConfigError("'channels' must name at least one channel")
        if len(self.mask_labels) == 1 or len(self.mask_labels) > 256:
            raise ConfigError("'mask-labels' must be empty or name background and 1 to 255 labels")
        if len(self.spacing_mm) not in (2, 3) or any(not 0 < value < 1e6 for value in self.spacing_mm):
            raise ConfigError("'spacing-mm' must be two or three positive numbers", value=list(self.spacing_mm))

    @property
    def dimensions(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.spacing_mm)

    @property
    def phantoms(self) -> bool:
        """Whether the images show phantoms, so that no patient is to be protected."""
        return PHANTOM in self.provenance


COLUMNS = ("case", "patient", "site", "role", "class", "slice")
HEADER, TABLE, IMAGES, MASKS = "imageset.toml", "cases.csv", "images.npy", "masks.npy"


def check_table(header: Header, cases: pd.DataFrame, folder: Path | None) -> None:
    """The rows of `cases.csv`: columns, unique cases, known roles and classes, one site and one role per patient."""
    file = None if folder is None else folder / TABLE
    for column in COLUMNS:
        if column not in cases.columns:
            remedy = f"the columns are {','.join(COLUMNS)}"
            raise ImageSetError(f"the column {column!r} is missing", file=file, remedy=remedy)
    if len(set(cases.columns)) < len(cases.columns):
        raise ImageSetError("two columns have the same name", file=file, value=list(cases.columns))
    if extra := [column for column in cases.columns if column not in COLUMNS]:
        remedy = nearest(str(extra[0]), COLUMNS)
        raise ImageSetError("unknown column", file=file, value=str(extra[0]), remedy=remedy)
    of = {column: cases[column].tolist() for column in COLUMNS}  # most tables are small, where pandas takes long
    for column in ("patient", "site"):
        remedy = "'A' and 'A ' would be two: remove the blanks"
        loose = [not isinstance(value, str) or value != value.strip() for value in of[column]]
        _refuse(loose, of[column], f"the {column} begins or ends with a blank", file, remedy)
    _refuse([case == "" for case in of["case"]], of["case"], "the case has no name", file)
    if len(set(of["case"])) < len(cases):
        twice = cases["case"].duplicated().tolist()
        _refuse(twice, of["case"], "the case stands twice", file, "every case needs its own name")
    known, roles = f"one of {', '.join(ROLES)} or empty", {*ROLES, ""}
    _refuse([role not in roles for role in of["role"]], of["role"], "unknown role", file, known)
    classes = {*header.classes, ""}
    listed = f"the classes of {HEADER} are: {', '.join(header.classes) or 'none'}"
    _refuse([label not in classes for label in of["class"]], of["class"], "unknown class", file, listed)
    bad_slice = [not isinstance(value, str) or not re.fullmatch(r"\d*", value) for value in of["slice"]]
    _refuse(bad_slice, of["slice"], "the slice is not a whole number", file)
    if header.origin == "real":
        remedy = "a real set names the patient of every image: nothing can be split or protected without it"
        _refuse([name == "" for name in of["patient"]], of["patient"], "the patient is missing", file, remedy)
    for column in ("site", "role"):
        _check_one_per_patient(of["patient"], of[column], column, file)


def check_shapes(header: Header, cases: pd.DataFrame, images: Stack, masks: Stack | None, folder: Path | None) -> None:
    """Sizes and kinds of the arrays against the header and the table."""
    file = None if folder is None else folder / IMAGES
    if images.dtype not in (np.uint8, np.float32):
        raise ImageSetError("the images must be uint8 or float32", file=file, value=str(images.dtype))
    if 0 in images.shape[1:]:
        raise ImageSetError("the images have no voxels", file=file, value=images.shape)
    if images.ndim != header.dimensions + 2:
        wanted = "(image, channel, height, width" + (", depth)" if header.dimensions == 3 else ")")
        raise ImageSetError(
            f"the array must be {wanted} for spacing-mm {header.spacing_mm}", file=file, value=images.shape
        )
    if images.shape[1] != len(header.channels):
        raise ImageSetError(f"{len(header.channels)} channels are named", file=file, value=images.shape[1])
    _check_count(cases, images, file)
    if (masks is None) != (not header.mask_labels):
        missing = "has mask-labels but no masks" if masks is None else "has masks but no mask-labels"
        raise ImageSetError(f"the set {missing}", file=folder)
    if masks is None:
        return
    file = None if folder is None else folder / MASKS
    if masks.dtype != np.uint8:
        raise ImageSetError("the masks must be uint8", file=file, value=str(masks.dtype))
    _check_count(cases, masks, file)
    if masks.shape[1:] != images.shape[2:]:
        raise ImageSetError(f"the masks must be {images.shape[2:]} like the images", file=file, value=masks.shape[1:])


def check_values(header: Header, cases: pd.DataFrame, images: Stack, masks: Stack | None, folder: Path | None) -> None:
    """Every voxel: finite and in [0, 1] where images are floating point, a named label where there are masks."""
    step = max(1, 2**24 // max(1, int(np.prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        if images.dtype == np.float32:
            block = images[start : start + step].reshape(min(step, len(images) - start), -1)
            bad = ~((block >= 0) & (block <= 1)).all(axis=1)
            if bad.any():
                row = int(np.argmax(bad))
                values = block[row][~((block[row] >= 0) & (block[row] <= 1))]
                _voxel_error(cases, start + row, folder, IMAGES, "a voxel is not a number in [0, 1]", float(values[0]))
        if masks is not None:
            largest = masks[start : start + step].reshape(min(step, len(masks) - start), -1).max(axis=1)
            if (largest >= len(header.mask_labels)).any():
                row = int(np.argmax(largest >= len(header.mask_labels)))
                _voxel_error(cases, start + row, folder, MASKS, "a label has no name in mask-labels", int(largest[row]))


def _voxel_error(cases: pd.DataFrame, row: int, folder: Path | None, name: str, problem: str, value: float) -> None:
    file = None if folder is None else folder / name
    case = cases["case"].iloc[row]
    raise ImageSetError(f"{problem} in case {case!r}, row {row + 2} of {TABLE}", file=file, value=value)


def _check_count(cases: pd.DataFrame, array: Stack, file: Path | None) -> None:
    if len(array) != len(cases):
        raise ImageSetError(f"the array has {len(array)} items and {TABLE} has {len(cases)} rows", file=file)


def _check_one_per_patient(patients: list[str], values: list[str], column: str, file: Path | None) -> None:
    first: dict[str, str] = {}
    for i, (patient, here) in enumerate(zip(patients, values, strict=True)):
        if patient != "" and (there := first.setdefault(patient, here)) != here:
            remedy = "all images of a patient belong together; rename the patient or mend the column"
            problem = f"the patient {patient!r} has two values of {column!r}: {there!r} and {here!r}"
            raise ImageSetError(problem, file=file, row=i + 2, remedy=remedy)


def _refuse(wrong: list[bool], values: list[str], problem: str, file: Path | None, remedy: str = "") -> None:
    if any(wrong):
        first = wrong.index(True)  # it stands after a header line, and editors count from one
        raise ImageSetError(problem, file=file, row=first + 2, value=str(values[first]), remedy=remedy)
