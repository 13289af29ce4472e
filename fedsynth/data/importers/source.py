"""What a reader hands to the import: which images there are, and how to decode each when its turn comes.

A reader looks at names and tables only and returns a `Plan` quickly; the import calls `Source.decode` in parallel,
scales, cuts volumes into slices, resamples and writes. A reader never resizes, rescales intensities, cuts or draws
roles.

Orientation. Volumes have RAS axes: x grows to the patient's right, y to the front, z to the top. Two-dimensional slices
cut from them are shown upright: for axial slices the first row is the front of the head (anterior up), for coronal and
sagittal slices the top of the head (superior up); the first column has the smallest x (axial, coronal: the patient's
left stands on the left) or the smallest y (sagittal: the face looks to the right). Pictures keep the orientation
of their files.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import SourceError


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One decoded image in canonical orientation, before intensities and size are made uniform.

    `image` is (channels, height, width) or (channels, *RAS axes) in the source's own numbers, `mask` has the same
    spatial shape and holds the plan's label numbers. `case` is unique within the source set. `spacing_mm` has one
    number per spatial axis, None where the files do not say. `missing` names channels that the patient lacks and that
    hold a stand-in (which one, the reader's notes say).
    """

    case: str
    image: NDArray[Any]
    mask: NDArray[np.uint8] | None
    spacing_mm: tuple[float, ...] | None
    slice: int | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source:
    """One unit of decoding: a picture with its mask, a stack of slices, or a volume.

    `decode` opens the files and yields the images. All of them belong to one acquisition of one patient: percentiles
    of intensity are taken over all that one source yields, never over more. Where one image of several cannot be read,
    `decode` yields the `SourceError` in its place and goes on (or raises it, if nothing can follow). `problems` are
    those that names alone show, a missing mask for example: they stop the import before it starts, or are left out.
    """

    patient: str
    site: str
    label: str
    file: Path
    decode: Callable[[], Iterable[Raw | SourceError]]
    role: str = ""
    problems: tuple[SourceError, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a reader knows before decoding. `notes` goes into the set's provenance as it is.

    `mask_labels` is empty when the source has no masks. `intensity` is the scaling that suits the source when the user
    names none, written as on the command line: `window:LOW,HIGH` or `percentile:LOW,HIGH`. `dimensions` is 2 for
    pictures, which have no axis to be cut along, and 3 for volumes.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    mask_labels: tuple[str, ...]
    sources: list[Source]
    dimensions: Literal[2, 3]
    notes: dict[str, Any] = field(default_factory=dict)
    intensity: str = "percentile:1,99"
