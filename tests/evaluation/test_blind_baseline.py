"""The blind baseline rejects on patients who differ, at its level on patients who do not, and not on unlike
scanners.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fedsynth.data import Header, ImageSet
from fedsynth.evaluation.blind_baseline import (
    blind_baseline,
    centred_by_site,
    facts_of_images,
    means_of_patients,
    patient_facts,
)
from fedsynth.evaluation.cohort import Cohort
from tests.evaluation.memorization.patients import cohort

LEVEL = 0.01


def test_facts_by_hand() -> None:
    rows = np.array([[1.0, 0.0], [3.0, 0.0], [7.0, 1.0]], np.float32)
    found = patient_facts(rows, np.array([0, 0, 1]), 2, counts=True)
    assert found == pytest.approx(np.array([[2, 0, 1, 0, np.log(2)], [7, 1, 0, 0, 0]]))
    assert means_of_patients(rows, np.array([0, 0, 1]), 2) == pytest.approx(np.array([[2, 0], [7, 1]]))


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
        assert not found.rejects(LEVEL) or found.p_value <= 0.01
    assert fired <= 8  # 0.9998 of the binomial


def test_a_shift_in_one_fact_of_forty_is_seen_and_one_between_sites_is_not() -> None:
    rng = np.random.default_rng(1)
    patients = cohort(60, 50, seed=1, sites=2)
    facts = rng.normal(size=(110, 40))
    facts[:, 5] += 4 * patients.site
    assert not blind_baseline(facts, patients, seed=0).rejects(LEVEL)
    facts[:, 7] += 1.5 * patients.member
    found = blind_baseline(facts, patients, seed=0)
    assert found.rejects(LEVEL)
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
    assert found.rejects(LEVEL)


def test_the_space_that_tells_most_is_named_and_one_that_is_noise_hides_nothing() -> None:
    rng = np.random.default_rng(4)
    patients = cohort(40, 40, seed=4)
    noise, shifted = rng.normal(size=(2, 80, 12))
    assert not blind_baseline(noise, patients, seed=0, features={"noise": noise}).rejects(LEVEL)
    shifted[:, :3] += 1.5 * patients.member[:, None]
    found = blind_baseline(noise, patients, seed=0, features={"noise": noise, "shifted": shifted})
    assert found.rejects(0.001)
    assert found.space == "shifted"
    assert found.auc > 0.8


def test_a_site_with_more_members_and_a_scanner_of_its_own_is_no_reason() -> None:
    rng = np.random.default_rng(5)
    site = np.arange(60) % 2
    member = np.where(site == 0, rng.random(60) < 0.8, rng.random(60) < 0.2)
    uneven = cohort(30, 30, sites=2, member=member)
    assert not blind_baseline(rng.normal(size=(60, 12)) + 5 * site[:, None], uneven, seed=0).rejects(LEVEL)


def test_the_p_value_is_uniform_for_random_roles() -> None:
    """Twenty uniform p-values have a mean within 0.5 ± 0.3 but for one time in a million; the seeds are fixed."""
    facts = np.random.default_rng(6).normal(size=(60, 12))
    found = [blind_baseline(facts, cohort(30, 30, seed=s), seed=s, permutations=199).p_value for s in range(20)]
    assert 0.2 < np.mean(found) < 0.8


def test_of_many_patients_a_sample_is_looked_at() -> None:
    """The matrices grow with the square of patients: twenty thousand would not fit."""
    facts = np.random.default_rng(7).normal(size=(90, 6))
    patients = cohort(30, 60, seed=7)
    assert not blind_baseline(facts, patients, seed=0, most=40).rejects(LEVEL)
    found = blind_baseline(facts + 3 * patients.member[:, None], patients, seed=0, most=40)
    assert (found.n, found.rejects(LEVEL)) == (40, True)


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
    assert blind_baseline(facts, patients, seed=0).rejects(LEVEL)  # more images
    assert not blind_baseline(facts[:, :8], patients, seed=0).rejects(LEVEL)
    brighter = made.images + np.uint8(9) * (made.cases["role"] == "member").to_numpy(np.uint8)[:, None, None, None]
    facts = facts_of_images(replace(made, images=brighter), patients)
    assert blind_baseline(facts[:, :8], patients, seed=0).rejects(LEVEL)
