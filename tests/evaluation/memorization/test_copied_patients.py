"""Who was copied and how much: by hand, and with a holdout that says what is there by chance."""

import numpy as np
import pytest

from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.copied_patients import annotate, copied_share, flag_patients
from fedsynth.evaluation.memorization.replication import learn_reference
from fedsynth.evaluation.nearest_neighbours import PatientDistances, patient_distances
from tests.evaluation.memorization.test_verdict import copies_of


def people(n_members, n_holdout, sites=1):
    n = n_members + n_holdout
    member = np.arange(n) < n_members
    site = np.arange(n) % sites
    names = tuple(f"p{number:03d}" for number in range(n))
    return Cohort(names=names, member=member, stratum=site, site=site, sites=tuple(f"s{i}" for i in range(sites)))


def test_the_share_is_the_excess_over_what_the_holdout_says():
    cohort = people(6, 3)
    assert copied_share(copies_of(0, 0, 1), cohort, 100, seed=0).value == pytest.approx(0.03)
    found = copied_share(copies_of(0, 0, 1, 7), cohort, 100, seed=0)
    assert found.value == pytest.approx((3 - 1 * 6 / 3) / 100)
    assert found.control == 0.01
    assert found.low <= found.value <= found.high


def test_without_a_copy_the_share_is_bounded_by_the_number_of_images():
    found = copied_share(copies_of(), people(6, 3), 1000, seed=0)
    assert found.value == found.low == 0
    assert found.high == pytest.approx(0.003682, abs=1e-5)


def test_copies_of_one_patient_leave_a_wide_interval():
    cohort = people(20, 20)
    one, many = (copied_share(copies_of(*who), cohort, 100, seed=0) for who in ([0] * 20, range(20)))
    assert one.value == many.value == pytest.approx(0.2)
    assert one.high - one.low > 1.5 * (many.high - many.low)


def world(cohort, copied, seed, n=300):
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(3 * len(cohort), 16)).astype(np.float32)
    owners = np.repeat(np.arange(len(cohort)), 3)
    synthetic = rng.normal(size=(n, 16)).astype(np.float32)
    synthetic[: len(copied)] = real[3 * np.asarray(copied, int)] + 0.05
    table = {"x": patient_distances(synthetic, real, owners, len(cohort))}
    apart = {"x": patient_distances(real, real, owners, len(cohort), exclude=owners)}
    return table, apart, owners, learn_reference(apart, owners, len(cohort), n)


def test_copied_patients_are_listed_by_site_and_nobody_else():
    cohort = people(80, 80, sites=2)
    copied = list(range(0, 60, 2))  # members of site 0
    table, apart, owners, reference = world(cohort, copied, 1)
    found = flag_patients(table, apart, owners, reference, cohort)
    assert set(found.by_site["s0"]) >= {cohort.names[patient] for patient in copied}
    assert len(found.by_site["s0"]) <= len(copied) + 4
    assert found.by_site["s1"] == ()
    assert found.shortest == {"s0": 10, "s1": 10}


def test_unequal_numbers_and_nothing_copied_list_nobody():
    cohort = people(140, 60)
    listed = [len(flag_patients(*world(cohort, [], seed), cohort).by_site["s0"]) for seed in range(8)]
    assert sum(n > 0 for n in listed) <= 2


def test_too_few_holdout_patients_keep_the_list_empty_and_say_so():
    cohort = people(12, 2)
    found = flag_patients(*world(cohort, list(range(12)), 1), cohort)
    assert found.by_site == {"s0": ()}
    assert found.shortest == {"s0": None}


def test_the_annotation_ranks_an_image_among_holdout_patients():
    cohort = people(1, 3)  # patient 0 is the member
    output = PatientDistances(
        distances=np.array([[0.5, 1], [1, 2.5]], np.float32), patients=np.array([[0, 1], [1, 0]], np.int32)
    )
    real = PatientDistances(
        distances=np.array([[1], [1], [2], [3]], np.float32), patients=np.array([[1], [0], [0], [0]], np.int32)
    )
    found = annotate(output, real, np.arange(4), cohort)
    assert found.p.tolist() == [1 / 4, 3 / 4]
    assert found.smallest == 1 / 4
