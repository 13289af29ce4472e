"""Whitening is the same everywhere; a tilt moves the mean to its target and rests on enough pseudo-patients."""

import numpy as np
import pytest

from fedsynth.models.moment_matching import (
    EFFECTIVE,
    Target,
    clipped,
    effective_share,
    fitted_weights,
    resample,
    tilt,
    whiten,
)

LENGTHS = [4, 6]


def pool(n: int = 400) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 10)) @ rng.normal(size=(10, 10)) + 3


def test_whitened_vectors_are_centred_with_one_deviation_and_most_lie_within_the_radius() -> None:
    found = whiten(pool(), LENGTHS, 5)
    vectors = found(pool())
    assert vectors.shape == (400, 5)
    assert vectors.mean(0) == pytest.approx(np.zeros(5), abs=1e-9)
    assert np.cov(vectors.T, bias=True) * found.radius**2 == pytest.approx(np.eye(5), abs=1e-9)
    assert (np.linalg.norm(vectors, axis=1) <= 1).mean() == pytest.approx(0.6, abs=0.01)
    again = whiten(pool(), LENGTHS, 5)
    assert np.array_equal(found.axes, again.axes)


def test_axes_have_no_sign_of_their_own_and_there_are_no_more_than_the_pool_supports() -> None:
    found = whiten(pool(), LENGTHS, 10)
    mirrored = whiten(pool()[::-1], LENGTHS, 10)
    assert found.axes == pytest.approx(mirrored.axes, abs=1e-8)
    assert whiten(pool(12), LENGTHS, 10).axes.shape == (10, 3)
    constant = np.concatenate([pool()[:, :4], np.ones((400, 6))], 1)
    assert whiten(constant, LENGTHS, 10).axes.shape == (10, 4)


def test_clipping_by_hand() -> None:
    assert clipped(np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])) == pytest.approx(
        np.array([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    )


def test_a_tilt_reaches_its_target_and_a_ridge_holds_it_back() -> None:
    vectors = np.random.default_rng(1).normal(size=(500, 3))
    base, target = np.full(500, 1 / 500), np.array([0.5, -0.2, 0.0])
    weights = tilt(vectors, base, target, 1e-6)
    assert weights.sum() == pytest.approx(1)
    assert weights @ vectors == pytest.approx(target, abs=1e-3)
    held = tilt(vectors, base, target, 2.0) @ vectors
    assert 0 < held @ target < target @ target
    assert tilt(vectors, base, base @ vectors, 0.01) == pytest.approx(base)


def test_base_weights_are_what_a_tilt_departs_from() -> None:
    vectors = np.array([[0.0], [0.0], [1.0]])
    weights = tilt(vectors, np.array([0.4, 0.2, 0.4]), np.array([0.5]), 1e-9)
    assert weights == pytest.approx([1 / 3, 1 / 6, 1 / 2], abs=1e-4)


def test_effective_shares_by_hand() -> None:
    strata = np.array([0, 0, 1, 1])
    assert effective_share(np.full(4, 0.25), strata) == pytest.approx(1)
    assert effective_share(np.array([0.25, 0.25, 0.5, 0.0]), strata) == pytest.approx(0.5)


@pytest.mark.parametrize("far", [0.3, 0.95])
def test_the_floor_holds_in_every_stratum_however_far_the_target(far: float) -> None:
    rng = np.random.default_rng(2)
    vectors, strata = rng.normal(size=(300, 4)) / 2, np.arange(300) % 3
    target = Target(mean=np.array([far, 0, 0, 0]), variance=0.0, radius=2.0)
    weights = fitted_weights(vectors, np.full(300, 1 / 300), strata, target)
    assert effective_share(weights, strata) >= EFFECTIVE
    reached = weights @ clipped(vectors)
    assert reached[0] > 0.8 * min(far, 0.3)  # the floor holds it back from a target far away
    assert np.abs(reached[1:]).max() < 0.2


def test_children_come_evenly_from_strata_which_keep_their_shares() -> None:
    weights, strata = np.array([0.1, 0.2, 0.7, 0.0]), np.array([5, 5, 7, 7])
    parents, base = resample(weights, strata, 101, np.random.default_rng(0))
    assert np.bincount(strata[parents])[[5, 7]].tolist() == [51, 50]
    assert set(parents) == {0, 1, 2}
    assert base[strata[parents] == 5].sum() == pytest.approx(0.3)
    assert base.sum() == pytest.approx(1)
