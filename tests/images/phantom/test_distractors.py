"""Spots that are no tumour: each kind breaks the agreement of contrasts in its own way, none has a label."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from fedsynth.images.phantom.acquire import CHANNELS
from fedsynth.images.phantom.distractors import KINDS, MOST
from fedsynth.images.phantom.fields import Viewport
from fedsynth.images.phantom.patient import Patient, show_plane, style_patient
from fedsynth.images.phantom.scanner import CaseMix, Scanner
from fedsynth.images.phantom.style import Style
from fedsynth.images.phantom.templates import load_atlas

VIEW = Viewport(size=64)
PLAIN = Style(scanner=Scanner(noise=0.0, bias=0.0, blur_mm=0.0))
SIGNS = {  # the sign of the change in t1, t2, flair, t1ce; 0: hardly any
    "flair only": (0, -1, 1, 0),
    "blood or fat": (1, 1, 1, 1),
    "cyst": (-1, 1, -1, -1),
    "calcium": (-1, -1, -1, -1),
    "t2 only": (0, 1, 0, 0),
    "enhancing": (0, 0, 0, 1),
}


@cache
def healthy() -> Patient:
    mix = CaseMix(healthy=1.0, low_grade=0.0, high_grade=0.0)
    return style_patient(3, 0, mix, PLAIN, load_atlas(VIEW.spacing_mm))


def shown(patient: Patient, number: float, plane: int) -> tuple[np.ndarray, np.ndarray]:
    style = replace(patient.style, lesions=replace(patient.style.lesions, distractors=number))
    image, mask = show_plane(replace(patient, style=style), load_atlas(VIEW.spacing_mm), VIEW, plane, "tumour")
    return image / 255, mask


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_breaks_the_agreement_of_contrasts(kind: str) -> None:
    patient = healthy()
    centre = np.tile(np.array([25.0, -20.0, 30.0], np.float32), (MOST, 1))
    spots = replace(
        patient.distractors,
        centres_mm=centre,
        radii_mm=np.full(MOST, 12, np.float32),
        strengths=np.ones(MOST, np.float32),
        kinds=np.full(MOST, KINDS.index(kind)),
        chances=np.arange(MOST) + 0.5,
        age=0.0,
    )
    patient = replace(patient, distractors=spots)
    plane = round((30 - 6) / VIEW.spacing_mm + (VIEW.size - 1) / 2)
    (without, mask), (with_one, _) = (shown(patient, number, plane) for number in (0.0, 1.0))
    change = with_one - without
    where = np.abs(change).max(0) > 0.1
    assert where.sum() > 10
    assert not mask.any(), "a distractor has no label"
    for name, sign, found in zip(CHANNELS, SIGNS[kind], change[:, where].mean(1), strict=True):
        assert (found * sign > 0.09) if sign else (abs(found) < 0.09), (name, found)


def test_more_are_shown_where_a_style_has_more_and_none_where_it_has_none() -> None:
    patient = replace(healthy(), distractors=replace(healthy().distractors, age=0.0))
    planes = range(26, 46)
    changed = []
    for number in (1.0, 4.0, 9.0):
        pairs = [(shown(patient, 0.0, plane)[0], shown(patient, number, plane)[0]) for plane in planes]
        changed.append(sum((np.abs(one - other).max(0) > 0.05).sum() for one, other in pairs))
    assert changed[0] < changed[1] < changed[2]
    assert (patient.distractors.chances < 3).sum() < (patient.distractors.chances < 9).sum()


def test_old_white_matter_is_bright_in_t2_and_flair_in_small_spots() -> None:
    patient = replace(healthy(), distractors=replace(healthy().distractors, age=1.0))
    young = replace(patient, distractors=replace(patient.distractors, age=0.0))
    change = shown(patient, 0.0, 36)[0] - shown(young, 0.0, 36)[0]
    spots, count = ndimage.label(change[2] > 0.05)
    assert count >= 3
    assert np.bincount(spots.ravel())[1:].mean() < 30
    assert change[1][spots > 0].mean() > 0.02 > change[0][spots > 0].mean()


def test_a_tumour_leaves_no_room_for_another_spot() -> None:
    mix = CaseMix(healthy=0.0, low_grade=1.0, high_grade=0.0)
    patient = style_patient(3, 2, mix, PLAIN, load_atlas(VIEW.spacing_mm))
    here = np.tile(patient.lesion.centre_mm, (MOST, 1))
    patient = replace(patient, distractors=replace(patient.distractors, centres_mm=here, age=0.0))
    plane = round(float(patient.lesion.centre_mm[2] - 6) / VIEW.spacing_mm + (VIEW.size - 1) / 2)
    (without, mask), (with_spots, _) = (shown(patient, number, plane) for number in (0.0, 12.0))
    core = ndimage.binary_erosion(mask > 0, iterations=2)
    assert core.any()
    assert np.abs(with_spots - without)[:, core].max() < 0.06
