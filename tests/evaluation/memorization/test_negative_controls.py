"""Controls: silent on honest data, and tripped by what they are there for."""

import numpy as np
import pytest

from fedsynth.evaluation.blind_baseline import blind_baseline
from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization import negative_controls
from fedsynth.evaluation.memorization.negative_controls import Control, Shown, all_hold, broken, halves_of_holdout
from fedsynth.evaluation.nearest_neighbours import patient_distances

N, IMAGES = 60, 2


@pytest.fixture(scope="module")
def cohort():
    site = np.arange(N) % 2
    member = np.isin(np.arange(N), np.random.default_rng(1).permutation(N)[: N // 2])
    names = tuple(f"p{number:03d}" for number in range(N))
    return Cohort(names=names, member=member, stratum=site, site=site, sites=("a", "b"))


@pytest.fixture(scope="module")
def world():
    rng = np.random.default_rng(0)
    people = np.repeat(rng.normal(size=(N, 12)), IMAGES, axis=0)
    real = (people + rng.normal(size=people.shape)).astype(np.float32)
    owners = np.repeat(np.arange(N), IMAGES)
    return real, owners, patient_distances(real, real, owners, N, exclude=owners)


def test_honest_controls_hold(cohort, world):
    real, owners, apart = world
    synthetic = np.random.default_rng(3).normal(size=(150, 12)).astype(np.float32) * 1.4
    table = {"x": patient_distances(synthetic, real, owners, N)}
    floors = {"x": 1e-3}
    found = [
        halves_of_holdout(
            "halves",
            {"x": apart},
            Shown(tables={"x": apart}, owners=owners),
            owners,
            cohort,
            person=np.arange(N),
            seed=0,
            repeats=10,
        ),
        negative_controls.shuffled_roles(table, floors, cohort, seed=0, repeats=10),
        negative_controls.split_among_members(table, floors, cohort, seed=0, repeats=10),
    ]
    assert [control.runs for control in found] == [10, 10, 10]
    assert all(control.holds for control in found)
    assert all(control.allowed == 4 for control in found)  # 99.9 % of binomial(10, 0.05)


def test_a_leaking_set_does_not_break_the_controls_that_are_given_it(cohort, world):
    real, owners, _ = world
    members = np.flatnonzero(cohort.member[owners])
    table = {"x": patient_distances(real[members] + 0.01, real, owners, N)}
    for control in (negative_controls.shuffled_roles, negative_controls.split_among_members):
        assert control(table, {"x": 1e-3}, cohort, seed=0, repeats=10).holds


def test_an_output_that_was_copied_out_of_sight_of_the_thresholds_breaks_the_control(cohort, world):
    real, owners, apart = world
    stolen = patient_distances(real + 0.01, real[::-1].copy(), (owners + 7)[::-1] % N, N)  # everybody is somebody else
    shown = Shown(tables={"x": stolen}, owners=owners)
    found = halves_of_holdout("halves", {"x": apart}, shown, owners, cohort, person=np.arange(N), seed=0, repeats=10)
    assert not found.holds
    assert "rejected in" in next(broken({"halves": found}, blind_baseline(_means(real), cohort, seed=0)))


def _means(real):
    return real.reshape(N, IMAGES, -1).mean(axis=1)


def test_the_blind_baseline_trips_on_a_holdout_from_another_scanner_and_on_nothing_else(cohort, world):
    real = _means(world[0])
    same = blind_baseline(real, cohort, seed=0)
    assert all_hold({}, same)
    assert not list(broken({}, same))
    shifted = real + 1.5 * (~cohort.member)[:, None] * (np.arange(12) < 3)
    found = blind_baseline(real, cohort, seed=0, features={"y": shifted})
    assert not all_hold({}, found)
    assert "in the space y" in "".join(broken({}, found))


def test_a_control_is_broken_beyond_its_bound_only():
    assert Control(name="x", fired=5, runs=20, allowed=5).holds
    assert not Control(name="x", fired=6, runs=20, allowed=5).holds


def test_a_holdout_of_one_patient_breaks_nothing(world):
    """Half of him is nobody: such a repetition has nothing to pass off."""
    _, owners, apart = world
    alone = np.arange(N) != 17
    people = Cohort(names=tuple(map(str, range(N))), member=alone, stratum=np.zeros(N), site=np.zeros(N, int))
    shown = Shown(tables={"x": apart}, owners=owners)
    control = halves_of_holdout("halves", {"x": apart}, shown, owners, people, person=np.arange(N), seed=0, repeats=10)
    assert 0 < control.runs < 10  # only what was held counts as silent
    assert control.holds
