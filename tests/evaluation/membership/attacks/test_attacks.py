"""Every attack by hand or against a slow oracle, blind to roles, and stronger on copies than on honest sets."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

from fedsynth.evaluation.membership.attacks import Targets, attack_by_density, attack_by_distance
from fedsynth.evaluation.membership.attacks.density import Whitening, _against_patients, _against_release
from fedsynth.evaluation.roc import auc
from tests.evaluation.memorization.patients import cohort, features


def line(released: list[list[bool]]) -> Targets:
    """Four patients on a line, the first with two images."""
    return Targets(
        features=np.array([[0], [1], [10], [14], [40]], np.float32),
        patients=np.array([0, 0, 1, 2, 3]),
        n_patients=4,
        released=np.array(released, bool),
    )


def test_distances_by_hand() -> None:
    found = attack_by_distance(line([[False, False, True, False]]), np.array([[2], [15]], np.float32))
    # to the release: 2, 1, 5 (15), 1, 25; to the nearest other patient: 10, 9, 4, 4, 26
    assert found["distance"].scores == pytest.approx([-np.log(2) / 2, -np.log(5), 0, -np.log(25)])
    expected = [np.log([10 / 2, 9]).mean(), np.log(4 / 5), np.log(4), np.log(26 / 25)]
    assert found["calibrated"].scores == pytest.approx(expected)
    # with patient 2 (at 14) released: distances 14, 13, 4, -, 26; to the others 10, 9, 9, -, 30
    honest = found["calibrated"].honest[0]
    assert np.isnan(honest[2])
    assert honest[[0, 1, 3]] == pytest.approx([np.log([10 / 14, 9 / 13]).mean(), np.log(9 / 4), np.log(30 / 26)])


def test_a_reference_set_calibrates_instead_of_other_patients() -> None:
    targets, release = line([[False] * 4]), np.array([[2], [15]], np.float32)
    found = attack_by_distance(targets, release, reference=np.array([[7]], np.float32))
    assert found["calibrated"].scores[2] == pytest.approx(np.log(7 / 1))


def test_an_exact_copy_is_no_infinity() -> None:
    found = attack_by_distance(line([[False] * 4]), np.array([[14.0]], np.float32))
    assert np.isfinite(found["distance"].scores).all()
    assert np.argmax(found["calibrated"].scores) == 2


def test_constant_features_single_out_nobody() -> None:
    flat = replace(line([[False, True, False, False]]), features=np.zeros((5, 1), np.float32))
    found = attack_by_distance(flat, np.zeros((2, 1), np.float32)) | attack_by_density(flat, flat.features, seed=0)
    for attacked in found.values():
        assert np.ptp(attacked.scores) == pytest.approx(0)


def test_what_was_released_is_found_mirrored() -> None:
    rows = np.array([[1, 2], [5, 1], [3, 9]], np.float32)
    targets = Targets(
        features=rows,
        patients=np.arange(3),
        n_patients=3,
        released=np.zeros((1, 3), bool),
        turned=lambda: [rows[:, ::-1].copy()],
    )
    found = attack_by_distance(targets, np.array([[1, 5]], np.float32))
    assert np.argmax(found["distance"].scores) == 1


def test_densities_against_a_slow_oracle() -> None:
    rows, patients, _ = features(9, 2, seed=1, width=3)
    released = np.zeros((2, 9), bool)
    released[0, [1, 4]] = released[1, [2, 7, 8]] = True
    targets = Targets(features=rows, patients=patients, n_patients=9, released=released)
    made, width, epsilon = features(6, 1, seed=2, width=3)[0], 0.6, 1.2

    def log_density(at: int, among: np.ndarray) -> float:
        return float(logsumexp(-np.square(among - rows[at]).sum(axis=1) / (2 * width**2)) - np.log(len(among)))

    density, near = _against_release(targets, made, width, epsilon)
    assert density == pytest.approx([log_density(i, made) for i in range(18)], abs=1e-4)
    assert near == pytest.approx([np.mean(np.linalg.norm(made - row, axis=1) <= epsilon) for row in rows])
    own, ratio, share = _against_patients(targets, width, np.array([epsilon, epsilon]))
    assert own == pytest.approx([log_density(i, rows[patients != patients[i]]) for i in range(18)], abs=1e-4)
    for half in range(2):
        out = released[half, patients]
        for i in np.flatnonzero(~out):
            rest = rows[~out & (patients != patients[i])]
            assert ratio[half, i] == pytest.approx(log_density(i, rows[out]) - log_density(i, rest), abs=1e-4)
            inside = np.linalg.norm(rows[out] - rows[i], axis=1) <= epsilon
            assert share[half, i] == pytest.approx(inside.mean())


def test_whitening_gives_unit_variance_in_at_most_32_dimensions() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 50)) * np.arange(1, 51) + 7
    made = Whitening.fit(rows, seed=0)(rows)
    assert made.shape == (300, 32)
    assert np.cov(made.T) == pytest.approx(np.eye(32), abs=1e-3)
    assert Whitening.fit(np.ones((9, 4)), seed=0)(np.ones((5, 4))).shape == (5, 1)


@pytest.mark.parametrize("kind", ["copies", "honest"])
def test_copies_raise_every_auc(kind: str) -> None:
    patients = cohort(60, 60, seed=4)
    rows, of, _ = features(120, 3, seed=4)
    made = features(200, 1, seed=5)[0]
    if kind == "copies":
        members = np.flatnonzero(patients.member)
        made[:30] = rows[3 * members[:30]] + 0.05 * np.random.default_rng(0).normal(size=(30, 16))
    released = np.zeros((1, 120), bool)
    released[0, np.flatnonzero(~patients.member)[:30]] = True
    targets = Targets(features=rows, patients=of, n_patients=120, released=released)
    found = attack_by_distance(targets, made) | attack_by_density(targets, made, seed=0)
    assert set(found) == {"distance", "calibrated", "density", "monte_carlo"}
    for name, attacked in found.items():
        reached = auc(attacked.scores, patients.member)
        asked = ~released[0]
        honest = auc(attacked.honest[0][asked], patients.member[asked])
        assert 0.3 < honest < 0.7, name
        if kind == "honest":
            assert 0.35 < reached < 0.65, name
        elif name in ("calibrated", "density"):
            assert reached > 0.7, name
        else:
            assert reached > 0.5, name
