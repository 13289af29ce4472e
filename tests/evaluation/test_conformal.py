"""Conformal p-values: by hand, valid under the null, and never finer than their resolution."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.evaluation.multiple_testing import conformal_p, resolution_limit, smallest_p


def test_by_hand():
    assert conformal_p(np.array([0.0, 2, 5]), np.array([3.0, 1, 2, 2])) == pytest.approx([1, 4 / 5, 1 / 5])
    assert conformal_p(np.array([1.0]), np.array([])) == pytest.approx([1])


def test_not_a_number_is_refused():
    with pytest.raises(ValueError):
        conformal_p(np.array([np.nan]), np.zeros(3))


def test_valid_under_the_null():
    rng = np.random.default_rng(0)
    p = np.array([conformal_p(rng.normal(size=1), rng.normal(size=39))[0] for _ in range(4000)])
    for alpha in (0.025, 0.05, 0.1):
        assert abs((p <= alpha + 1e-9).sum() - alpha * 4000) < 4 * np.sqrt(4000 * alpha)


def test_two_hundred_holdout_patients_resolve_a_tenth():
    """The published limit: with 200 holdout patients, 10 % of the images must be copies before any is flagged."""
    assert resolution_limit(200, 0.05) == pytest.approx(0.0995, abs=1e-4)
    calibration = np.arange(200.0)
    for share, flagged in ((0.09, 0), (0.11, 110)):
        scores = np.where(np.arange(1000) < 1000 * share, 1e6, -1.0)
        assert (stats.false_discovery_control(conformal_p(scores, calibration)) <= 0.05).sum() == flagged


def test_the_smallest_p_is_reached():
    assert conformal_p(np.array([9.0]), np.zeros(19))[0] == pytest.approx(smallest_p(19)) == 0.05
    assert stats.false_discovery_control([smallest_p(19)]) == pytest.approx([0.05])
