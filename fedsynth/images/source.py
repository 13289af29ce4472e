"""What a reader hands to the import: which images there are, and how to decode each when its turn comes.

A reader looks at names and tables only and returns a `Plan` quickly; the import calls `Source.decode` in parallel,
scales, resamples and writes. A reader never resizes, rescales intensities or draws roles.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One decoded image in canonical orientation, before intensities and size are made uniform.

    `image` is (channels, height, width) or (channels, *RAS axes) in the source's own numbers, `mask` has the same
    spatial shape and holds the plan's label numbers. `case` is unique within the source set.
    """

    case: str
    image: NDArray[Any]
    mask: NDArray[np.uint8] | None
    spacing_mm: tuple[float, ...]
    slice: int | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """One unit of decoding: an image with its mask, or a volume. `decode` opens the files and yields its images."""

    patient: str
    site: str
    label: str
    file: Path
    decode: Callable[[], Iterable[Raw]]
    role: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything a reader knows before decoding. `notes` goes into the set's provenance as it is."""

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    mask_labels: tuple[str, ...]
    sources: list[Source]
    notes: dict[str, Any] = field(default_factory=dict)
