"""Comparators: their definitions by hand, their published nulls, and that honest blur misleads them as documented."""

from dataclasses import replace

import numpy as np
import pytest

from fedsynth.evaluation.memorization.comparators import COMPARATORS, RealAndSynthetic, compare, compare_spaces
from fedsynth.evaluation.memorization.comparators.measures import (
    Standardised,
    ThreeSample,
    adaptive_extraction,
    authenticity,
    closer_to_members,
    distance_ratio,
    largest_correlation,
    mann_whitney_z,
    patients_memorized,
    ratio_below_third,
    samples_copies,
    share_of_members,
)
from fedsynth.evaluation.nearest_neighbours import nearest


def cohort(
    seed: int, *, members: int = 200, holdout: int = 200, images: int = 3, synthetic: int = 600, width: int = 32
) -> RealAndSynthetic:
    """Patients of one Gaussian population with `images` each, and an honest synthetic set: images of other patients."""
    rng = np.random.default_rng(seed)

    def drawn(patients: int, each: int) -> np.ndarray:
        own = rng.normal(size=(patients, 1, width)) * np.sqrt(0.5)
        return (own + rng.normal(size=(patients, each, width)) * np.sqrt(0.5)).reshape(-1, width).astype(np.float32)

    return RealAndSynthetic(
        members=drawn(members, images),
        member_patients=np.repeat(np.arange(members), images),
        holdout=drawn(holdout, images),
        holdout_patients=np.repeat(np.arange(members, members + holdout), images),
        synthetic=drawn(synthetic, 1),
    )


def line(members: list[float], holdout: list[float], synthetic: list[float]) -> RealAndSynthetic:
    """One image per patient, on a line."""
    return RealAndSynthetic(
        members=np.array(members, np.float32)[:, None],
        member_patients=np.arange(len(members)),
        holdout=np.array(holdout, np.float32)[:, None],
        holdout_patients=np.arange(len(holdout)) + len(members),
        synthetic=np.array(synthetic, np.float32)[:, None],
    )


def with_copies(sets: RealAndSynthetic, rows: list[int], noise: float = 0.0) -> RealAndSynthetic:
    """The first synthetic images replaced by the members' images `rows`."""
    synthetic = sets.synthetic.copy()
    synthetic[: len(rows)] = sets.members[rows]
    synthetic[: len(rows)] += noise * np.random.default_rng(9).normal(size=(len(rows), synthetic.shape[1]))
    return replace(sets, synthetic=synthetic)


def test_distances_by_hand() -> None:
    sets = line(members=[0, 10, 14], holdout=[4, 30], synthetic=[1, 9, 20])
    # nearest members: 0 at 1 (its nearest other lies 10 away), 10 at 1 (4 away), 14 at 6 (4 away)
    assert list(authenticity(sets).values) == [0, 0, 1]
    # nearest holdout images lie at 3, 5 and 10
    assert list(closer_to_members(sets).values) == [1, 1, 1]
    assert share_of_members(sets) == 3 / 5
    assert distance_ratio(sets).values == pytest.approx([1 / 9, 1 / 5, 6 / 10])
    assert list(ratio_below_third(sets).values) == [1, 1, 0]
    # mean distances to all three members: 23/3, 15/3, 36/3
    assert list(adaptive_extraction(sets).values) == [1, 1, 0]
    assert list(closer_to_members(sets).patients) == [0, 1, 2]
    assert list(closer_to_members(line([0], [2], [1])).values) == [0.5]


def test_the_second_nearest_is_another_patient() -> None:
    """A patient with two alike slices must not hide a copy: the image ratio would be 1, the patient ratio is 0.1."""
    sets = replace(line([0, 2, 11], [20], [1]), member_patients=np.array([0, 0, 1]))
    assert distance_ratio(sets).values == pytest.approx([0.1])


def test_copies_of_two_patients_alike_in_distance_are_not_divided_by_zero() -> None:
    assert list(distance_ratio(line([5, 5, 9], [20], [5])).values) == [1]


@pytest.mark.parametrize("copied", [1, 5, 600])
def test_nothing_but_copies_is_never_authentic(copied: int) -> None:
    """The golden value of leakage.md: shipped code calls copies of five images 96 % authentic."""
    sets = cohort(0)
    copies = replace(sets, synthetic=np.resize(sets.members[:copied], (600, 32)))
    assert authenticity(copies).values.mean() == 0
    assert distance_ratio(copies).values.mean() < 1e-3


@pytest.mark.parametrize(("holdout", "expected"), [(200, 0.5), (100, 2 / 3)])
def test_the_share_closer_to_members_depends_on_the_size_of_the_holdout(holdout: int, expected: float) -> None:
    values = [closer_to_members(cohort(seed, holdout=holdout, width=8)).values.mean() for seed in range(15)]
    assert np.mean(values) == pytest.approx(expected, abs=0.02)
    assert share_of_members(cohort(0, holdout=holdout, width=8)) == pytest.approx(expected)


def test_honest_blur_lowers_authenticity_and_c_t_more_than_copies_do() -> None:
    """Table 1a of leakage.md, why none of these decides."""
    honest = cohort(3)
    blurred = replace(honest, synthetic=honest.synthetic * np.float32(0.7))
    copies = with_copies(honest, list(range(0, 90, 3)))
    found = {
        name: (authenticity(sets).values.mean(), ThreeSample.of(sets).statistic())
        for name, sets in (("honest", honest), ("blurred", blurred), ("copies", copies))
    }
    assert found["blurred"][0] < found["copies"][0] - 0.1 < found["honest"][0] - 0.1
    assert found["blurred"][1] < -8 < found["copies"][1]
    assert abs(found["honest"][1]) < 2.5


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_the_adaptive_rule_finds_copies_and_none_in_honest_blur(noise: float) -> None:
    honest = cohort(4)
    for sets in (honest, replace(honest, synthetic=honest.synthetic * np.float32(0.7))):
        assert adaptive_extraction(sets).values.sum() == 0
        assert ratio_below_third(sets).values.sum() == 0
    copies = with_copies(honest, [0, 30, 60, 90, 120, 150], noise)
    assert list(np.flatnonzero(adaptive_extraction(copies).values)) == [0, 1, 2, 3, 4, 5]
    assert list(np.flatnonzero(ratio_below_third(copies).values)) == [0, 1, 2, 3, 4, 5]


def test_mann_whitney_by_hand() -> None:
    # of the six pairs 1 > none, 3 > 2, so U = 1 + 0.5 for the tie at 4; mean 3, without ties sd = sqrt(6 * 6 / 12)
    assert mann_whitney_z(np.array([1.0, 3.0]), np.array([2.0, 4.0, 5.0])) == pytest.approx(-2 / np.sqrt(3))
    # ranks 1, 2.5, 2.5, 4: one tie of two takes (8 - 2) / (4 * 3) from n + 1 = 5
    assert mann_whitney_z(np.array([1.0, 2.0]), np.array([2.0, 3.0])) == pytest.approx(-1.5 / np.sqrt(4 / 12 * 4.5))
    assert mann_whitney_z(np.zeros(3), np.zeros(4)) == 0


@pytest.mark.parametrize("cells", [1, 3])
def test_c_t_has_the_null_that_its_definition_gives(cells: int) -> None:
    """Independent images: mean 0, variance the sum of the squared weights; that is 1 for a single cell."""
    values, variances = [], []
    for seed in range(70):
        sets = cohort(seed, members=60, holdout=150, images=1, synthetic=150, width=4)
        test = ThreeSample.of(sets, cells=cells)
        counts = np.bincount(test.holdout_cells)
        values.append(test.statistic())
        variances.append(float(np.square(counts / counts.sum()).sum()))
    scaled = np.array(values) / np.sqrt(variances)
    assert abs(scaled.mean()) < 3 / np.sqrt(70)
    assert 0.75 < scaled.std() < 1.25
    assert (np.mean(variances) == 1) == (cells == 1)


def test_c_t_without_a_cell_that_counts_says_so() -> None:
    sets = cohort(0, members=10, holdout=10, synthetic=6)
    assert compare(sets, seed=0, only=["c_t"])["c_t"].value is None


def test_correlations_are_pearsons_and_constant_rows_correlate_with_nothing() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 20)) + 50, rng.normal(size=(5, 20))
    first[2], second[3] = 7, 3
    distances, _ = nearest(Standardised(first, side=0), Standardised(second, side=1), 5)
    assert distances[2] == pytest.approx(np.full(5, np.sqrt(2)), abs=1e-6)
    varied = [row for row in range(6) if row != 2]
    expected = [max(np.corrcoef(first[row], other)[0, 1] for other in np.delete(second, 3, 0)) for row in varied]
    assert 1 - distances[varied, 0] ** 2 / 2 == pytest.approx(np.maximum(expected, 0), abs=1e-5)


def test_correlation_comparators_see_copies_of_another_contrast() -> None:
    sets = cohort(5, synthetic=200)
    copies = sets.synthetic.copy()
    copies[:10] = 0.5 * sets.members[0:30:3] + 2
    copied = replace(sets, synthetic=copies)
    assert largest_correlation(copied).values[:10] == pytest.approx(np.ones(10), abs=1e-5)
    assert samples_copies(copied).values[:10].all()
    assert patients_memorized(copied).values[:10].all()
    assert len(patients_memorized(copied).values) == 200


def test_dars_threshold_calls_a_twentieth_of_an_honest_set_copies() -> None:
    found = [samples_copies(cohort(seed, width=16)).values.mean() for seed in range(8)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.02)


def test_every_comparator_stands_beside_its_null() -> None:
    sets = with_copies(cohort(6), list(range(60)))
    scores = compare(sets, seed=1, repeats=50)
    assert set(scores) == set(COMPARATORS)
    for name, score in scores.items():
        assert score.value is not None, name
        assert score.control is not None, name
        assert score.low is not None, name
        assert score.high is not None, name
        assert score.low <= score.value <= score.high, name
    assert scores["adaptive_extraction"].value == pytest.approx(0.1)
    assert scores["adaptive_extraction"].control == 0
    assert scores["closer_to_members"].baseline == 0.5
    assert scores["closer_to_members"].control == pytest.approx(0.5, abs=0.08)
    assert scores["samples_copies"].control == pytest.approx(0.05, abs=0.05)
    assert compare(sets, seed=1, repeats=50) == scores


def test_spaces_get_the_comparators_that_are_customary_there() -> None:
    sets = cohort(7, members=30, holdout=30, synthetic=60)
    found = compare_spaces({"components": sets, "pixels": sets}, seed=0, repeats=0)
    assert set(found) == {"components", "pixels"}
    assert "pixel_correlation" in found["pixels"]
    assert "patients_memorized" in found["components"]  # there is no encoder
    assert sum(len(scores) for scores in found.values()) == len(COMPARATORS)


def test_one_holdout_patient_cannot_be_halved() -> None:
    sets = cohort(8, members=30, holdout=1, synthetic=60)
    scores = compare(sets, seed=0, repeats=0, only=["authenticity", "closer_to_members"])
    assert scores["authenticity"].control is not None
    assert scores["closer_to_members"].control is None
