"""One phantom patient: drawn from the seed and the patient's own number, then shown plane by plane.

Randomness is drawn first, as plain values, from one stream per patient and purpose; showing a plane draws nothing but
that plane's own noise. So a patient is the same whatever else is in the cohort, and in two dimensions or three.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fedsynth.data.phantoms.acquisition import CHANNELS, Scan, draw_scan, scan_plane, show_lesion, show_tissue
from fedsynth.data.phantoms.anatomy import Anatomy, Tissue, draw_anatomy, from_atlas, tissue_plane
from fedsynth.data.phantoms.atlas import Atlas
from fedsynth.data.phantoms.distractors import Distractors, draw_distractors, show_distractors
from fedsynth.data.phantoms.head import framed, show_head
from fedsynth.data.phantoms.random_fields import Viewport
from fedsynth.data.phantoms.scanner import CLASSES, CaseMix, Hospital
from fedsynth.data.phantoms.settings import Labels
from fedsynth.data.phantoms.style import Style, draw_head
from fedsynth.data.phantoms.tumour_growth import Grade, Growth, Tumour, draw_tumour, grow, push_tissue

Purpose = Literal["class", "anatomy", "tumour", "scan", "noise", "distractors", "style"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Patient:
    """Everything about one patient, drawn.

    A healthy one has a `lesion` too, which never grew: 2-D images are cut around it, so that the choice of planes says
    nothing about the class.
    """

    seed: int
    index: int
    label: str
    style: Style
    anatomy: Anatomy
    lesion: Tumour
    distractors: Distractors
    scan: Scan

    @property
    def tumour(self) -> Tumour | None:
        """The lesion, if the patient has one."""
        return None if self.label == "healthy" else self.lesion


def draw_patient(seed: int, index: int, hospital: Hospital, atlas: Atlas, *, head: bool = False) -> Patient:
    """Patient `index` of the cohort `seed`, treated at the hospital; skull-stripped unless the `head` is wanted."""
    shown = draw_head(stream(seed, index, "style")) if head else None
    style = Style(scanner=hospital.scanner, lesions=hospital.lesions, head=shown)
    return style_patient(seed, index, hospital.case_mix, style, atlas)


def style_patient(
    seed: int, index: int, case_mix: CaseMix, style: Style, atlas: Atlas, *, scan: Scan | None = None
) -> Patient:
    """Patient `index` of the cohort `seed` in any style. The style decides nothing of who the patient is.

    Another `scan` than the patient's own is another visit.
    """
    label, chance = draw_class(seed, index, case_mix)
    high = label == "high-grade" or (label == "healthy" and chance < 0.5)
    grade: Grade = "high-grade" if high else "low-grade"
    anatomy = draw_anatomy(stream(seed, index, "anatomy"))
    lesion = draw_tumour(stream(seed, index, "tumour"), grade, atlas, style.lesions)
    height, span = float(lesion.centre_mm[2]), lesion.reach_mm
    return Patient(
        seed=seed,
        index=index,
        label=label,
        style=style,
        anatomy=anatomy if style.head is None else framed(anatomy, style.head),
        lesion=lesion,
        distractors=draw_distractors(stream(seed, index, "distractors"), atlas, height, span),
        scan=draw_scan(stream(seed, index, "scan")) if scan is None else scan,
    )


def draw_class(seed: int, index: int, case_mix: CaseMix) -> tuple[str, float]:
    """The class of patient `index`, and a number in [0, 1) left over for what else hangs on it."""
    chance = stream(seed, index, "class").random(2)
    edges = np.cumsum(case_mix.shares)
    return CLASSES[min(int(np.searchsorted(edges, chance[0], side="right")), len(CLASSES) - 1)], float(chance[1])


def stream(seed: int, index: int, purpose: Purpose, plane: int = 0) -> np.random.Generator:
    """The random stream of one patient for one purpose; independent of every other."""
    key = (index, get_args(Purpose).index(purpose), plane)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def show_plane(
    patient: Patient, atlas: Atlas, view: Viewport, plane: int, labels: Labels
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One axial plane: the image (channels, rows, columns) and its mask (rows, columns)."""
    tumour = patient.tumour
    push = None if tumour is None else partial(push_tissue, tumour)
    tissue = tissue_plane(patient.anatomy, atlas, view, plane, push)
    if patient.style.head is None and not (tissue.brain > 0.5).any():
        return np.zeros((len(CHANNELS), view.size, view.size), np.uint8), np.zeros((view.size, view.size), np.uint8)
    growth = None if tumour is None else grow(tumour, tissue, view, plane)
    shown = show_tissue(tissue, patient.scan, patient.anatomy.caps, view, plane)
    lesions, taken = patient.style.lesions, np.zeros_like(tissue.brain) if growth is None else growth.whole
    shown = show_distractors(shown, patient.distractors, lesions.distractors, tissue, taken, view, plane)
    if tumour is not None and growth is not None:
        shown = show_lesion(shown, tumour, growth, lesions)
    noise = stream(patient.seed, patient.index, "noise", plane)
    filled = tissue.brain
    if patient.style.head is not None:
        uneven = patient.scan.soft.plane(view, plane)[0]
        shown, filled = show_head(shown, tissue, patient.style.head, atlas, uneven)
    image = scan_plane(shown, filled, patient.style.scanner, patient.scan, view, plane, noise)
    if patient.style.head is None:
        image = image * (tissue.brain > 0.5)
    return image, _mask(tissue, growth, labels)


def chosen_planes(patient: Patient, view: Viewport, count: int) -> list[int]:
    """`count` axial planes, evenly apart, through the lesion (or where a healthy patient's might have been)."""
    allowed = view.planes
    centre_mm = from_atlas(patient.anatomy, patient.lesion.centre_mm)[2]
    centre = centre_mm / view.spacing_mm + (view.size - 1) / 2
    if count == 1:
        return [int(np.clip(round(centre), allowed[0], allowed[-1]))]
    span = 1.35 * patient.lesion.reach_mm / view.spacing_mm
    step = max(1, min(int(span // (count - 1)), (len(allowed) - 1) // (count - 1)))
    lowest = round(centre - step * (count - 1) / 2)
    lowest = int(np.clip(lowest, allowed[0], allowed[-1] - step * (count - 1)))
    return list(range(lowest, lowest + step * count, step))


def _mask(tissue: Tissue, growth: Growth | None, labels: Labels) -> NDArray[np.uint8]:
    """Where each label is the larger part of the pixel; a tumour label stands over the tissue below it."""
    lesion = np.zeros(tissue.brain.shape, np.uint8)
    if growth is not None:
        lesion[growth.whole > 0.5] = 1
        core = growth.core > 0.5
        lesion[core] = 2
        lesion[core & (growth.enhancing > 0.5 * growth.core)] = 3
    lesion[tissue.brain <= 0.5] = 0
    if labels == "tumour":
        return lesion
    if labels == "whole-tumour":
        return (lesion > 0).astype(np.uint8)
    parts = np.stack([tissue.csf, tissue.grey, tissue.white])
    kinds = np.where(tissue.brain > 0.5, 1 + parts.argmax(axis=0), 0).astype(np.uint8)
    return np.where(lesion > 0, lesion + 3, kinds).astype(np.uint8)
