"""Copies by the ratio of two distances: one is enough, and nothing that is no copy rejects."""

import numpy as np
import pytest

from fedsynth.evaluation.memorization.ratios import nearest_persons, nearest_two, usual_distance
from fedsynth.evaluation.memorization.replication import find_copies, learn_reference
from fedsynth.evaluation.nearest_neighbours import PatientDistances, patient_distances

N, WIDTH = 60, 16


def people(seed, n=N, images=3, width=WIDTH):
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(n, width)), images, axis=0)
    return (centres + rng.normal(size=centres.shape)).astype(np.float32), np.repeat(np.arange(n), images)


def copies(real, patient_of, synthetic, n_patients=N):
    table = patient_distances(synthetic, real, patient_of, n_patients)
    apart = patient_distances(real, real, patient_of, n_patients, exclude=patient_of)
    reference = learn_reference({"x": apart}, patient_of, n_patients, len(synthetic))
    return find_copies({"x": table}, reference), reference


def table(distances, patients):
    return PatientDistances(distances=np.array(distances, np.float32), patients=np.array(patients, np.int32))


def test_the_ratio_is_that_of_the_two_nearest_persons():
    by_hand = table(
        [[1, 2, 4], [1, 2, 4], [0, 0, 3], [1, np.inf, np.inf]], [[0, 1, 2], [1, 2, 0], [0, 1, 2], [2, -1, -1]]
    )
    alone = nearest_two(by_hand, 10, np.arange(3))
    assert alone.ratios.tolist() == pytest.approx([0.5, 0.5, 1, 1])
    assert alone.patients.tolist() == [0, 1, 0, 2]
    joined = nearest_two(by_hand, 10, np.array([0, 0, 2]))  # patients 0 and 1 are one person
    assert joined.ratios.tolist() == pytest.approx([0.25, 0.5, 0.01 / 3, 1])


def test_one_exact_copy_is_found_and_laid_at_its_patients_mechanism():
    real, patient_of = people(1)
    synthetic = people(2, n=200, images=1)[0]
    synthetic[7] = real[33]
    found, _ = copies(real, patient_of, synthetic)
    assert found.rows.tolist() == [7]
    assert found.patients.tolist() == [patient_of[33]]
    member = np.arange(N) == patient_of[33]
    assert (found.of(member), found.of(~member)) == (1, 0)


def no_copies():
    rng = np.random.default_rng(5)
    fresh = people(3, n=600, images=1)[0]
    collapsed = np.repeat(fresh[:2], 300, axis=0) + rng.normal(0, 0.02, (600, WIDTH)).astype(np.float32)
    return {
        "fresh": fresh,
        "blurred": 0.6 * fresh,
        "noisy": fresh + rng.normal(0, 1, fresh.shape).astype(np.float32),
        "collapsed": collapsed,
        "blank": np.zeros_like(fresh),
        "far away": fresh + 100,
    }


@pytest.mark.parametrize("kind", no_copies())
def test_what_is_no_copy_does_not_fire(kind):
    real, patient_of = people(1)
    assert len(copies(real, patient_of, no_copies()[kind])[0].rows) == 0


def test_more_images_lower_the_threshold_and_never_raise_it_above_the_margin():
    real, patient_of = people(1)
    apart = {"x": patient_distances(real, real, patient_of, N, exclude=patient_of)}
    few, many = (learn_reference(apart, patient_of, N, n).thresholds["x"] for n in (10, 10**6))
    assert many.ratio < few.ratio <= 0.8 * few.smallest_real + 1e-9


def test_a_person_under_two_names_does_not_hide_copies_of_others_or_of_himself():
    real, patient_of = people(1)
    real[patient_of == 8] = real[patient_of == 3] + 0.001  # one person, imported twice
    synthetic = people(2, n=200, images=1)[0]
    synthetic[0], synthetic[1] = real[33], real[patient_of == 3][0]
    found, reference = copies(real, patient_of, synthetic)
    assert reference.twins == ((3, 8),)
    assert sorted(found.rows) == [0, 1]


def test_an_outlying_patient_is_not_whom_everything_copies():
    real, patient_of = people(1)
    real[patient_of == 5] += 8
    assert len(copies(real, patient_of, people(2, n=300, images=1)[0])[0].rows) == 0
    near_the_outlier = people(2, n=300, images=1)[0] + 8
    assert len(copies(real, patient_of, near_the_outlier)[0].rows) == 0


def test_too_few_patients_are_told_and_flag_nobody():
    real, patient_of = people(1, n=6)
    found, _ = copies(real, patient_of, real, n_patients=6)
    assert "at least 10" in found.why
    assert len(found.rows) == 0


def test_a_far_second_patient_counts_as_the_usual_distance():
    assert nearest_two(table([[1, 40]], [[0, 1]]), 4, np.arange(2)).ratios.tolist() == [0.25]


def test_the_usual_distance_is_the_median_and_positive_for_equal_images():
    assert usual_distance(table([[1.0], [3.0], [0.0]], [[0], [1], [2]])) == pytest.approx(2)
    assert usual_distance(table([[0.0]], [[0]])) > 0


def test_a_dozen_patients_of_one_image_are_no_licence_to_call_honest_output_copied():
    """Half of their ratios are 1, the limit: taken for the tail, a fifth of all honest sets would hold a copy."""
    called = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        real, honest = (rng.normal(size=(n, 16)).astype(np.float32) for n in (12, 700))
        owners = np.arange(12)
        apart = patient_distances(real, real, owners, 12, exclude=owners)
        reference = learn_reference({"x": apart}, owners, 12, len(honest))
        called += len(find_copies({"x": patient_distances(honest, real, owners, 12)}, reference).rows) > 0
    assert called <= 2


def test_no_threshold_is_above_half():
    """Real ratios of nearly one would allow 0.8: in small cohorts that is no copy yet."""
    n = 40
    distances = np.tile(np.array([[0.99, 1.0]], np.float32), (n, 1))
    distances[:, 0] += np.linspace(0, 0.009, n, dtype=np.float32)
    patients = np.stack([(np.arange(n) + 1) % n, (np.arange(n) + 2) % n], axis=1).astype(np.int32)
    table = {"x": PatientDistances(distances=distances, patients=patients)}
    assert learn_reference(table, np.arange(n), n, 100).thresholds["x"].ratio == 0.5


def test_all_spaces_in_one_go_are_as_one_by_one():
    """Tables of different depth, some shorter than a person of three entries needs, and rows of few patients."""
    rng = np.random.default_rng(0)
    person, owners = np.array([0, 0, 0, 3, 4, 5, 6, 7]), np.arange(8)
    tables, usual = {}, {"deep": 1.0, "shallow": 0.5, "one": 2.0}
    for name, depth in {"deep": 8, "shallow": 3, "one": 1}.items():
        distances = np.sort(rng.random((8, depth)).astype(np.float32), axis=1)
        patients = rng.permuted(np.tile(np.arange(8, dtype=np.int32), (8, 1)), axis=1)[:, :depth]
        tables[name] = PatientDistances(distances=distances, patients=np.where(distances > 0.9, -1, patients))
    for apart in (None, owners):
        found = nearest_persons(tables, usual, person, apart_from=apart)
        for name, table_of in tables.items():
            alone = nearest_two(table_of, usual[name], person, apart_from=apart)
            np.testing.assert_array_equal(found[name].patients, alone.patients)
            np.testing.assert_array_equal(found[name].ratios, alone.ratios)
