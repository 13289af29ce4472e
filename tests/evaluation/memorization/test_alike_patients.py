"""Two patients who are alike, as siblings or one person under two names, must not void an honest report."""

import numpy as np
import pytest

from fedsynth.evaluation.memorization.negative_controls import Shown, halves_of_holdout
from fedsynth.evaluation.memorization.ratios import nearest_two
from fedsynth.evaluation.memorization.replication import find_copies, learn_reference
from fedsynth.evaluation.nearest_neighbours import PatientDistances, patient_distances
from tests.evaluation.memorization.patients import cohort, features


def halves(rows: np.ndarray, owners: np.ndarray, people, *, seed: int, shown: PatientDistances | None = None):
    table = patient_distances(rows, rows, owners, len(people), exclude=owners)
    output = Shown(tables={"one": table if shown is None else shown}, owners=owners)
    person = learn_reference({"one": table}, owners, len(people), 100).person
    return halves_of_holdout("halves", {"one": table}, output, owners, people, person=person, seed=seed, repeats=20)


@pytest.mark.parametrize("seed", range(4))
def test_a_pair_counts_once(seed):
    people = cohort(40, 40, seed=seed)
    rows, owners, _ = features(80, 4, seed=seed)
    noise = np.random.default_rng(seed).normal(size=(4, rows.shape[1])).astype(np.float32)
    rows[owners == 1] = rows[owners == 0] + 0.2 * noise
    control = halves(rows, owners, people, seed=seed)
    assert control.holds, f"{control.fired} of {control.runs}"


@pytest.mark.parametrize("seed", range(4))
def test_persons_in_both_roles_count_as_no_copies_here_either(seed):
    """Twelve doubles are joined to one person each: where a half puts the two on both sides, roles decide nothing."""
    people = cohort(80, 80, seed=seed)
    rows, owners, _ = features(160, 3, seed=seed)
    rng = np.random.default_rng(seed)
    for one in range(0, 24, 2):
        noise = rng.normal(size=(3, rows.shape[1])).astype(np.float32)
        rows[owners == one + 1] = rows[owners == one] + 0.2 * noise
    assert halves(rows, owners, people, seed=seed).fired <= 2  # four to eight where pairs count, each once


def test_many_pairs_still_trip_the_control():
    """Everybody in the holdout passed off as nearly somebody else: no half of it can be taken for honest."""
    people = cohort(40, 40, seed=9)
    rows, owners, _ = features(80, 4, seed=9)
    moved = rows[np.roll(np.arange(len(rows)), 4)] + 0.01
    table = patient_distances(moved.astype(np.float32), rows, owners, len(people), exclude=owners)
    assert not halves(rows, owners, people, seed=9, shown=table).holds


@pytest.mark.parametrize("pairs", [0, 1, 4, 8])
def test_pairs_do_not_hide_each_other_and_copies_are_still_found(pairs):
    """One person under two names, eight times: left in, their ratios would be the smallest, and no copy below them."""
    people, rng = 120, np.random.default_rng(3)
    rows, owners, _ = features(people, 3, seed=3)
    for one in range(0, 2 * pairs, 2):
        rows[owners == one + 1] = rows[owners == one] + 0.1 * rng.normal(size=(3, rows.shape[1]))
    apart = patient_distances(rows, rows, owners, people, exclude=owners)
    reference = learn_reference({"one": apart}, owners, people, 700)
    assert reference.twins == tuple((one, one + 1) for one in range(0, 2 * pairs, 2))
    copied = rows[-60:] + 0.05 * rng.normal(size=(60, rows.shape[1])).astype(np.float32)
    found = find_copies({"one": patient_distances(copied, rows, owners, people)}, reference)
    assert len(found.rows) == 60


@pytest.mark.parametrize(("entries", "depth"), [(3, 8), (5, 8), (9, 16)])
def test_a_person_with_many_entries_hides_no_copy(entries, depth):
    """The ratio to the second nearest entry is about 1 for all of them; the gap comes after the last."""
    people, rng = 120, np.random.default_rng(entries)
    rows = rng.normal(size=(people, 16))
    rows[1:entries] = rows[0] + 0.1 * rng.normal(size=(entries - 1, 16))
    copied = (rows[[0, 60]] + 0.02 * rng.normal(size=(2, 16))).astype(np.float32)
    rows, owners = rows.astype(np.float32), np.arange(people)
    apart = patient_distances(rows, rows, owners, depth, exclude=owners)
    reference = learn_reference({"one": apart}, owners, people, 700)
    assert set(np.flatnonzero(reference.person == reference.person[0])) == set(range(entries))
    assert (reference.person[entries:] == np.arange(entries, people)).all()
    found = find_copies({"one": patient_distances(copied, rows, owners, depth)}, reference)
    assert set(found.patients.tolist()) == {0, 60}
    family = (rows[0] + 0.1 * rng.normal(size=(20, 16))).astype(np.float32)
    assert len(find_copies({"one": patient_distances(family, rows, owners, depth)}, reference).rows) <= 1


def test_a_row_that_ends_before_another_person_still_shows_the_copy():
    """Four entries of one person fill the row; the last of them stands for the next person, who is no nearer."""
    row = PatientDistances(
        distances=np.array([[1, 10, 11, 20]], np.float32), patients=np.array([[0, 1, 2, 3]], np.int32)
    )
    assert nearest_two(row, 100.0, np.zeros(4, np.int64)).ratios == pytest.approx([1 / 20])
    assert nearest_two(row, 5.0, np.zeros(4, np.int64)).ratios == pytest.approx([1 / 5])
