"""The blind baseline fires on patients who differ, at its level on patients who do not, and not on unlike scanners."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedsynth.benchmark.leakage.blind import blind_baseline, centred_by_site, facts_of_images, patient_facts
from fedsynth.benchmark.leakage.cohort import Cohort
from fedsynth.images import Header, ImageSet
from tests.benchmark.leakage.patients import cohort


def test_facts_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [3.0, 0.0], [7.0, 1.0]], np.float32)
    found = patient_facts(rows, np.array([0, 0, 1]), 2, counts=True)
    assert found == pytest.approx(np.array([[2, 0, 1, 0, np.log(2)], [7, 1, 0, 0, 0]]))


def test_sites_are_centred_on_their_own_mean() -> None:
    scores = np.array([1.0, 2.0, 9.0, 100.0, np.nan])
    assert centred_by_site(scores, np.array([0, 0, 0, 1, 1]))[:4] == pytest.approx([-3, -2, 5, 0])


def test_random_roles_rarely_fire() -> None:
    fired = 0
    for seed in range(40):
        patients = cohort(40, 30, seed=seed, sites=2)
        facts = np.random.default_rng(seed).normal(size=(70, 12))
        found = blind_baseline(facts, patients, seed=seed, permutations=99)
        fired += found.p_value <= 0.05
        assert not found.fires or found.p_value <= 0.01
    assert fired <= 8  # 0.9998 of the binomial


def test_a_shift_in_one_fact_of_forty_is_seen_and_one_between_sites_is_not() -> None:
    rng = np.random.default_rng(1)
    patients = cohort(60, 50, seed=1, sites=2)
    facts = rng.normal(size=(110, 40))
    facts[:, 5] += 4 * patients.site
    assert not blind_baseline(facts, patients, seed=0).fires
    facts[:, 7] += 1.5 * patients.member
    found = blind_baseline(facts, patients, seed=0)
    assert found.fires
    assert found.single > 0.75


def test_a_difference_that_no_single_fact_shows_is_learnt() -> None:
    """Members lie on two opposite sides: every fact has the same mean in both roles."""
    rng = np.random.default_rng(2)
    patients = cohort(90, 90, seed=2)
    facts = rng.normal(size=(180, 2)) * 0.3
    side = rng.choice([-1.0, 1.0], 180)
    facts[:, 0] += side
    facts[:, 1] += np.where(patients.member, side, -side)
    found = blind_baseline(facts, patients, seed=0)
    assert found.single < 0.65
    assert found.auc > 0.9
    assert found.fires


def test_too_few_patients_have_no_baseline() -> None:
    found = blind_baseline(np.zeros((4, 3)), cohort(2, 2), seed=0)
    assert (found.p_value, found.low, found.high) == (1.0, 0.0, 1.0)


def test_brightness_and_the_number_of_images_are_among_the_facts() -> None:
    rng = np.random.default_rng(3)
    members = cohort(20, 20, seed=3).member
    rows, images = [], []
    for patient, member in enumerate(members):
        for slice_ in range(3 if member else 2):
            rows.append(
                {
                    "case": f"c{patient}-{slice_}",
                    "patient": f"p{patient:05d}",
                    "site": "",
                    "role": "member" if member else "holdout",
                    "class": "",
                    "slice": str(slice_),
                }
            )
            images.append(rng.integers(0, 200, (1, 8, 8)))
    header = Header(name="biased", origin="real", channels=("t1",), spacing_mm=(1.0, 1.0))
    made = ImageSet(header=header, cases=pd.DataFrame(rows, dtype=str), images=np.array(images, np.uint8))
    patients = replace(Cohort.of(made), not_drawn="")
    facts = facts_of_images(made, patients)
    assert blind_baseline(facts, patients, seed=0).fires  # more images
    assert not blind_baseline(facts[:, :8], patients, seed=0).fires
    brighter = made.images + np.uint8(9) * (made.cases["role"] == "member").to_numpy(np.uint8)[:, None, None, None]
    facts = facts_of_images(replace(made, images=brighter), patients)
    assert blind_baseline(facts[:, :8], patients, seed=0).fires
