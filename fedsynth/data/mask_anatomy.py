"""What the labels of a mask mean for editing: which are tumour, which are tissue or fluid, and where the brain is.

It goes by the names of labels and by nothing else; names that it does not know are taken for tumour.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedsynth.errors import ConfigError

Labels = NDArray[np.uint8]
Region = NDArray[np.bool_]

FLUID = ("csf", "fluid", "ventricle", "ventricles")
SOLID = ("grey", "gray", "white", "grey-matter", "gray-matter", "white-matter", "gm", "wm", "deep-grey", "brain")
OTHER_TISSUE = ("tissue", "cerebellum", "brainstem")
ORGANS = ("liver", "lung", "lungs", "left-lung", "right-lung", "kidney", "kidneys", "prostate", "pancreas", "breast")
SURROUNDING = ("edema", "oedema", "whole-tumour", "infiltration")
DEEP_MM = 10.0


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The numbers of labels by what they are. `surrounding` are tumour labels that enclose the rest of the tumour."""

    tumour: tuple[int, ...]
    surrounding: tuple[int, ...]
    tissue: tuple[int, ...]
    fluid: tuple[int, ...]

    @classmethod
    def of(cls, mask_labels: tuple[str, ...]) -> "Anatomy":
        """From the names of the labels, background first."""
        named = dict(enumerate(_plain(name) for name in mask_labels))
        tumour = tumour_labels(mask_labels)
        tissue = tuple(n for n in named if n and n not in tumour)
        if not tumour:
            raise ConfigError("none of the labels is a tumour", value=list(mask_labels), remedy="edit masks of tumours")
        return cls(
            tumour=tumour,
            surrounding=tuple(n for n in tumour if named[n] in SURROUNDING),
            tissue=tissue,
            fluid=tuple(n for n in tissue if named[n] in FLUID),
        )

    def tumour_in(self, mask: Labels) -> Region:
        """The whole tumour."""
        return np.isin(mask, self.tumour)

    def core_in(self, mask: Labels) -> Region:
        """The tumour without what surrounds it."""
        return np.isin(mask, [number for number in self.tumour if number not in self.surrounding])

    def brain_in(self, mask: Labels) -> Region:
        """The brain, for label maps that name its tissues: all that has a label."""
        if not self.tissue:
            remedy = "use label maps with tissues (csf, grey, white), or give the image"
            raise ConfigError("the label map does not tell where the brain is", remedy=remedy)
        return np.asarray(mask > 0)

    def ventricles_in(self, mask: Labels, brain: Region, spacing_mm: tuple[float, ...]) -> Region:
        """Fluid deep inside the brain; fluid nearer to the surface lies in furrows, which tumours do cross."""
        depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)
        inner = depth[(slice(1, -1),) * mask.ndim] > DEEP_MM
        return np.asarray(np.isin(mask, self.fluid) & inner)


def tumour_labels(mask_labels: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of the labels that are tumour, by their names; none where all are tissues or there are no labels."""
    healthy = FLUID + SOLID + OTHER_TISSUE + ORGANS
    return tuple(n for n, name in enumerate(mask_labels) if n and _plain(name) not in healthy)


def brain_of(image: NDArray[np.float32], threshold: float = 0.05) -> Region:
    """The brain in a skull-stripped image (channels, ...) in [0, 1]: the largest bright region, its holes filled."""
    bright = (image > threshold).any(axis=0)
    parts, count = ndimage.label(bright)
    if not count:
        return np.asarray(bright)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(parts == largest))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
