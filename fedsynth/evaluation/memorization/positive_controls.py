"""Known positives: copies of members' images, changed in ways that a look alone would miss, inserted in every run.

What share of them the search for copies finds is its power, and a report without it would have to say that its
sensitivity is unknown. It makes images and counts what is found; how images are compared it does not know.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.data import ImageSet
from fedsynth.evaluation.bootstrap import clopper_pearson

SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
"""The ladder of shares of positive controls."""
POWER = 0.8
PLANTED = 60
"""Positive controls of each kind, each of another patient where there are as many."""

Voxels = NDArray[np.float32]
Mask = NDArray[np.uint8]
Pair = tuple[Voxels, Mask | None]
Change = Callable[[Voxels, Mask | None, np.random.Generator], Pair]
"""One image (channels, *size) in [0, 1] and its mask (*size), changed alike."""


def exact(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """The image as it is."""
    return image, mask


def noised(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """White noise of 5 % of the range."""
    return image + rng.normal(0, 0.05, image.shape).astype(np.float32), mask


def blurred(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """A blur of one voxel in 64."""
    sigma = min(image.shape[1:]) / 64
    return ndimage.gaussian_filter(image, (0, *[sigma] * (image.ndim - 1))), mask


def flipped(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Left and right exchanged."""
    axis = -1 if image.ndim == 3 else 0
    spatial = axis if axis < 0 else axis + 1
    return np.flip(image, spatial).copy(), None if mask is None else np.flip(mask, axis).copy()


def rotated(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Turned by 5 to 10 degrees to either side."""
    angle = np.deg2rad(rng.uniform(5, 10) * rng.choice([-1, 1]))
    turn = np.eye(image.ndim - 1)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return _resampled(image, mask, lambda where: np.tensordot(turn, where, 1))


def cropped(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """The middle nine tenths of each axis, a little off the centre, at full size."""
    shift = rng.uniform(-0.04, 0.04, image.ndim - 1) * image.shape[1:]
    return _resampled(image, mask, lambda where: 0.9 * where + shift.reshape(-1, *[1] * (image.ndim - 1)))


def windowed(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Another window and gamma."""
    low, high, gamma = rng.uniform(0, 0.05), rng.uniform(0.8, 0.95), rng.uniform(0.75, 1.35)
    return np.clip((image - low) / (high - low), 0, 1) ** np.float32(gamma), mask


def elastic(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Bent by up to about two voxels in 64."""
    size = image.shape[1:]
    smooth = min(size) / 8
    fields = np.stack([ndimage.gaussian_filter(rng.normal(size=size), smooth, mode="wrap") for _ in size])
    fields *= min(size) / 64 * 1.5 / fields.std()
    return _resampled(image, mask, lambda where: where + fields)


def salted(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """One voxel in twenty black or white, in every channel alike."""
    lot = rng.random(image.shape[1:])
    return np.where(lot < 0.025, 0, np.where(lot > 0.975, 1, image)), mask


def shaded(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Under a smooth field that makes it brighter or darker by up to half."""
    size = image.shape[1:]
    field = ndimage.gaussian_filter(rng.normal(size=size), min(size) / 4, mode="reflect")
    return image * np.exp(0.4 * field / np.abs(field).max()), mask


def levelled(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Five grey levels in every channel."""
    top = image.max(axis=tuple(range(1, image.ndim)), keepdims=True) + 1e-6
    return np.floor(np.minimum(image / top, 0.9999) * 5) / 4, mask


def shrunk(image: Voxels, mask: Mask | None, rng: np.random.Generator) -> Pair:
    """Seven tenths of its size, the border repeated around it."""
    return _resampled(image, mask, lambda where: where / 0.7)


CHANGES: Mapping[str, Change] = {
    "exact": exact,
    "noised": noised,
    "blurred": blurred,
    "flipped": flipped,
    "rotated": rotated,
    "cropped": cropped,
    "windowed": windowed,
    "elastic": elastic,
    "salted": salted,
    "shaded": shaded,
    "levelled": levelled,
    "shrunk": shrunk,
}
NEIGHBOUR, SAME_PATIENT = "neighbouring slice", "same patient"
KINDS = (*CHANGES, NEIGHBOUR, SAME_PATIENT)
SHORT = ("exact", "noised", "blurred", "flipped")
"""The kinds of every run, which count as copies in the verdict; the others are told beside it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PositiveControl:
    """Images to be passed off as synthetic, the real rows they came from, and the rows that must be out of sight.

    Of the last two kinds the image is a real one itself, which the search must not find.
    """

    images: ImageSet
    sources: NDArray[np.int64]
    hidden: NDArray[np.int64]


def make_positive_control(
    real: ImageSet, patient_of: NDArray[np.integer], kind: str, *, seed: int, count: int = PLANTED
) -> PositiveControl | None:
    """Up to `count` positive controls of a kind from images of different patients; None where the set allows none."""
    rng = np.random.default_rng([seed, *kind.encode()])
    rows = _sources(real, patient_of, kind, rng)[:count]
    if not len(rows):
        return None
    chosen = real.rows(rows)
    if kind not in CHANGES:
        return PositiveControl(images=chosen, sources=rows, hidden=rows)
    pairs = [_changed(chosen, i, CHANGES[kind], rng) for i in range(len(rows))]
    masks = None if chosen.masks is None else np.stack([mask for _, mask in pairs if mask is not None])
    images = ImageSet(header=chosen.header, cases=chosen.cases, images=np.stack([v for v, _ in pairs]), masks=masks)
    return PositiveControl(images=images, sources=rows, hidden=rows[:0])


def change_all(real: ImageSet, change: Change, *, seed: int) -> ImageSet:
    """Every image of a set changed in one way: for controls, from patients who cannot have been copied."""
    rng = np.random.default_rng([seed, *b"control"])
    pairs = [_changed(real, row, change, rng) for row in range(len(real))]
    masks = None if real.masks is None else np.stack([mask for _, mask in pairs if mask is not None])
    return ImageSet(header=real.header, cases=real.cases, images=np.stack([v for v, _ in pairs]), masks=masks)


@dataclass(frozen=True, kw_only=True)
class Power:
    """How many of the positive controls of a kind were found as copies of the right patient: together and by each
    space.
    """

    found: int
    inserted: int
    by_space: Mapping[str, int]

    @property
    def share(self) -> float:
        """The detection power for one copy."""
        return self.found / self.inserted

    @property
    def low(self) -> float:
        """Its lower 95 % bound."""
        return clopper_pearson(self.found, self.inserted)[0]

    def reached(self, share: float, n_synthetic: int) -> float:
        """The chance that at least one of the copies is found when they are a `share` of the output."""
        return 1 - (1 - self.share) ** max(1, round(share * n_synthetic))

    def smallest_share(self, n_synthetic: int) -> float | None:
        """The smallest share of the output of which a copy is found in 80 % of all sets; None if there is none."""
        return smallest_share(self.share, n_synthetic)


def smallest_share(power: float, n_synthetic: int) -> float | None:
    """With the chance `power` of finding one copy: so many copies that one is found in 80 % of all sets."""
    if power <= 0:
        return None
    copies = 1 if power >= POWER else int(np.ceil(np.log1p(-POWER) / np.log1p(-power)))
    return copies / n_synthetic if copies <= n_synthetic else None


def ladder(power: Power, n_synthetic: int, shares: Sequence[float] = SHARES) -> dict[str, float]:
    """The power at each share of positive controls."""
    return {f"{share:g}": power.reached(share, n_synthetic) for share in shares}


def _sources(real: ImageSet, patient_of: NDArray[np.integer], kind: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of members that show something, one of each patient first; for the last two kinds a patient keeps others."""
    member = (real.cases["role"] == "member").to_numpy()
    counts = np.bincount(patient_of)
    usable = member if kind in CHANGES else member & (counts[patient_of] > 1)
    if kind == NEIGHBOUR:
        usable = usable & _has_neighbour(real, patient_of)
    rows = rng.permutation(np.flatnonzero(usable))
    turn = np.zeros(len(rows), np.int64)
    seen: dict[int, int] = {}
    for place, row in enumerate(rows):
        turn[place] = seen[patient_of[row]] = seen.get(patient_of[row], -1) + 1
    if kind not in CHANGES:
        rows = rows[turn == 0]  # one of each, or nothing of the patient would be left to find
        turn = turn[turn == 0]
    found: NDArray[np.int64] = rows[np.argsort(turn, kind="stable")]
    return found


def _has_neighbour(real: ImageSet, patient_of: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether the slice before or behind is another image of the same patient."""
    numbers = [int(text) if text else None for text in real.cases["slice"]]
    known = {(int(p), number) for p, number in zip(patient_of, numbers, strict=True) if number is not None}
    beside = [
        number is not None and ((int(p), number - 1) in known or (int(p), number + 1) in known)
        for p, number in zip(patient_of, numbers, strict=True)
    ]
    return np.array(beside)


def _changed(images: ImageSet, row: int, change: Change, rng: np.random.Generator) -> Pair:
    pixels = np.asarray(images.images[row])
    values = np.asarray(pixels / 255 if pixels.dtype == np.uint8 else pixels, np.float32)
    mask = None if images.masks is None else np.asarray(images.masks[row])
    made, changed_mask = change(values, mask, rng)
    return np.clip(np.asarray(made, np.float32), 0, 1), changed_mask


def _resampled(
    image: Voxels, mask: Mask | None, source_of: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Pair:
    """Every voxel from where `source_of` says, places counted from the centre."""
    size = image.shape[1:]
    centre = (np.array(size) - 1).reshape(-1, *[1] * len(size)) / 2
    where = source_of(np.indices(size) - centre) + centre
    moved = np.stack([ndimage.map_coordinates(channel, where, order=1, mode="nearest") for channel in image])
    if mask is None:
        return moved.astype(np.float32), None
    return moved.astype(np.float32), ndimage.map_coordinates(mask, where, order=0, mode="nearest")
