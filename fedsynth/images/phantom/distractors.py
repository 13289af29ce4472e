"""Spots in a brain that are no tumour and carry no label: each breaks the agreement of contrasts that a glioma shows.

A glioma is dark in T1 and bright in T2 and FLAIR at once. Distractors are bright in one of them and dark in another,
bright everywhere (old blood, fat), dark everywhere (calcium), or take up contrast agent without anything around them.
Scattered bright spots of ageing white matter do agree, and differ in size, number and place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.images.phantom.anatomy import Tissue
from fedsynth.images.phantom.fields import Lattice, Plane, Viewport, draw_lattice
from fedsynth.images.phantom.templates import Atlas

MOST = 12

_SHIFTS = {
    "flair only": (0.02, -0.14, 0.40, 0.02),
    "blood or fat": (0.32, 0.26, 0.40, 0.26),
    "cyst": (-0.40, 0.42, -0.32, -0.40),
    "calcium": (-0.28, -0.30, -0.26, -0.24),
    "t2 only": (0.03, 0.32, -0.08, 0.03),
    "enhancing": (0.03, 0.04, 0.05, 0.30),
}
"""What each kind adds to the grey values of the tissue below it, in the order of the channels."""
KINDS = tuple(_SHIFTS)
_SHARES, _SIZES = (0.13, 0.36, 0.13, 0.12, 0.13, 0.13), (1.0, 1.4, 1.0, 1.0, 1.0, 1.0)
"""How often each kind is and how large: most often and largest the one that T2 and FLAIR alone take for a tumour."""
_OLD_WHITE = np.array((-0.10, 0.22, 0.30, -0.10), np.float32)[:, None, None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Distractors:
    """All spots of one patient, each with a centre (atlas mm), a radius, a kind and a strength; in falling importance.

    A style's mean number decides how many of them a patient has: those whose `chance` is below it. `shape` makes their
    borders uneven; `spots` is where white matter has aged, by `age` (0: nowhere).
    """

    centres_mm: NDArray[np.float32]
    radii_mm: NDArray[np.float32]
    kinds: NDArray[np.int64]
    strengths: NDArray[np.float32]
    chances: NDArray[np.float64]
    shape: Lattice
    spots: Lattice
    age: float


def draw_distractors(rng: np.random.Generator, atlas: Atlas, height_mm: float, span_mm: float) -> Distractors:
    """As many spots as any style shows, all within `span_mm` of the height that pictures are cut around."""
    kinds = rng.choice(len(KINDS), MOST, p=_SHARES)
    near = atlas.deep_white[np.abs(atlas.deep_white[:, 2] - height_mm) < max(span_mm, 10)]
    centres = near[rng.integers(len(near), size=MOST)] * np.float32(1) + rng.normal(0, 7, (MOST, 3)).astype(np.float32)
    return Distractors(
        centres_mm=centres.astype(np.float32),
        radii_mm=(rng.uniform(4.5, 13.0, MOST) * np.array(_SIZES)[kinds]).astype(np.float32),
        kinds=kinds,
        strengths=rng.uniform(0.55, 1.1, MOST).astype(np.float32),
        chances=np.cumsum(rng.exponential(1.0, MOST)),
        shape=draw_lattice(rng, 9.0),
        spots=draw_lattice(rng, 6.5),
        age=float(np.clip(rng.normal(0.3, 0.45), 0.0, 1.0)),
    )


def show_distractors(
    shown: Plane, found: Distractors, mean_number: float, tissue: Tissue, tumour: Plane, view: Viewport, plane: int
) -> Plane:
    """The picture with its spots; where the `tumour` is, there is no room for another lesion."""
    free = tissue.brain * (1 - tumour)
    spots = np.clip(1.5 * (found.spots.plane(view, plane)[0] - 1.5), 0, 1) * np.clip(2 * tissue.white - 0.6, 0, 1)
    shown = shown + _OLD_WHITE * (found.age * spots * free)
    wave = 0.25 * found.shape.plane(view, plane)[0]
    for i in np.flatnonzero(found.chances < mean_number):
        away = tissue.points - found.centres_mm[i][:, None, None]
        level = np.sqrt(np.sum(away**2, axis=0)) / found.radii_mm[i] + wave
        share = free / (1 + np.exp(np.clip((level - 1) * found.radii_mm[i] / 1.2, -30, 30)))
        shift = np.array(_SHIFTS[KINDS[found.kinds[i]]], np.float32)[:, None, None]
        shown = shown + found.strengths[i] * shift * share
    made: Plane = np.maximum(shown, np.float32(0.02) * tissue.brain)
    return made
