"""Mixtures of two: by hand, against a slow oracle, and through extraction, honest output silent."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import nnls

from fedsynth.evaluation.memorization.distance_tables import mixture_distances
from fedsynth.evaluation.memorization.replication import find_copies, learn_reference

N, IMAGES, WIDTH = 60, 2, 24


def test_by_hand():
    """(3, 4, 0) is all x and y; of the others the diagonal explains 49/3 of 25, and z nothing."""
    references = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 1], [1, 1, 1]], np.float32)
    found = mixture_distances([np.array([[3, 4, 0]], np.float32)], references, np.array([0, 1, 2, 3]), 4)
    np.testing.assert_allclose(found.distances[0, :3], [0, np.sqrt(25 - 49 / 3), 5], atol=1e-3)
    assert found.patients[0].tolist() == [1, 3, 2, -1]
    assert np.isinf(found.distances[0, 3])


def oracle(query, references, owners, depth, skip):
    """Non-negative least squares over every pair, the patients of the best taken away, and again."""
    left, found = [row for row in range(len(references)) if owners[row] != skip], []
    while left and len(found) < depth:
        pairs = [*combinations(left, 2), *((row, row) for row in left)]
        losses = [nnls(references[list(set(pair))].T.astype(float), query.astype(float))[1] for pair in pairs]
        one, other = pairs[int(np.argmin(losses))]
        found.append(min(losses))
        left = [row for row in left if owners[row] not in (owners[one], owners[other])]
    return found


@pytest.mark.parametrize("skip", [-1, 3])
def test_against_least_squares_over_every_pair(skip):
    rng = np.random.default_rng(1)
    references = rng.normal(size=(16, 6)).astype(np.float32)
    owners = np.arange(16) // 2
    queries = rng.normal(size=(12, 6)).astype(np.float32)
    found = mixture_distances([queries], references, owners, 3, np.full(12, skip))
    for row, query in enumerate(queries):
        expected = oracle(query, references, owners, 3, skip)
        np.testing.assert_allclose(found.distances[row, : len(expected)], expected, atol=2e-3)
        assert skip not in found.patients[row]


def test_the_view_that_is_explained_best_counts():
    rng = np.random.default_rng(2)
    references = rng.normal(size=(40, 12)).astype(np.float32)
    mixed = references[:10] + references[20:30]
    found = mixture_distances([-mixed, mixed], references, np.arange(40), 2)
    assert found.distances[:, 0].max() < 0.02
    assert set(found.patients[0]) & {0, 20}


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(N, WIDTH)), IMAGES, axis=0)
    real = (people + 0.5 * rng.normal(size=people.shape)).astype(np.float32)
    return real, np.repeat(np.arange(N), IMAGES)


def extracted(world, made):
    real, owners = world
    apart = {"mixtures": mixture_distances([real], real, owners, 8, owners)}
    reference = learn_reference(apart, owners, N, len(made))
    return find_copies({"mixtures": mixture_distances([made.astype(np.float32)], real, owners, 8)}, reference)


def test_means_of_two_patients_are_found_and_one_of_the_two_is_named(world):
    real, owners = world
    rng = np.random.default_rng(3)
    first, second = rng.permutation(len(real))[:40].reshape(2, 20)
    made = rng.normal(size=(200, WIDTH)) * 1.1
    made[:20] = (real[first] + real[second]) / 2 + 0.03 * rng.normal(size=(20, WIDTH))
    found = extracted(world, made)
    assert len(set(found.rows) & set(range(20))) >= 19
    assert (found.rows < 20).all()
    named = [(owners[first[row]], owners[second[row]]) for row in found.rows]
    assert all(patient in pair for patient, pair in zip(found.patients, named, strict=True))


@pytest.mark.parametrize("fidelity", [0.5, 1.0, 1.5])
def test_strangers_and_mixtures_of_strangers_are_not(world, fidelity):
    rng = np.random.default_rng(4)
    alone = rng.normal(size=(200, WIDTH)) * 1.1
    mixed = (rng.normal(size=(200, WIDTH)) + rng.normal(size=(200, WIDTH))) / 2
    assert not len(extracted(world, fidelity * alone).rows)
    assert not len(extracted(world, fidelity * mixed).rows)
