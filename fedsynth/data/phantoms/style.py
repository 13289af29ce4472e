"""A style: all of a picture that is neither anatomy nor tumour, as plain numbers that can be sampled and fitted.

Two kinds of families. A hospital's style is its own (`scanner.default_hospitals`). The public family is wide and knows
nothing of the hospitals: every default hospital lies outside it in the tone curve (`shoulder`), in how faint a lesion
is in FLAIR and in how uneven lesions are; a test holds them apart.
"""

from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.phantoms.appearance import Head, Lesions
from fedsynth.data.phantoms.scanner import Scanner

Ranges = dict[str, tuple[float, float]]

PUBLIC: dict[str, Ranges] = {
    "scanner": {
        "t1_gain": (0.6, 1.2),
        "t2_gain": (0.6, 1.2),
        "flair_gain": (0.5, 1.2),
        "t1ce_gain": (0.6, 1.2),
        "t1_contrast": (0.6, 1.4),
        "t2_contrast": (0.6, 1.4),
        "flair_contrast": (0.6, 1.6),
        "t1ce_contrast": (0.6, 1.4),
        "gamma": (0.7, 1.6),
        "shoulder": (0.0, 0.4),
        "bias": (0.0, 0.35),
        "noise": (0.005, 0.06),
        "blur_mm": (1.0, 5.0),
    },
    "lesions": {
        "t1": (0.5, 1.5),
        "t2": (0.5, 1.5),
        "flair": (0.8, 1.6),
        "rim": (0.6, 1.4),
        "texture": (0.0, 0.2),
        "edge": (0.6, 1.6),
        "size": (0.7, 1.2),
        "distractors": (1.0, 5.0),
    },
    "head": {
        "zoom": (0.68, 1.15),
        "aspect": (0.9, 1.1),
        "right_mm": (-12.0, 12.0),
        "front_mm": (-14.0, 14.0),
        "nod_degrees": (-18.0, 12.0),
        "gap_mm": (1.0, 5.0),
        "skull_mm": (3.0, 9.0),
        "scalp_mm": (3.0, 11.0),
        "fat": (0.5, 1.8),
        "marrow": (0.1, 0.9),
        "air": (0.1, 0.8),
    },
}
"""The wide public family: every parameter is drawn evenly from its range."""

HOSPITAL_HEADS: Ranges = {
    "zoom": (0.82, 0.95),
    "aspect": (0.97, 1.03),
    "nod_degrees": (-6.0, 6.0),
    "gap_mm": (1.5, 3.5),
    "skull_mm": (5.0, 8.0),
    "scalp_mm": (4.0, 8.0),
    "fat": (0.85, 1.1),
    "marrow": (0.4, 0.7),
    "air": (0.3, 0.5),
}
"""What the patients of a hospital differ in outside the brain, where pictures are not skull-stripped."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """One style. Without a `head` pictures are skull-stripped: exactly 0 outside the brain."""

    scanner: Scanner = field(default_factory=Scanner)
    lesions: Lesions = field(default_factory=Lesions)
    head: Head | None = None

    def vector(self) -> NDArray[np.float64]:
        """All parameters in the order of `names`."""
        table = {part: values or {} for part, values in asdict(self).items()}
        return np.array([table[part][name] for part, name in names(head=self.head is not None)])


def names(*, head: bool) -> list[tuple[str, str]]:
    """Part and name of every parameter of a style, in the order of its vector."""
    return [(part, name) for part, ranges in PUBLIC.items() if head or part != "head" for name in ranges]


def limits(*, head: bool) -> NDArray[np.float64]:
    """Lowest and highest value of every parameter in the public family: (2, parameters)."""
    return np.array([PUBLIC[part][name] for part, name in names(head=head)]).T


def from_vector(values: NDArray[np.float64], *, head: bool) -> Style:
    """The style of a vector: `from_vector(style.vector(), head=...)` is `style`."""
    parts: dict[str, dict[str, float]] = {part: {} for part in PUBLIC}
    for (part, name), value in zip(names(head=head), values, strict=True):
        parts[part][name] = float(value)
    scanner, lesions = Scanner(**parts["scanner"]), Lesions(**parts["lesions"])
    return Style(scanner=scanner, lesions=lesions, head=Head(**parts["head"]) if head else None)


def draw_style(rng: np.random.Generator, *, head: bool) -> Style:
    """One style of the public family."""
    low, high = limits(head=head)
    return from_vector(rng.uniform(low, high), head=head)


def draw_head(rng: np.random.Generator) -> Head:
    """The head of one patient of a hospital."""
    return Head(**{name: float(rng.uniform(low, high)) for name, (low, high) in HOSPITAL_HEADS.items()})
