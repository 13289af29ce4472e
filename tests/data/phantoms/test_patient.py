"""One patient: anatomy as in a textbook, lesions as grown, the same in two dimensions and three."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from fedsynth.data.phantoms.acquisition import CHANNELS
from fedsynth.data.phantoms.appearance import Lesions
from fedsynth.data.phantoms.atlas import load_atlas
from fedsynth.data.phantoms.cohort import phantom_images
from fedsynth.data.phantoms.patient import Patient, draw_patient, show_plane
from fedsynth.data.phantoms.random_fields import Viewport
from fedsynth.data.phantoms.scanner import CaseMix, Hospital, Scanner, default_hospitals
from fedsynth.data.phantoms.settings import LABELS, PhantomSettings
from fedsynth.data.preprocessing import upright

VIEW = Viewport(size=64)
QUIET = Scanner(noise=0.0, bias=0.0, blur_mm=0.0)
MIXES = {
    "healthy": CaseMix(healthy=1.0, low_grade=0.0, high_grade=0.0),
    "low-grade": CaseMix(healthy=0.0, low_grade=1.0, high_grade=0.0),
    "high-grade": CaseMix(healthy=0.0, low_grade=0.0, high_grade=1.0),
}


def drawn(label: str, index: int, *, lesions: Lesions | None = None) -> Patient:
    hospital = Hospital(name="quiet", scanner=QUIET, lesions=lesions or Lesions(), case_mix=MIXES[label])
    return draw_patient(3, index, hospital, load_atlas(VIEW.spacing_mm))


def volume(patient: Patient, labels: str = "tissue+tumour") -> tuple[np.ndarray, np.ndarray]:
    """Image (channels, planes, rows, columns) as shares of white, and mask (planes, rows, columns)."""
    shown = [show_plane(patient, load_atlas(VIEW.spacing_mm), VIEW, plane, labels) for plane in range(10, 54)]
    return np.stack([image for image, _ in shown], axis=1) / 255, np.stack([mask for _, mask in shown])


@cache
def whole(label: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    return volume(drawn(label, index))


def test_a_volume_and_the_slices_of_the_same_patient_are_equal_bit_for_bit() -> None:
    flat = PhantomSettings(patients=4, size=32, slices=4, labels="tissue+tumour")
    hospitals = default_hospitals(4)
    for index in range(4):
        (one_body,) = phantom_images(index, replace(flat, dimensions=3), hospitals)
        slices = phantom_images(index, flat, hospitals)
        assert one_body.image.shape == (4, 32, 32, 32)
        assert (one_body.row["patient"], one_body.row["site"], one_body.row["class"]) == tuple(
            slices[0].row[key] for key in ("patient", "site", "class")
        )
        for one in slices:
            plane = int(one.row["slice"])
            assert one.image.any()
            assert np.array_equal(upright(one_body.image, "axial", plane), one.image)
            assert np.array_equal(upright(one_body.mask, "axial", plane), one.mask)


def test_healthy_tissue_has_the_grey_values_a_radiologist_expects() -> None:
    image, mask = whole("healthy", 0)
    names = LABELS["tissue+tumour"]
    csf, grey, white = (
        [image[c][mask == names.index(name)].mean() for c in range(4)] for name in ("csf", "grey", "white")
    )
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    for channel in ("t1", "t1ce"):
        c = CHANNELS.index(channel)
        assert csf[c] < grey[c] < white[c]
    t2, flair = CHANNELS.index("t2"), CHANNELS.index("flair")
    assert csf[t2] > grey[t2] > white[t2]
    assert csf[flair] < white[flair] < grey[flair]
    assert image[:, mask == 0].max() == 0, "skull-stripped: nothing outside the brain"


def test_the_front_of_the_head_is_up_and_the_vertex_is_the_last_plane() -> None:
    _, mask = whole("healthy", 1)
    rows = np.flatnonzero((mask[4] > 0).any(axis=1))
    assert rows.mean() > 34, "the lowest that is seen is the cerebellum, and it lies behind"
    assert 0 < (mask[-1] > 0).sum() < 0.5 * (mask[20] > 0).sum()


def test_head_sizes_and_ventricles_differ_between_patients() -> None:
    heads, ventricles = [], []
    for index in range(6):
        _, mask = whole("healthy", index)
        heads.append((mask > 0).sum())
        deep = ndimage.binary_erosion(mask > 0, iterations=8)
        ventricles.append(((mask == 1) & deep).sum())
    assert np.std(heads) / np.mean(heads) > 0.04
    assert max(ventricles) > 1.5 * min(ventricles)


@pytest.mark.parametrize("index", range(2))
def test_a_high_grade_tumour_has_a_bright_rim_a_dark_core_and_oedema(index: int) -> None:
    image, mask = whole("high-grade", index)
    white, oedema, core, rim = (mask == label for label in (3, 4, 5, 6))
    t1, t2, flair, t1ce = image
    assert min(oedema.sum(), core.sum(), rim.sum()) > 20
    assert t1ce[rim].mean() > 1.1 * t1ce[white].mean()
    assert t1ce[rim].mean() > 1.3 * t1[rim].mean()
    assert t1ce[core].mean() < 0.7 * t1ce[white].mean()
    assert flair[oedema].mean() > 1.25 * flair[white].mean()
    assert t2[oedema].mean() > 1.25 * t2[white].mean()
    beside = ndimage.binary_dilation(core) & ~core & (mask > 0)
    assert (mask[beside] == 6).mean() > 0.8, "the rim encloses the core"
    outside = ndimage.binary_dilation(rim | core) & ~(rim | core) & (mask > 0)
    assert (mask[outside] == 4).mean() > 0.5, "the oedema surrounds the core"


@pytest.mark.parametrize("index", range(2))
def test_a_low_grade_tumour_is_bright_in_flair_without_a_ring_of_oedema(index: int) -> None:
    image, mask = whole("low-grade", index)
    white, core = mask == 3, mask == 5
    _, t2, flair, t1ce = image
    assert core.sum() > 100
    assert not (mask == 4).any()
    assert (mask == 6).sum() < 0.1 * core.sum()
    assert t2[core].mean() > 1.25 * t2[white].mean()
    assert flair[core].mean() > 1.15 * flair[white].mean()
    assert t1ce[core].mean() < t1ce[white].mean()


@pytest.mark.parametrize("label", ["low-grade", "high-grade"])
def test_a_lesion_is_one_body_inside_the_brain_and_spares_the_ventricles(label: str) -> None:
    largest = []
    for index in range(2):
        image, mask = whole(label, index)
        body = mask > 3
        parts, _ = ndimage.label(body)
        largest.append(np.bincount(parts.ravel())[1:].max() / body.sum())
        assert image[1][body].min() > 0, "no label outside the brain"
        assert 0.005 < body.sum() / (mask > 0).sum() < 0.25
        _, healthy = volume(replace(drawn(label, index), label="healthy"))
        ventricles = (healthy == 1) & ndimage.binary_erosion(healthy > 0, iterations=8)
        assert (mask[ventricles] > 3).mean() < 0.3
    assert np.mean(largest) > 0.95


def test_borders_blend_and_are_no_cut_outs() -> None:
    """The brightness falls over several millimetres: at 1 mm pixels a step at the border is far from the contrast."""
    view = Viewport(size=208)
    atlas = load_atlas(view.spacing_mm)
    plain = Lesions(flair=1.4, texture=0.1, distractors=0.0)
    patient = drawn("low-grade", 5, lesions=plain)
    plane = round(float(patient.lesion.centre_mm[2] - 6 + 103.5))
    image, mask = show_plane(patient, atlas, view, plane, "tumour")
    flair = image[2].astype(float)
    body = mask > 0
    assert body.sum() > 100
    contrast = flair[body].mean() - flair[ndimage.binary_dilation(body, iterations=8) & ~body & (image[2] > 0)].mean()
    assert contrast > 20
    edge = body & ~ndimage.binary_erosion(body)
    steps = np.hypot(*np.gradient(flair))[edge]
    assert np.median(steps) < 0.35 * contrast


def test_the_mass_pushes_the_tissue_around_it() -> None:
    patient = drawn("high-grade", 2)
    pushed = whole("high-grade", 2)[1]
    still = volume(replace(patient, lesion=replace(patient.lesion, push=0.0)))[1]
    healthy_both = (pushed <= 3) & (still <= 3)
    moved = (pushed != still) & healthy_both
    assert 50 < moved.sum() < 0.1 * (still > 0).sum()


def test_label_sets_are_groupings_of_each_other() -> None:
    patient = drawn("high-grade", 1)
    tumour, one_label, everything = (volume(patient, labels)[1] for labels in LABELS)
    assert np.array_equal(one_label, tumour > 0)
    assert np.array_equal(np.where(everything > 3, everything - 3, 0), tumour)


def test_the_class_says_nothing_about_the_planes_that_are_shown() -> None:
    ill = replace(PhantomSettings(patients=1, sites=1, size=32), seed=3)
    for index in range(5):
        rows = {
            label: [
                one.row["slice"] for one in phantom_images(index, ill, [Hospital(name="one", case_mix=MIXES[label])])
            ]
            for label in ("low-grade", "high-grade", "healthy")
        }
        assert rows["healthy"] in (rows["low-grade"], rows["high-grade"])
