"""Patients with one image each, some of whom stand in twice: spaces together find what none finds alone."""

import numpy as np
import pytest

from fedsynth.evaluation.bootstrap import binomial_tail_bound
from fedsynth.evaluation.memorization.combined_evidence import TOGETHER, Scales, combine
from fedsynth.evaluation.memorization.ratios import nearest_persons
from fedsynth.evaluation.memorization.replication import (
    LEVEL,
    find_copies,
    in_both_roles,
    learn_reference,
    with_equal,
    without,
)
from fedsynth.evaluation.nearest_neighbours import PatientDistances, patient_distances

PATIENTS, DOUBLES, SPACES, WIDTH = 200, 6, 6, 24


def table(distances, patients):
    return PatientDistances(distances=np.array(distances, np.float32), patients=np.array(patients, np.int32))


def test_depths_add_up_patient_by_patient():
    """Ratios of 1/2 for patient 0 in two spaces of three and of 1/8 for patient 1 in one: 2 log 2 against 3 log 2."""
    two = table([[1, 2]], [[0, 2]])
    tables = {"a": two, "b": two, "c": table([[1, 8]], [[1, 0]])}
    scales = Scales(usual=dict.fromkeys("abc", 100.0), depth=dict.fromkeys("abc", 1.0))
    seen = combine(nearest_persons(tables, scales.usual, np.arange(3)), scales, np.arange(3))
    assert (seen.patients[0], seen.spaces[0]) == (1, 2)
    assert seen.depths[0] == pytest.approx(np.log(2))  # three times log 2 in three spaces
    person = np.array([0, 0, 2])  # patients 0 and 1 are one person, and c ends with him
    joined = combine(nearest_persons(tables, scales.usual, person), scales, person)
    assert joined.depths[0] == pytest.approx(5 * np.log(2) / 3)
    alone = combine(nearest_persons({"a": two}, scales.usual, np.arange(3)), scales, np.arange(3))
    assert alone.depths[0] == pytest.approx(np.log(2) / 3)


def world(seed, noise):
    """One image of each patient in six spaces; six patients stand in a second time, seen with other noise."""
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(SPACES, PATIENTS, WIDTH))
    real[:, -DOUBLES:] = real[:, :DOUBLES] + 0.4 * rng.normal(size=(SPACES, DOUBLES, WIDTH))
    copied = real[:, 50:110] + noise * rng.normal(size=(SPACES, 60, WIDTH))
    fresh = rng.normal(size=(SPACES, 300, WIDTH))
    return [list(rows.astype(np.float32)) for rows in (real, copied, fresh)]


def tables(queries, real, exclude=None):
    owners = np.arange(PATIENTS)
    return {
        f"{space}": patient_distances(made, rows, owners, 16, exclude=exclude)
        for space, (made, rows) in enumerate(zip(queries, real, strict=True))
    }


@pytest.mark.parametrize("seed", range(3))
def test_one_image_each_and_doubles_among_them(seed):
    real, copied, fresh = world(seed, noise=0.5)
    owners = np.arange(PATIENTS)
    reference = learn_reference(tables(real, real, owners), owners, PATIENTS, 300)
    assert reference.twins == tuple((one, PATIENTS - DOUBLES + one) for one in range(DOUBLES))
    found = find_copies(tables(copied, real), reference)
    assert (found.patients == 50 + found.rows).all()
    assert len(found.rows) >= 36  # three of five
    assert found.spaces.count(TOGETHER) >= 5, "single spaces find not all of them"
    assert not len(find_copies(tables(fresh, real), reference).rows)


def test_doubles_that_nobody_recognises_hide_no_copies():
    """Half as many again who are half alike, too little to be taken for one person: the tail is cut off before them."""
    real, copied, fresh = world(7, noise=0.4)
    rng = np.random.default_rng(8)
    for rows in real:
        rows[120:124] = rows[124:128] + 0.9 * rng.normal(size=(4, WIDTH))
    owners = np.arange(PATIENTS)
    reference = learn_reference(tables(real, real, owners), owners, PATIENTS, 300)
    assert len(find_copies(tables(copied, real), reference).rows) >= 48
    assert not len(find_copies(tables(fresh, real), reference).rows)


def test_persons_of_both_roles_count_on_neither_side_unless_the_bytes_are_equal():
    """Patients 0 to 5 are members, their doubles holdout: what lies near one of them tells nothing of roles."""
    real, _, _ = world(1, noise=0.5)
    owners, member = np.arange(PATIENTS), np.arange(PATIENTS) < 100
    reference = learn_reference(tables(real, real, owners), owners, PATIENTS, 300)
    copies = find_copies(tables([rows[[194, 195, 196, 1, 150]] for rows in real], real), reference)
    assert set(copies.patients.tolist()) == {194, 195, 196, 1, 150}
    apart = in_both_roles(reference.person, member)
    assert np.flatnonzero(apart).tolist() == [*range(6), *range(194, 200)]
    told = without(copies, apart)
    assert told.patients.tolist() == [150]
    assert told.of(member) == 0
    same_bytes = without(with_equal(copies, [(3, 1)]), apart)
    assert set(zip(same_bytes.rows.tolist(), same_bytes.patients.tolist(), strict=True)) == {(3, 1), (4, 150)}


LATENT = 8


def dependent(seed, output=300):
    """Twelve spaces that all show the same eight numbers of each patient, a little curved and noisy."""
    rng = np.random.default_rng(seed)
    shown = [rng.normal(size=(n, LATENT)) for n in (PATIENTS, output)]
    real, made = [], []
    for _ in range(12):
        weights = rng.normal(size=(LATENT, 16))
        for rows, kept in zip(shown, (real, made), strict=True):
            kept.append((np.tanh(rows @ weights / 3) + 0.02 * rng.normal(size=(len(rows), 16))).astype(np.float32))
    return real, made


def test_spaces_that_show_the_same_call_no_honest_image_a_copy():
    """The promise is one of a hundred sets; pairs of strangers are joined in one of twenty at most."""
    owners, copied, joined, sets = np.arange(PATIENTS), 0, 0, 30
    for seed in range(sets):
        real, made = dependent(seed)
        reference = learn_reference(tables(real, real, owners), owners, PATIENTS, 300)
        copied += bool(len(find_copies(tables(made, real), reference).rows))
        joined += bool(reference.twins)
    assert copied <= binomial_tail_bound(sets, LEVEL)
    assert joined <= binomial_tail_bound(sets, 0.05)
