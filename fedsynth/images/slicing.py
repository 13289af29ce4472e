"""Cutting volumes into upright slices, and choosing which slices of a source are kept.

Which way up a slice is stands in `fedsynth.images.source`. It knows nothing of files or intensities.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsynth.errors import ConfigError, nearest
from fedsynth.images.source import Raw

Axis = Literal["axial", "coronal", "sagittal"]
Keep = Literal["tumour", "non-empty", "all"]
_ACROSS: dict[str, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True, kw_only=True)
class Slicing:
    """Slices along `axis`, of these every `every`-th, of these the ones to `keep`.

    `tumour` keeps slices with any labelled pixel, `non-empty` those with any pixel that differs from the acquisition's
    background. Empty `keep` means `non-empty` for slices cut from volumes and `all` for pictures.
    """

    axis: Axis = "axial"
    every: int = 1
    keep: Keep | Literal[""] = ""

    def __post_init__(self) -> None:
        if self.axis not in get_args(Axis):
            raise ConfigError("unknown axis", value=self.axis, remedy=nearest(self.axis, get_args(Axis)))
        if self.keep and self.keep not in get_args(Keep):
            raise ConfigError("unknown choice of slices", value=self.keep, remedy=nearest(self.keep, get_args(Keep)))
        if self.every < 1:
            raise ConfigError("every K-th slice needs K of at least 1", value=self.every)

    def choose(self, raws: Iterable[Raw], background: tuple[float | None, ...]) -> Iterator[Raw]:
        """The slices to keep of one acquisition, volumes cut; `background` is its value per channel, if it has one."""
        position = 0
        for raw in raws:
            keep = self.keep or ("non-empty" if raw.image.ndim == 4 else "all")
            for one in cut(raw, self.axis) if raw.image.ndim == 4 else [raw]:
                if position % self.every == 0 and _is_kept(one, keep, background):
                    yield one
                position += 1


def cut(volume: Raw, axis: Axis) -> Iterator[Raw]:
    """Every slice of `volume` along `axis`, lowest coordinate first; `slice` is the index along that axis."""
    across = _ACROSS[axis]
    spacing = volume.spacing_mm
    in_plane = None if spacing is None else tuple(np.delete(spacing, across)[::-1].tolist())
    width = len(str(volume.image.shape[1 + across] - 1))
    for index in range(volume.image.shape[1 + across]):
        mask = None if volume.mask is None else upright(volume.mask, axis, index)
        image, case = upright(volume.image, axis, index), f"{volume.case}-{axis}-{index:0{width}d}"
        yield replace(volume, case=case, image=image, mask=mask, spacing_mm=in_plane, slice=index)


def upright(array: NDArray[Any], axis: Axis, index: int) -> NDArray[Any]:
    """One slice of an array whose last three axes are RAS: rows from front or top, columns along the other axis."""
    place: list[Any] = [slice(None)] * 3
    place[_ACROSS[axis]] = index
    plane: NDArray[Any] = array[(..., *place)]
    return np.swapaxes(plane, -1, -2)[..., ::-1, :]


def _is_kept(raw: Raw, keep: str, background: tuple[float | None, ...]) -> bool:
    if keep == "all":
        return True
    if keep == "tumour":
        return raw.mask is not None and bool(raw.mask.any())
    return any(
        value is None or bool((channel != value).any()) for channel, value in zip(raw.image, background, strict=True)
    )
