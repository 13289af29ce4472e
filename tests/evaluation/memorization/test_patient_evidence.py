"""A tenth of the members in a tenth of the output: the list of patients shows it, and stays exact."""

import numpy as np
import pytest

from fedsynth.evaluation.bootstrap import binomial_tail_bound
from fedsynth.evaluation.memorization.dependence import AVOIDS, LEVEL, dependence_of
from fedsynth.evaluation.memorization.patient_evidence import PatientEvidence, patient_evidence, patient_statistics
from fedsynth.evaluation.memorization.replication import learn_reference
from fedsynth.evaluation.nearest_neighbours import patient_distances
from tests.evaluation.memorization.patients import cohort

PATIENTS, SPACES, WIDTH, OUTPUT = 200, 5, 16, 300


def test_statistics_by_hand():
    """Of ten patients the first three in the list are members: all three of a head of three, where 1.5 are expected."""
    scores = np.arange(10, 0, -1.0)
    members = np.isin(np.arange(10), [0, 1, 2, 8, 9])
    evidence = PatientEvidence(highest=scores, total=scores[::-1], registered=np.zeros(10))
    values, names = patient_statistics(evidence, np.stack([members, ~members]))
    assert len(names) == values.shape[1] == 3
    assert values[:, 0] == pytest.approx([1.5 / np.sqrt(3 * 0.25), -1.5 / np.sqrt(3 * 0.25)])
    assert values[0, 1] == pytest.approx(np.log(10 / np.array([1, 2, 3, 9, 10])).sum())
    assert values[0, 2] == pytest.approx(0.5 / np.sqrt(3 * 0.25))  # from behind: two members among the first three


def judged(seed, leaked, permutations=199):
    """One image of each patient; `leaked` members' faces three times each, in spaces that each show them badly."""
    rng = np.random.default_rng([seed, leaked])
    people = cohort(PATIENTS // 2, PATIENTS // 2, seed=seed)
    real = rng.normal(size=(SPACES, PATIENTS, WIDTH)).astype(np.float32)
    made = rng.normal(size=(SPACES, OUTPUT, WIDTH))
    chosen = np.repeat(rng.permutation(np.flatnonzero(people.member))[:leaked], 3)
    made[:, : len(chosen)] = 0.7 * real[:, chosen] + 0.7 * made[:, : len(chosen)]
    owners = np.arange(PATIENTS)
    spaces = [f"{number}" for number in range(SPACES)]
    among = {s: patient_distances(r, r, owners, 16, exclude=owners) for s, r in zip(spaces, real, strict=True)}
    made = made.astype(np.float32)
    output = {s: patient_distances(m, r, owners, 64) for s, m, r in zip(spaces, made, real, strict=True)}
    reference = learn_reference(among, owners, PATIENTS, OUTPUT)
    evidence = patient_evidence(output, reference, PATIENTS)
    given = {"seed": seed, "permutations": permutations}
    whole = {space: output[space] for space in spaces[:2]}
    return [dependence_of(whole, reference.floors, people, evidence=one, **given) for one in (None, evidence)]


def test_a_tenth_of_the_members_in_a_tenth_of_the_output():
    found = [judged(seed, leaked=10) for seed in range(12)]
    before, now = (sum(pair[number].rejects for pair in found) for number in range(2))
    assert now >= 10 > 6 >= before


def test_honest_output_rejects_no_more_often_than_the_level():
    rejected = sum(judged(seed, leaked=0)[1].rejects for seed in range(30))
    assert rejected <= binomial_tail_bound(30, LEVEL + AVOIDS)


def test_one_space_or_two_are_not_added_up():
    rows = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    owners = np.arange(40)
    table = patient_distances(rows, rows, owners, 8, exclude=owners)
    two = {"a": table, "b": table}
    assert patient_evidence(two, learn_reference(two, owners, 40, 100), 40) is None
