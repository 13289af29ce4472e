"""How lesions and heads look at one place, as plain numbers: what a style has besides its scanner. Draws nothing."""

from dataclasses import dataclass, fields
from typing import Any

from fedsynth.errors import ConfigError


def check_ranges(value: Any, what: str, ranges: dict[str, tuple[float, float]]) -> None:
    """Every field of the dataclass `value` must lie within its range."""
    for entry in fields(value):
        low, high = ranges[entry.name]
        found = getattr(value, entry.name)
        if not low <= found <= high:
            raise ConfigError(f"{what}: {entry.name.replace('_', '-')!r} must be {low:g} to {high:g}", value=found)


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """How lesions look among a hospital's patients.

    `t1`, `t2`, `flair` say how far a lesion differs from the tissue it grows in, per contrast; `rim` how strongly it
    takes up contrast agent; `texture` how uneven it is (standard deviation, as a share); `edge` how gradually it ends
    and `size` how large it is, as factors. `distractors` is the mean number of spots a patient has that are no tumour
    and carry no label.
    """

    t1: float = 1.25
    t2: float = 0.75
    flair: float = 0.45
    rim: float = 1.0
    texture: float = 0.3
    edge: float = 1.0
    size: float = 1.0
    distractors: float = 5.5

    def __post_init__(self) -> None:
        factor = (0.2, 3.0)
        ranges = {"texture": (0.0, 1.0), "distractors": (0.0, 12.0), "edge": factor, "size": (0.4, 1.6)}
        check_ranges(
            self, "the look of lesions", {"t1": factor, "t2": factor, "flair": factor, "rim": factor, **ranges}
        )


@dataclass(frozen=True, kw_only=True)
class Head:
    """What surrounds the brain in a picture that is not skull-stripped, and how the head lies in it.

    `zoom` and `aspect` (width to length) size the head in the picture, `right_mm` and `front_mm` shift it,
    `nod_degrees` tilts the planes. `gap_mm` is the fluid between brain and skull, `skull_mm` the bone, `scalp_mm` the
    skin and fat. `fat` and `marrow` say how bright these are, `air` how much of the face is air.
    """

    zoom: float = 1.0
    aspect: float = 1.0
    right_mm: float = 0.0
    front_mm: float = 0.0
    nod_degrees: float = 0.0
    gap_mm: float = 2.5
    skull_mm: float = 6.0
    scalp_mm: float = 6.0
    fat: float = 1.0
    marrow: float = 0.6
    air: float = 0.4

    def __post_init__(self) -> None:
        shift, layer, share = (-60.0, 60.0), (0.0, 30.0), (0.0, 3.0)
        ranges = {"zoom": (0.4, 2.0), "aspect": (0.6, 1.7), "right_mm": shift, "front_mm": shift}
        ranges |= {"nod_degrees": (-45.0, 45.0), "gap_mm": layer, "skull_mm": layer, "scalp_mm": layer}
        check_ranges(self, "the head", {**ranges, "fat": share, "marrow": share, "air": share})
