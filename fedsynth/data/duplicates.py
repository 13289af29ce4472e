"""Images that stand in a set twice under different patients: a patient under two names, a copy across roles.

Within one patient alike images are expected and never reported. An image without a patient counts as its own patient.

- **Constant** images (every channel of one value) are counted and otherwise left out: they are all alike.
- **Exact**: the same bytes.
- **Near**: the set itself says what is ordinary. For each image the distances of coarse thumbnails (`likeness.py`) to
  the nearest image of each other patient are sorted; patients before a gap, where one distance is less than half the
  next (`GAP`), are candidates. A candidate is reported when the fine detail of the two images also correlates by more
  than 0.8 and by clearly more than in ordinary neighbours of this set: their 99 % quantile plus a third of what is
  missing to 1.

It finds copies that were re-encoded, shifted, made brighter or darker, or have moderate noise. It does not find turned
or mirrored copies, crops, other slices or other recordings of the same patient, images that stand in more than
`NEIGHBOURS` - 1 other patients, or anything in a set of fewer than three patients, where nothing says what is
ordinary. It is a check of data, not a proof: the leakage benchmark is the place for that.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.image_set import ImageSet
from fedsynth.data.lazy_arrays import Stack, blocks
from fedsynth.data.parallel import Progress, silent

# How alike two images are when shifts and brightness do not count: a coarse thumbnail for searching, a fine one to
# confirm.
#
# It compares voxels only and knows nothing of patients.


FREQUENCIES = {2: 5, 3: 3}
FINEST, COARSEST = 0.7, 2.0


def coarse_thumbnails(images: Stack) -> NDArray[np.float32]:
    """One row of unit length per image: the magnitudes of its lowest spatial frequencies, all channels together.

    Magnitudes do not change when the image is shifted, unit length takes the brightness out, and without the zero
    frequency an offset does not count either. An image of one colour gives a row of zeros.
    """
    size = tuple(images.shape[2:])
    highest = FREQUENCIES[len(size)]
    waves = [np.exp(-2j * np.pi * np.outer(np.arange(-highest, highest + 1), np.arange(n)) / n) for n in size]
    half = (2 * highest + 1) ** len(size) // 2  # the other half holds the same magnitudes; the middle is frequency zero
    thumbnails = np.empty((len(images), images.shape[1] * half), np.float32)
    for start, block in blocks(images, n_bytes=2**22 * images.dtype.itemsize):
        values = block.astype(np.float32)
        values -= values.mean(axis=tuple(range(2, values.ndim)), keepdims=True)
        spectrum = values.astype(np.complex64)
        for wave in waves:  # each pass turns the first spatial axis into frequencies and moves it to the end
            spectrum = np.tensordot(spectrum, wave.astype(np.complex64), axes=([2], [1]))
        kept = np.abs(spectrum.reshape(*values.shape[:2], -1)[:, :, :half]).reshape(len(block), -1)
        length = np.linalg.norm(kept, axis=1, keepdims=True)
        thumbnails[start : start + len(block)] = np.where(length > 1e-4, kept / np.maximum(length, 1e-4), 0)
    return thumbnails


def fine_likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Correlation of the fine detail of two images (channels, *size) at the shift where it is largest; 1 for copies.

    Detail is what lies between a blur of 0.7 and one of 2 voxels of an image 64 voxels wide: fine enough to be one
    patient's own, too coarse to be noise. 0 where an image has none.
    """
    band = _band(first.shape[1:])
    axes = tuple(range(1, first.ndim))
    one = np.fft.fftn(first.astype(np.float32), axes=axes) * band
    other = np.fft.fftn(second.astype(np.float32), axes=axes) * band
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    if length < 1e-6:
        return 0.0
    together = np.fft.ifftn((one * other.conj()).sum(axis=0)).real
    return float(together.max() * band.size / length)


def _band(size: tuple[int, ...]) -> NDArray[np.float32]:
    """What a difference of two Gaussian blurs does to each frequency."""
    voxels = max(1.0, min(size) / 64)
    axes = np.meshgrid(*[np.fft.fftfreq(n) for n in size], indexing="ij")
    squared = np.sum(np.square(axes), axis=0)
    fine, coarse = (np.exp(-2 * (np.pi * sigma * voxels) ** 2 * squared) for sigma in (FINEST, COARSEST))
    band: NDArray[np.float32] = (fine - coarse).astype(np.float32)
    return band


NEIGHBOURS = 8
GAP = 0.5
LEAST_DETAIL = 0.8
MOST_CANDIDATES = 20_000


@dataclass(frozen=True, kw_only=True)
class NearPair:
    """Two row numbers, their distance over that of the next patient beyond the gap, and how alike their detail is."""

    rows: tuple[int, int]
    ratio: float
    detail: float


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What was found. `exact` holds groups of row numbers of two or more patients, `near` pairs that are not exact.

    `detail_needed` is the likeness of detail from which this set's candidates were reported; it and `near` are none
    where near duplicates could not be looked for, and `why` says why. `unchecked` candidates were too many to confirm.
    """

    constant: list[int]
    exact: list[list[int]]
    near: list[NearPair] | None
    detail_needed: float | None
    why: str = ""
    unchecked: int = 0


def find_duplicates(image_set: ImageSet, *, progress: Progress = silent) -> Duplicates:
    """Compare every image with those of every other patient."""
    cases = image_set.cases
    owners = np.where(cases["patient"] == "", "\0" + cases["case"], cases["patient"])
    owner = np.unique(owners.astype(str), return_inverse=True)[1]
    prints, constant = _fingerprints(image_set)
    exact = _same(prints, owner, constant)
    telling = np.flatnonzero(~constant)
    if len(np.unique(owner[telling])) < 3:
        why = "fewer than three patients: nothing says how alike different patients are"
        return Duplicates(
            constant=np.flatnonzero(constant).tolist(), exact=exact, near=None, detail_needed=None, why=why
        )
    candidates, ordinary = _compare(image_set, telling, owner, progress)
    fresh = [pair for pair in candidates if prints[pair[0]] != prints[pair[1]]]
    needed = _detail_needed(image_set, ordinary)
    near = [pair for pair in _confirm(image_set, fresh, candidates) if pair.detail >= needed]
    return Duplicates(
        constant=np.flatnonzero(constant).tolist(),
        exact=exact,
        near=near,
        detail_needed=needed,
        unchecked=max(0, len(fresh) - MOST_CANDIDATES),
    )


def _fingerprints(image_set: ImageSet) -> tuple[list[bytes], NDArray[np.bool_]]:
    """A digest of the bytes of each image, and which images are constant."""
    prints: list[bytes] = []
    constant = np.zeros(len(image_set), bool)
    for start, block in blocks(image_set.images):
        prints += [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in block]
        flat = block.reshape(*block.shape[:2], -1)
        constant[start : start + len(block)] = (flat == flat[:, :, :1]).all(axis=(1, 2))
    return prints, constant


def _same(prints: list[bytes], owner: NDArray[np.int64], constant: NDArray[np.bool_]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for row, digest in enumerate(prints):
        if not constant[row]:
            groups.setdefault(digest, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1 and len(set(owner[rows])) > 1]


Candidates = dict[tuple[int, int], float]


def _compare(
    image_set: ImageSet, telling: NDArray[np.int64], owner: NDArray[np.int64], progress: Progress
) -> tuple[Candidates, list[tuple[int, int]]]:
    """Pairs before a gap with their ratios, and one ordinary neighbour of each image that has no gap."""
    order = telling[np.argsort(owner[telling], kind="stable")]
    thumbnails = coarse_thumbnails(image_set.rows(order).images)
    starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
    candidates: Candidates = {}
    ordinary: list[tuple[int, int]] = []
    for row, nearest, distances in _neighbours(thumbnails, starts, progress):
        gap = distances[:-1] / np.maximum(distances[1:], 1e-9)
        before = int(np.argmin(gap)) + 1
        if gap.min() >= GAP:
            ordinary.append((int(order[row]), int(order[nearest[0]])))
            continue
        for other, distance in zip(nearest[:before], distances[:before], strict=True):
            first, second = sorted((int(order[row]), int(order[other])))
            ratio = float(distance / max(distances[before], 1e-9))
            candidates[first, second] = min(ratio, candidates.get((first, second), 1.0))
    return candidates, ordinary


def _neighbours(
    thumbnails: NDArray[np.float32], starts: NDArray[np.int64], progress: Progress
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """For each row of `thumbnails`, the nearest row of each of the nearest other patients and their distances, sorted.

    A patient's rows lie together; `starts` says where each patient begins. One block of rows against all at a time.
    """
    n, n_patients = len(thumbnails), len(starts)
    ends = np.append(starts[1:], n)
    patient = np.searchsorted(starts, np.arange(n), side="right") - 1
    kept = min(NEIGHBOURS, n_patients - 1)
    step = max(16, 2**23 // n)
    for start in range(0, n, step):
        likeness = thumbnails[start : start + step] @ thumbnails.T
        best = likeness if n_patients == n else np.maximum.reduceat(likeness, starts, axis=1)
        own = patient[start : start + step]
        best[np.arange(len(own)), own] = -np.inf
        chosen = np.argpartition(-best, kept - 1, axis=1)[:, :kept]
        for i, patients in enumerate(chosen):
            ranked = patients[np.argsort(-best[i, patients], kind="stable")]
            distances = np.sqrt(np.maximum(0, 2 - 2 * best[i, ranked]))
            rows = [starts[p] + int(np.argmax(likeness[i, starts[p] : ends[p]])) for p in ranked]
            yield start + i, np.array(rows), distances
        progress(min(start + step, n), n)


def _detail_needed(image_set: ImageSet, ordinary: list[tuple[int, int]]) -> float:
    """How alike the detail must be, from an even sample of ordinary neighbours."""
    wanted = int(np.clip(2**22 // np.prod(image_set.images.shape[1:]), 16, 200))
    sample = ordinary[:: max(1, len(ordinary) // wanted)]
    found = [fine_likeness(image_set.images[first], image_set.images[second]) for first, second in sample]
    usual = float(np.quantile(found, 0.99)) if found else 0.0
    return max(LEAST_DETAIL, usual + (1 - usual) / 3)


def _confirm(image_set: ImageSet, pairs: list[tuple[int, int]], ratios: Candidates) -> Iterator[NearPair]:
    """The pairs with their likeness of detail, the smallest ratio first."""
    for first, second in sorted(pairs, key=lambda pair: ratios[pair])[:MOST_CANDIDATES]:
        detail = fine_likeness(image_set.images[first], image_set.images[second])
        yield NearPair(rows=(first, second), ratio=ratios[first, second], detail=detail)
