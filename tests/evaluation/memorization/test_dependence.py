"""The permutation of roles: against a slow oracle, silent where nothing was learnt, and blind where it must be."""

import numpy as np
import pytest

from fedsynth.evaluation.cohort import Cohort
from fedsynth.evaluation.memorization.dependence import LogDistances, dependence_of, joint_p, statistics_under
from fedsynth.evaluation.nearest_neighbours import patient_distances


def cohort(n_patients, *, share=0.5, n_sites=2, seed=0, not_drawn=""):
    rng = np.random.default_rng(seed)
    site = np.arange(n_patients) % n_sites
    member = np.zeros(n_patients, bool)
    for number in range(n_sites):
        here = np.flatnonzero(site == number)
        member[rng.permutation(here)[: round(share * len(here))]] = True
    names = tuple(f"p{number:03d}" for number in range(n_patients))
    sites = tuple(f"site-{number}" for number in range(n_sites))
    return Cohort(names=names, member=member, stratum=site, site=site, sites=sites, not_drawn=not_drawn)


def features(n_patients, n_images, seed, width=16):
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.normal(size=(n_patients, width)), n_images, axis=0)
    rows = (centres + rng.normal(size=centres.shape)).astype(np.float32)
    return rows, np.repeat(np.arange(n_patients), n_images)


def p_of(people, real, patient_of, synthetic, depth=None, **settings):
    table = patient_distances(synthetic, real, patient_of, depth or len(people))
    return dependence_of({"x": table}, {"x": 1e-3}, people, seed=0, **{"permutations": 199} | settings)


def oracle(people, real, patient_of, synthetic, roles):
    """Mean and top 1 % for all patients and for each site, distance by distance."""
    found = []
    for member in roles:
        row = []
        for site in [None, *range(len(people.sites))]:
            here = np.ones(len(people), bool) if site is None else people.site == site
            ratios = []
            for image in synthetic:
                distances = np.linalg.norm(real - image, axis=1)
                to_member = distances[(member & here)[patient_of]].min()
                to_holdout = distances[(~member & here)[patient_of]].min()
                ratios.append(np.log(max(to_holdout, 1e-3)) - np.log(max(to_member, 1e-3)))
            top = np.sort(ratios)[-max(1, round(0.01 * len(ratios))) :]
            row += [np.mean(ratios), np.mean(top)]
        found.append(row)
    return np.array(found)


def test_the_statistics_are_those_of_a_slow_oracle():
    people = cohort(40)
    real, patient_of = features(40, 2, 1)
    synthetic = features(30, 1, 2)[0]
    synthetic[0] = real[3]
    roles = np.array([people.member, ~people.member, np.random.default_rng(0).permutation(people.member)])
    table = patient_distances(synthetic, real, patient_of, 40)
    values, names, sites = statistics_under(LogDistances({"x": table}, {"x": 1e-3}, people.site), people, roles)
    assert np.allclose(values, oracle(people, real, patient_of, synthetic, roles), atol=1e-4)
    assert names[:2] == ["x, mean, all sites", "x, top 1 %, all sites"]
    assert sites == [-1, -1, 0, 0, 1, 1]


def test_p_values_of_honest_sets_are_spread_evenly():
    found = []
    for seed in range(60):
        people = cohort(40, seed=seed)
        real, patient_of = features(40, 2, seed)
        found.append(p_of(people, real, patient_of, features(60, 1, 1000 + seed)[0], permutations=99).p_value)
    assert sum(p <= 0.1 for p in found) <= 14  # 99.9 % of binomial(60, 0.1)
    assert 0.35 < np.mean(found) < 0.65


def test_a_short_table_keeps_the_test_exact_in_size_and_strong():
    people = cohort(60)
    real, patient_of = features(60, 2, 1)
    honest, leaking = features(200, 1, 2)[0], features(200, 1, 2)[0]
    members = np.flatnonzero(people.member[patient_of])
    leaking[:20] = real[members[:20]] + 0.1
    assert not p_of(people, real, patient_of, honest, depth=3).rejects
    assert p_of(people, real, patient_of, leaking, depth=3).rejects


def test_copies_of_one_site_are_laid_at_its_mechanism():
    people = cohort(80)
    real, patient_of = features(80, 2, 1)
    synthetic = features(200, 1, 2)[0]
    of_site = np.flatnonzero((people.member & (people.site == 1))[patient_of])
    synthetic[:20] = real[of_site[:20]] + 0.05
    found = p_of(people, real, patient_of, synthetic)
    assert found.rejects
    assert found.per_site["site-1"] <= 0.01 < 0.1 < found.per_site["site-0"]


def test_many_copies_of_two_patients_cannot_fire_and_the_number_that_could_is_told():
    people = cohort(60, n_sites=1)
    real, patient_of = features(60, 1, 1)
    synthetic = np.repeat(real[np.flatnonzero(people.member)[:2]], 100, axis=0)
    found = p_of(people, real, patient_of, synthetic, permutations=999)
    assert found.p_value > 0.1  # both are members again in a quarter of all draws
    assert found.min_patients == 5
    enough = np.repeat(real[np.flatnonzero(people.member)[:8]], 100, axis=0)
    assert p_of(people, real, patient_of, enough, permutations=999).rejects


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_unequal_numbers_of_members_and_holdout_do_not_fire(share):
    found = []
    for seed in range(8):
        people = cohort(60, share=share, seed=seed)
        real, patient_of = features(60, 2, seed)
        found.append(p_of(people, real, patient_of, features(100, 1, 100 + seed)[0]).p_value)
    assert sum(p <= 0.04 for p in found) <= 2
    assert np.mean(found) > 0.25


def test_roles_that_were_not_drawn_are_not_tested():
    people = cohort(40, not_drawn="the roles came with the set")
    real, patient_of = features(40, 1, 1)
    found = p_of(people, real, patient_of, real[:20])
    assert found.p_value is None
    assert "drawn at random" in found.why
    assert not found.rejects


def test_too_few_patients_to_permute_are_told_in_numbers():
    people = cohort(6, n_sites=1)
    real, patient_of = features(6, 2, 1)
    found = p_of(people, real, patient_of, real)
    assert found.p_value is None
    assert "20 ways" in found.why


def test_an_output_at_one_distance_from_everybody_is_no_evidence():
    people = cohort(40)
    same = np.ones((40, 4), np.float32)
    found = p_of(people, same, np.arange(40), same[:10])
    assert found.p_value == 1


def test_a_leak_in_one_of_many_statistics_rejects_in_spite_of_ties():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(200, 60))
    assert joint_p(values) > 0.04
    values[0, :4] += 10
    assert joint_p(values) <= 0.04


def test_the_joint_p_is_the_rank_of_the_smallest_and_exact_in_size():
    assert joint_p(np.array([[1.0], [2], [0], [0]])) == 0.5
    assert joint_p(np.zeros((10, 3))) == 1
    rng = np.random.default_rng(1)
    found = np.array([joint_p(rng.normal(size=(50, 12))) for _ in range(400)])
    for alpha in (0.04, 0.2):
        assert 0.3 * alpha < (found <= alpha + 1e-9).mean() < 2 * alpha


def test_output_filtered_against_members_depends_on_them_by_keeping_away():
    people = cohort(60)
    real, patient_of = features(60, 2, 1)
    honest = features(400, 1, 2)[0]
    near = patient_distances(honest, real[people.member[patient_of]], np.arange(60), 1).distances[:, 0]
    kept = p_of(people, real, patient_of, honest[np.argsort(near)[200:]], permutations=1999)
    assert kept.p_value > 0.5, "nothing lies near a member"
    assert kept.avoidance_p <= 0.001
    assert kept.avoids
    assert kept.rejects
    assert not p_of(people, real, patient_of, honest, permutations=1999).avoids
