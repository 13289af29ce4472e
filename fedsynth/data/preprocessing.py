"""What an import does to one source: decode, check, relabel, scale, cut, resample. It sees one patient at a time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.importers.source import Raw, Source
from fedsynth.data.intensity_scaling import Scale, Scaling, scale_of
from fedsynth.data.resampling import fit, resample_image, resample_mask
from fedsynth.errors import ConfigError, SourceError, nearest

# Cutting volumes into upright slices, and choosing which slices of a source are kept.
#
# Which way up a slice is stands in `fedsynth.data.importers.source`. It knows nothing of files or intensities.


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


Missing = Literal["keep", "leave-out"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Item:
    """One image as it stands in the set, with its row of `cases.csv` and what the header must tell about it."""

    row: dict[str, str]
    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    spacing_mm: float | None
    missing: tuple[str, ...]
    cut_off: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """All images of one source, and why some are left out."""

    source: Source
    items: list[Item] = field(default_factory=list)
    left_out: list[SourceError] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparation:
    """How every source is made into items. Called from several threads; it holds no state.

    `relabel` maps the plan's label numbers to the set's, and is None for sets without masks.
    """

    n_channels: int
    n_labels: int
    relabel: NDArray[np.uint8] | None
    dimensions: int
    size: int
    spacing_mm: float | None
    scaling: Scaling
    slicing: Slicing
    missing: Missing
    skip_corrupt: bool

    def __call__(self, source: Source) -> Prepared:
        """The images of `source`; the first damaged one is raised, or noted where damage is to be skipped."""
        prepared = Prepared(source=source, left_out=list(source.problems))
        if source.problems and not self.skip_corrupt:
            raise source.problems[0]
        raws = [self._relabelled(raw) for raw in self._decode(source, prepared)]
        if raws and raws[0].missing and self.missing == "leave-out":
            lacks = ", ".join(raws[0].missing)
            prepared.left_out.append(SourceError(f"the patient lacks {lacks}", file=source.file))
        elif raws:
            scale = scale_of(self.scaling, [raw.image for raw in raws])
            for raw in self.slicing.choose(raws, scale.background) if self.dimensions == 2 else raws:
                prepared.items.append(self._item(source, raw, scale))
        return prepared

    def _decode(self, source: Source, prepared: Prepared) -> Iterable[Raw]:
        try:
            for raw in source.decode():
                error = raw if isinstance(raw, SourceError) else self._problem(source, raw)
                if error is None:
                    assert isinstance(raw, Raw)
                    yield raw
                elif self.skip_corrupt:
                    prepared.left_out.append(error)
                else:
                    raise error
        except SourceError as error:
            if not self.skip_corrupt:
                raise
            prepared.left_out.append(error)

    def _problem(self, source: Source, raw: Raw) -> SourceError | None:
        """What breaks the promises of a reader: the last net before voxels reach the set."""
        where = f"in case {raw.case!r}"
        if len(raw.image) != self.n_channels:
            return SourceError(
                f"{self.n_channels} channels are expected {where}", file=source.file, value=len(raw.image)
            )
        if raw.image.ndim - 1 not in (self.dimensions, 3):
            remedy = "give --dimensions 2"
            return SourceError(f"a picture cannot become a volume, {where}", file=source.file, remedy=remedy)
        if raw.image.dtype.kind == "f" and not np.isfinite(raw.image).all():
            return SourceError(f"a voxel is not a finite number {where}", file=source.file)
        if 0 in raw.image.shape:
            return SourceError(f"there are no voxels {where}", file=source.file, value=raw.image.shape)
        if self.relabel is None:
            return None
        if raw.mask is None:
            return SourceError(f"the mask is missing {where}", file=source.file)
        if raw.mask.shape != raw.image.shape[1:]:
            problem = f"the mask must be {raw.image.shape[1:]} like the image, {where}"
            return SourceError(problem, file=source.file, value=raw.mask.shape)
        if raw.mask.max() >= self.n_labels:
            return SourceError(
                f"the mask has a label without a name {where}", file=source.file, value=int(raw.mask.max())
            )
        return None

    def _relabelled(self, raw: Raw) -> Raw:
        mask = None if self.relabel is None or raw.mask is None else self.relabel[raw.mask]
        return replace(raw, mask=mask)

    def _item(self, source: Source, raw: Raw, scale: Scale) -> Item:
        grid = fit(raw.image.shape[1:], raw.spacing_mm, self.size, self.spacing_mm)
        channels = [
            np.rint(255 * resample_image(one.apply(channel[None]), grid, one.fill)).astype(np.uint8)
            for channel, one in zip(raw.image, scale.channels, strict=True)
        ]
        return Item(
            row={
                "case": raw.case,
                "patient": source.patient,
                "site": source.site,
                "role": source.role,
                "class": source.label,
                "slice": "" if raw.slice is None else str(raw.slice),
            },
            image=np.concatenate(channels),
            mask=None if raw.mask is None else resample_mask(raw.mask, grid),
            spacing_mm=None if raw.spacing_mm is None else grid.spacing_mm,
            missing=raw.missing,
            cut_off=raw.mask is not None and grid.cuts(raw.mask),
        )
