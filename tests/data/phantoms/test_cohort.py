"""What a phantom cohort must hold: repeatable, distinguished by patient, by class and by hospital, and quick to
make.
"""

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedsynth.data import ImageSet
from fedsynth.data.phantoms.cohort import make_phantoms, phantom_images
from fedsynth.data.phantoms.patient import draw_class
from fedsynth.data.phantoms.scanner import default_hospitals
from fedsynth.data.phantoms.settings import PhantomSettings
from fedsynth.errors import ConfigError, RefusedError

SMALL = PhantomSettings(patients=6, slices=2, size=24, sites=3, seed=5)


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "a", SMALL, workers=1)
    make_phantoms(tmp_path / "b", SMALL, workers=2)
    make_phantoms(tmp_path / "c", replace(SMALL, seed=6), workers=1)
    first, again, other = (digests(tmp_path / name) for name in "abc")
    assert sorted(first) == ["cases.csv", "images.npy", "imageset.toml", "masks.npy"]
    assert first == again
    assert first["images.npy"] != other["images.npy"]


def test_public_styles_and_heads_have_the_same_bytes_too(tmp_path: Path) -> None:
    wide = replace(SMALL, styles="public", head=True, sites=1)
    made = make_phantoms(tmp_path / "a", wide, workers=1)
    make_phantoms(tmp_path / "b", wide, workers=2)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert made.header.provenance["style-family"]["lesions"]["flair"] == [0.8, 1.6]
    assert "hospitals" not in made.header.provenance
    few = make_phantoms(tmp_path / "few", replace(wide, patients=3), workers=1)
    assert np.array_equal(few.images, made.images[: len(few)])


def test_patient_i_is_the_same_whatever_the_number_of_patients(tmp_path: Path) -> None:
    few = make_phantoms(tmp_path / "few", SMALL, workers=1)
    many = make_phantoms(tmp_path / "many", replace(SMALL, patients=11), workers=1)
    assert np.array_equal(few.images, many.images[: len(few)])
    assert np.array_equal(np.asarray(few.masks), np.asarray(many.masks)[: len(few)])
    columns = ["case", "patient", "site", "class", "slice"]  # roles are drawn over the whole cohort
    assert few.cases[columns].equals(many.cases[columns][: len(few)])


def test_the_set_says_what_it_is(cohort: ImageSet) -> None:
    cohort.validate()
    header = cohort.header
    assert header.channels == ("t1", "t2", "flair", "t1ce")
    assert header.classes == ("healthy", "low-grade", "high-grade")
    assert header.mask_labels == ("background", "edema", "core", "enhancing")
    assert header.spacing_mm == (3.25, 3.25)
    assert header.provenance["phantom"]["patients"] == 100
    assert [one["name"] for one in header.provenance["hospitals"]] == sorted(set(cohort.cases["site"]))
    assert cohort.images.shape == (500, 4, 64, 64)
    patients = cohort.patients
    assert (patients["images"] == 5).all()
    assert patients.groupby("site").size().tolist() == [25] * 4
    shares = patients["role"].value_counts(normalize=True)
    assert shares["member"] == pytest.approx(0.5, abs=0.03)
    assert shares["holdout"] == pytest.approx(0.4, abs=0.03)


def test_slices_of_tumour_patients_show_the_tumour_and_healthy_ones_have_none(cohort: ImageSet) -> None:
    shows = np.asarray(cohort.masks).any(axis=(1, 2))
    healthy = (cohort.cases["class"] == "healthy").to_numpy()
    assert not shows[healthy].any()
    assert shows[~healthy].mean() > 0.9


@pytest.mark.parametrize("site", range(4))
def test_classes_follow_the_case_mix_of_the_hospital(site: int) -> None:
    mix = default_hospitals(4)[site].case_mix
    labels = [draw_class(0, index, mix)[0] for index in range(site, 4000, 4)]
    for label, share in zip(("healthy", "low-grade", "high-grade"), mix.shares, strict=True):
        assert labels.count(label) / 1000 == pytest.approx(share, abs=0.05)


def test_nearest_neighbours_find_the_same_patient_ten_times_as_often_as_chance(cohort: ImageSet) -> None:
    """Plain pixel distance, five slices each of 100 patients."""
    pixels = cohort.images.reshape(500, -1).astype(np.float32)
    square = (pixels**2).sum(axis=1)
    distance = square[:, None] + square - 2 * pixels @ pixels.T
    np.fill_diagonal(distance, np.inf)
    patient = cohort.cases["patient"].to_numpy()
    found = (patient[distance.argmin(axis=1)] == patient).mean()
    chance = 4 / 499
    assert found >= 10 * chance


def test_a_small_classifier_tells_the_three_classes_apart(cohort: ImageSet) -> None:
    images = np.asarray(cohort.images, np.float32) / 255
    features = np.stack([what_a_reader_looks_at(image) for image in images])
    assert held_out_accuracy(cohort, features, "class") >= 0.80


def test_a_linear_model_on_intensities_and_grain_tells_the_four_scanners_apart(cohort: ImageSet) -> None:
    features = np.stack([intensities_and_grain(image) for image in np.asarray(cohort.images)])
    assert held_out_accuracy(cohort, features, "site") >= 0.90


def intensities_and_grain(image: Any) -> Any:
    """Per channel 13 quantiles of the brain, and how much a pixel differs from its neighbours."""
    inside = ndimage.binary_erosion(image[3] > 0, iterations=2)
    rough = [np.abs(ndimage.laplace(part.astype(float)))[inside].mean() / part[inside].mean() for part in image]
    return np.concatenate([np.percentile(image[:, image[3] > 0], np.linspace(2, 98, 13), axis=1).ravel(), rough])


def held_out_accuracy(cohort: ImageSet, features: Any, column: str) -> float:
    """A logistic regression's accuracy on the images of the last third of the patients, trained on the others."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=5000))
    truth = cohort.cases[column].to_numpy()
    patients = cohort.cases["patient"].to_numpy()
    train = patients < np.unique(patients)[66]
    model.fit(features[train], truth[train])
    return float(model.score(features[~train], truth[~train]))


def what_a_reader_looks_at(image: Any) -> Any:
    """Per channel the tails of the smoothed brain, and what the brightest part of FLAIR looks like in every channel."""
    brain = ndimage.binary_erosion(image[0] > 0, iterations=3)
    medians = np.median(image[:, brain], axis=1)[:, None, None]
    fine = ndimage.gaussian_filter(image / medians, (0, 1, 1))
    coarse = ndimage.gaussian_filter(fine, (0, 2, 2))
    tails = [np.percentile(part[:, brain], (1, 5, 50, 90, 95, 98, 99.5, 100), axis=1) for part in (fine, coarse)]
    bright = brain & (coarse[2] >= np.percentile(coarse[2][brain], 96))
    uptake = fine[3] - fine[0]
    return np.concatenate(
        [
            *(part.ravel() for part in tails),
            fine[:, bright].mean(axis=1),
            fine[:, bright].std(axis=1),
            np.percentile(uptake[brain], (50, 95, 98, 99.5, 100)),
            [uptake[bright].max(), uptake[bright].mean()],
        ]
    )


def test_sixty_slices_a_second_on_one_core() -> None:
    """It makes 100 or more on an idle core; a busy machine shares its caches."""
    settings = PhantomSettings(patients=12)
    hospitals = default_hospitals(4)
    phantom_images(0, settings, hospitals)  # the atlas is read once per process
    start = time.process_time()
    made = sum(len(phantom_images(index, settings, hospitals)) for index in range(12))
    assert made / (time.process_time() - start) >= 60


def test_progress_is_told_and_more_hospitals_than_four_work(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    settings = PhantomSettings(patients=9, sites=9, slices=1, size=16)
    made = make_phantoms(tmp_path / "set", settings, workers=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 9) for done in range(1, 10)]
    assert made.cases["site"].nunique() == 9


def test_volumes(tmp_path: Path) -> None:
    made = make_phantoms(tmp_path / "set", replace(SMALL, dimensions=3, labels="whole-tumour"), workers=1)
    assert made.images.shape == (6, 4, 24, 24, 24)
    assert made.header.mask_labels == ("background", "tumour")
    assert len(made.header.spacing_mm) == 3
    assert (made.cases["slice"] == "").all()
    ImageSet.load(tmp_path / "set")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"patients": 0}, r"'patients' must be at least 1 \(found 0\)"),
        ({"slices": 0}, "'slices' must be at least 1"),
        ({"sites": -1}, "'sites' must be at least 1"),
        ({"size": 15}, r"'size' must be at least 16 pixels.*found 15"),
        ({"seed": -1}, "'seed' must not be negative"),
        ({"dimensions": 4}, "'dimensions' must be 2 or 3"),
        ({"styles": "publik"}, r"'styles' has an unknown value \(found 'publik'\); did you mean 'public'"),
        ({"labels": "tumor"}, r"'labels' has an unknown value \(found 'tumor'\); did you mean 'tumour'"),
        ({"sites": 7, "patients": 6}, r"more sites \(7\) than patients \(6\)"),
        ({"slices": 30, "size": 64}, r"a brain of 64 pixels has 25 slices to choose from \(found 30\)"),
    ],
)
def test_settings_that_cannot_be_made_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhantomSettings(**values)


def test_every_number_of_slices_that_a_brain_has_can_be_cut() -> None:
    for count in (1, 2, 5, 11, 25):
        made = phantom_images(0, PhantomSettings(patients=4, slices=count), default_hospitals(4))
        planes = [int(one.row["slice"]) for one in made]
        assert len(set(planes)) == count
        assert planes == sorted(planes)


def test_hospitals_must_fit_the_number_of_sites(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 sites need as many hospitals \(found 2\)"):
        make_phantoms(tmp_path / "set", SMALL, default_hospitals(2))
    with pytest.raises(ConfigError, match="a name of its own"):
        make_phantoms(tmp_path / "set", SMALL, default_hospitals(1) * 3)


def test_an_existing_set_is_kept_without_overwrite(tmp_path: Path) -> None:
    make_phantoms(tmp_path / "set", SMALL, workers=1)
    before = digests(tmp_path / "set")
    with pytest.raises(RefusedError, match="exists already"):
        make_phantoms(tmp_path / "set", replace(SMALL, seed=9), workers=1)
    assert digests(tmp_path / "set") == before
    make_phantoms(tmp_path / "set", replace(SMALL, seed=9), workers=1, overwrite=True)
    assert digests(tmp_path / "set") != before
