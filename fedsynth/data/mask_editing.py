"""Editing the tumours of label maps: growing, shrinking, shifting, and moving one into a healthy brain.

An edited tumour stays inside the brain and out of the ventricles, its core stays enclosed where it was, and where it
was before there is tissue afterwards. It edits maps one by one and knows nothing of images or generators.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from fedsynth.data.mask_anatomy import Anatomy, Labels, Region
from fedsynth.errors import ConfigError, ImageSetError, nearest

Kind = Literal["grow", "shrink", "shift"]
GRAMMAR = "write grow=1.5, shrink=0.7 or shift=10,0 (mm along each axis)"
ALIKE = 0.6
FITS = 0.98


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is done to every tumour: its area (in 3-D its volume) times `factor`, or a move by `shift_mm`."""

    kind: Kind
    factor: float = 1.0
    shift_mm: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """An edited label map, and the share of the wanted tumour that found room in the brain."""

    mask: Labels
    kept: float


def read_edit(text: str, dimensions: int) -> Edit:
    """The edit that `grow=FACTOR`, `shrink=FACTOR` or `shift=Y,X[,Z]` names."""
    kind, _, amount = text.partition("=")
    try:
        numbers = tuple(float(part) for part in amount.split(","))
    except ValueError as error:
        raise ConfigError("the edit cannot be read", value=text, remedy=GRAMMAR) from error
    if kind == "shift":
        if len(numbers) != dimensions or not np.isfinite(numbers).all():
            raise ConfigError(f"shift takes {dimensions} numbers, one per axis in mm", value=amount)
        return Edit(kind="shift", shift_mm=numbers)
    if kind not in get_args(Kind):
        raise ConfigError("unknown edit", value=kind, remedy=nearest(kind, get_args(Kind)))
    low, high = (1.0, 10.0) if kind == "grow" else (0.05, 1.0)
    if len(numbers) != 1 or not low < numbers[0] < high:
        raise ConfigError(f"{kind} takes one factor between {low:g} and {high:g}", value=amount)
    return Edit(kind="grow" if kind == "grow" else "shrink", factor=numbers[0])


def edit(
    mask: Labels, wanted: Edit, anatomy: Anatomy, spacing_mm: tuple[float, ...], brain: Region | None = None
) -> Edited:
    """One label map with its tumour edited; a map without tumour stays as it is.

    `brain` is needed where the labels name no tissues.
    """
    tumour = anatomy.tumour_in(mask)
    if not tumour.any():
        return Edited(mask=mask.copy(), kept=1.0)
    room = _room(mask, anatomy, spacing_mm, brain)
    if wanted.kind == "shift":
        moved = _shifted(np.where(tumour, mask, 0), wanted.shift_mm, spacing_mm)
        return _painted(mask, moved, mask, int(tumour.sum()), anatomy, room)
    target = max(1, round(wanted.factor * int(tumour.sum())))
    return _painted(mask, _resized(mask, tumour, target, room, anatomy), mask, target, anatomy, room)


def transplant(
    donor: Labels,
    recipient: Labels,
    anatomy: Anatomy,
    spacing_mm: tuple[float, ...],
    brains: tuple[Region, Region] | None = None,
) -> Edited:
    """The healthy `recipient` with the donor's tumour, as near to where the donor had it as it fits.

    Places are compared relative to the extent of the two brains, which `brains` gives where labels name no tissues.
    """
    tumour = anatomy.tumour_in(donor)
    if not tumour.any():
        raise ImageSetError("the donor has no tumour to transplant", remedy="choose donors that have one")
    if anatomy.tumour_in(recipient).any():
        raise ImageSetError("the recipient has a tumour already", remedy="choose healthy recipients")
    before, after = brains or (anatomy.brain_in(donor), anatomy.brain_in(recipient))
    box = ndimage.find_objects(tumour.astype(np.uint8))[0]
    patch = np.where(tumour[box], donor[box], 0).astype(np.uint8)
    room = _room(recipient, anatomy, spacing_mm, after)
    centre = (np.array([(part.start + part.stop - 1) / 2 for part in box]) - _corner(before)) / _extent(before)
    corner = centre * _extent(after) + _corner(after) - (np.array(patch.shape) - 1) / 2
    place = _nearest_fit(room, patch > 0, corner, np.array(spacing_mm))
    planted = np.zeros_like(recipient)
    planted[tuple(slice(p, p + side) for p, side in zip(place, patch.shape, strict=True))] = patch
    return _painted(recipient, planted, donor, int(tumour.sum()), anatomy, room)


def without_tumour(mask: Labels, anatomy: Anatomy) -> Labels:
    """The map with tissue where the tumour was: that of the other side of the brain, or else the nearest.

    Where labels name no tissues, the tumour becomes background.
    """
    tumour = anatomy.tumour_in(mask)
    healthy = np.where(tumour, 0, mask).astype(np.uint8)
    if not anatomy.tissue or not tumour.any() or not (healthy > 0).any():
        return healthy
    mirrored = _mirrored(healthy)
    if mirrored is not None:
        healthy = np.where(tumour, mirrored, healthy).astype(np.uint8)
    near = ndimage.distance_transform_edt(healthy == 0, return_distances=False, return_indices=True)
    return np.asarray(np.where(tumour & (healthy == 0), healthy[tuple(near)], healthy), np.uint8)


def _room(mask: Labels, anatomy: Anatomy, spacing_mm: tuple[float, ...], brain: Region | None) -> Region:
    """Where a tumour may be: in the brain, not in its ventricles; where one is, one may stay."""
    inside = anatomy.brain_in(mask) if brain is None else brain
    if inside.shape != mask.shape:
        raise ImageSetError("the brain and the label map differ in size", value=(inside.shape, mask.shape))
    return np.asarray((inside & ~anatomy.ventricles_in(mask, inside, spacing_mm)) | anatomy.tumour_in(mask))


def _painted(mask: Labels, tumour: Labels, origin: Labels, wanted: int, anatomy: Anatomy, room: Region) -> Edited:
    """The new tumour over the healthy map, cut to the room there is, its core enclosed again where it was cut open.

    `origin` is the map that the tumour comes from.
    """
    tumour = np.where(room, tumour, 0).astype(np.uint8)
    painted = np.where(tumour > 0, _enclosed(tumour, origin, anatomy), without_tumour(mask, anatomy)).astype(np.uint8)
    return Edited(mask=painted, kept=min(1.0, float((tumour > 0).sum()) / wanted))


def _enclosed(tumour: Labels, origin: Labels, anatomy: Anatomy) -> Labels:
    """Core voxels at the tumour's border become what surrounds it, if nothing but that touched the core before."""
    if not anatomy.surrounding or _core_is_open(origin, anatomy):
        return tumour
    open_core = anatomy.core_in(tumour) & ndimage.binary_dilation(tumour == 0)
    return np.where(open_core, anatomy.surrounding[0], tumour).astype(np.uint8)


def _core_is_open(mask: Labels, anatomy: Anatomy) -> bool:
    """Whether some of the core touches healthy tissue or the outside."""
    core = anatomy.core_in(mask)
    return bool((core & ndimage.binary_dilation(~anatomy.tumour_in(mask))).any())


def _shifted(tumour: Labels, shift_mm: tuple[float, ...], spacing_mm: tuple[float, ...]) -> Labels:
    """The map moved by whole voxels; what leaves the picture is lost."""
    steps = [round(mm / spacing) for mm, spacing in zip(shift_mm, spacing_mm, strict=True)]
    return np.asarray(ndimage.shift(tumour, steps, order=0, cval=0), np.uint8)


def _resized(mask: Labels, tumour: Region, target: int, room: Region, anatomy: Anatomy) -> Labels:
    """The tumour's labels scaled about its centre until `target` voxels of it lie in the room, or nearly."""
    centre = np.array(ndimage.center_of_mass(tumour))
    shape = tumour.astype(np.float32)
    low, high = (0.02, 1.0) if target < tumour.sum() else (1.0, 4.0)
    for _ in range(14):
        scale = (low + high) / 2
        if int(((_scaled(shape, centre, scale) > 0.5) & room).sum()) < target:
            low = scale
        else:
            high = scale
    shares = [_scaled((mask == number).astype(np.float32), centre, high) for number in anatomy.tumour]
    whole = _scaled(shape, centre, high) > 0.5
    return np.where(whole, np.array(anatomy.tumour)[np.argmax(shares, axis=0)], 0).astype(np.uint8)


def _scaled(values: NDArray[np.float32], centre: NDArray[np.float64], scale: float) -> NDArray[np.float32]:
    matrix = np.full(values.ndim, 1 / scale)
    return np.asarray(ndimage.affine_transform(values, matrix, offset=centre - centre / scale, order=1), np.float32)


def _mirrored(healthy: Labels) -> Labels | None:
    """The map mirrored about the middle of the brain along the axis on which it is most alike; None if on none."""
    best, best_share = None, ALIKE
    inside = np.argwhere(healthy > 0)
    for axis in range(healthy.ndim):
        twice = int(inside[:, axis].min() + inside[:, axis].max())
        place = twice - np.arange(healthy.shape[axis])
        valid = (place >= 0) & (place < healthy.shape[axis])
        flipped = np.take(healthy, np.clip(place, 0, healthy.shape[axis] - 1), axis=axis)
        flipped = np.where(valid.reshape([-1 if a == axis else 1 for a in range(healthy.ndim)]), flipped, 0)
        both = (healthy > 0) & (flipped > 0)
        share = float((healthy == flipped)[both].mean()) if both.any() else 0.0
        if share > best_share:
            best, best_share = flipped.astype(np.uint8), share
    return best


def _corner(brain: Region) -> NDArray[np.int64]:
    return np.asarray(np.argwhere(brain).min(axis=0))


def _extent(brain: Region) -> NDArray[np.int64]:
    found = np.argwhere(brain)
    return np.asarray(found.max(axis=0) - found.min(axis=0) + 1)


def _nearest_fit(
    room: Region, shape: Region, corner: NDArray[np.float64], spacing_mm: NDArray[np.float64]
) -> tuple[int, ...]:
    """The corner nearest to `corner` at which the shape lies in the room, or as much of it as can."""
    reversed_shape = shape[(slice(None, None, -1),) * shape.ndim].astype(np.float32)
    fit = signal.fftconvolve(room.astype(np.float32), reversed_shape, mode="valid") / shape.sum()
    places = np.argwhere(fit >= min(FITS, float(fit.max())) - 1e-4)
    apart = (((places - corner) * spacing_mm) ** 2).sum(axis=1)
    return tuple(int(p) for p in places[np.argmin(apart)])
