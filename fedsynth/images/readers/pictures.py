"""Opening pictures, and translating the numbers in masks, so that every damaged file is one sentence naming it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import SourceError
from fedsynth.images.readers.decoding import require_finite

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SKIP = "mend or remove the file, or give --skip-corrupt"


def open_picture(path: Path) -> NDArray[Any]:
    """A picture as (channels, height, width) in its own numbers; grey pictures have one channel, alpha is dropped."""
    if not path.is_file():
        raise SourceError("the file is missing", file=path)
    try:
        array, n_pictures = _read_picture(path)
    except Exception as error:  # a decoder fed with broken bytes may raise anything
        raise SourceError(f"is no readable picture: {_first(error)}", file=path, remedy=SKIP) from error
    if n_pictures != 1:
        raise SourceError("holds several pictures where one is expected", file=path, value=n_pictures)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return require_finite(array, path)


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


def _read_picture(path: Path) -> tuple[NDArray[Any], int]:
    from PIL import Image

    with Image.open(path) as picture:
        n_pictures = getattr(picture, "n_frames", 1)
        if picture.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBA", "RGBX"):
            return np.asarray(picture.convert("RGB")), n_pictures
        if picture.mode in ("LA", "1"):
            return np.asarray(picture.convert("L")), n_pictures
        return np.asarray(picture), n_pictures


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
