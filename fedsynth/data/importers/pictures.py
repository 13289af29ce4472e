"""Opening pictures, and translating the numbers in masks, so that every damaged file is one sentence naming it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers.volume import SKIP, require_finite
from fedsynth.errors import SourceError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # a phone's MPO opens as JPEG


def open_picture(path: Path) -> NDArray[Any]:
    """A picture as (channels, height, width) in its own numbers; grey pictures have one channel.

    The camera's rotation is applied, and what is transparent is shown on black.
    """
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
    if array.dtype.kind != "f":
        return np.asarray(array, np.int64)
    whole = np.rint(array)
    off = np.abs(array - whole) > 1e-3
    if off.any():
        raise SourceError("a mask voxel is not a whole number", file=file, value=float(array[off][0]))
    labels: NDArray[np.int64] = whole.astype(np.int64)
    return labels


def map_labels(array: NDArray[Any], table: dict[int, int], file: Path) -> NDArray[np.uint8]:
    """Translate the source's label numbers by `table`; a number that it does not hold is an error naming the file."""
    labels = as_labels(array, file)
    low, high = min(table), max(table)
    new = np.full(high - low + 1, -1, np.int16)
    new[np.array(list(table)) - low] = list(table.values())
    mapped = new[labels.clip(low, high) - low]
    mapped[(labels < low) | (labels > high)] = -1
    strange = labels[mapped < 0]
    if strange.size:
        remedy = f"known labels: {', '.join(map(str, sorted(table)))}"
        raise SourceError("the mask has an unknown label", file=file, value=int(strange.min()), remedy=remedy)
    made: NDArray[np.uint8] = mapped.astype(np.uint8)
    return made


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header alone."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
            return width, height
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError) as error:
        raise SourceError(f"is no readable picture: {_first(error)}", file=path, remedy=SKIP) from error


def picture_kind(path: Path) -> tuple[bool, int]:
    """Whether a picture has colours, and its bits per value (8, 16 or 32), from its header alone."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as picture:
            return not _is_grey(picture), _bits(picture)
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError) as error:
        raise SourceError(f"is no readable picture: {_first(error)}", file=path, remedy=SKIP) from error


def open_mask(path: Path) -> NDArray[Any]:
    """The numbers of a mask picture as (height, width): grey values, or the indices of a coloured palette."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.mode == "P" and not _is_grey(picture):
                return np.asarray(ImageOps.exif_transpose(picture))
    except (OSError, ValueError, SyntaxError, EOFError, Warning, Image.DecompressionBombError) as error:
        raise SourceError(f"is no readable picture: {_first(error)}", file=path, remedy=SKIP) from error
    channels = open_picture(path)
    if (channels != channels[:1]).any():
        remedy = "save it as one grey value per label"
        raise SourceError("is a mask in colours", file=path, value=f"{len(channels)} channels", remedy=remedy)
    return np.asarray(channels[0])


def _read_picture(path: Path) -> tuple[NDArray[Any], int]:
    from PIL import Image, ImageOps

    with Image.open(path, formats=FORMATS) as picture:
        n_pictures = getattr(picture, "n_frames", 1)
        if n_pictures > 1 and picture.format != "MPO":  # the first picture of a phone's MPO is the one it shows
            return np.empty((0, 0)), n_pictures
        return _as_numbers(ImageOps.exif_transpose(picture), _bits(picture)), 1


def _as_numbers(picture: Any, bits: int) -> NDArray[Any]:
    """Grey stays grey and colour becomes RGB; what is transparent is shown on black."""
    from PIL import Image

    grey = _is_grey(picture)
    if bits > 8:
        return np.asarray(picture).astype(np.uint16) if bits == 16 else np.asarray(picture)
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (picture.mode == "P" and "transparency" in picture.info):
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture.convert("RGBA"))
    return np.asarray(picture.convert("L" if grey else "RGB"))


def _is_grey(picture: Any) -> bool:
    if picture.mode in ("P", "PA"):
        colours = np.reshape(picture.getpalette("RGB"), (-1, 3))
        return bool((colours == colours[:, :1]).all())
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def _bits(picture: Any) -> int:
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):
        return 16
    return 32 if picture.mode in ("I", "F") else 8


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
