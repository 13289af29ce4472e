"""Pseudo-patients of a public pool: a head or public patient by number, a class, and a style within public limits.

Knows no patients: everything is drawn from seeds and public ranges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Shown = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""An image (channels, rows, columns) and its mask (rows, columns)."""

NUMBERS = 2**31
KEPT_SHARE = 0.8
"""How often a child keeps the head and the lesion of its parent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PseudoPatient:
    """Whose anatomy (by number), which class (a place in the simulator's list) and a style vector."""

    number: int
    label: int
    style: Vector

    @classmethod
    def draw(cls, label: int, limits: Vector, rng: np.random.Generator) -> "PseudoPatient":
        """Anybody of that class, in a style from anywhere within the limits (2, parts)."""
        style: Vector = rng.uniform(limits[0], limits[1])
        return cls(number=int(rng.integers(NUMBERS)), label=label, style=style)

    def child(self, limits: Vector, rng: np.random.Generator, share: float) -> "PseudoPatient":
        """One of the same class and near the same style, mostly with the same head and lesion."""
        keeps, other = rng.random() < KEPT_SHARE, int(rng.integers(NUMBERS))
        style = near(self.style, limits, rng, share)
        return PseudoPatient(number=self.number if keeps else other, label=self.label, style=style)


def near(style: Vector, limits: Vector, rng: np.random.Generator, share: float) -> Vector:
    """A style that departs by a `share` of the ranges (standard deviation), within them."""
    low, high = limits
    moved: Vector = np.clip(style + rng.normal(size=style.shape) * (high - low) * share, low, high)
    return moved


def all_known(classes: Sequence[int | None]) -> bool:
    """Whether there are classes, and the simulator knows a pseudo-patient's label for each."""
    return bool(classes) and None not in classes
