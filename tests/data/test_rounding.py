"""Whole numbers that keep the row sums and stay within one of every cell, group total and total."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsynth.data.split import controlled_rounding


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=25),
    columns=st.integers(1, 6),
    groups=st.integers(1, 5),
    concentration=st.sampled_from([1e-2, 1, 1e9]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=100, deadline=None)
def test_nothing_is_off_by_one_or_more(
    sizes: list[int], columns: int, groups: int, concentration: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(columns, concentration), len(sizes))
    targets = np.array(sizes)[:, None] * shares
    of_row = rng.integers(groups, size=len(sizes))
    counts = controlled_rounding(targets, of_row.tolist(), rng)
    assert (counts >= 0).all()
    assert counts.sum(axis=1).tolist() == sizes
    for rows in [*np.eye(len(sizes), dtype=bool), *(of_row == group for group in range(groups)), of_row >= 0]:
        wanted, found = targets[rows].sum(axis=0), counts[rows].sum(axis=0)
        assert (np.floor(wanted + 1e-6) <= found).all()
        assert (found <= np.ceil(wanted - 1e-6)).all()


def test_whole_targets_stay() -> None:
    targets = np.array([[2.0, 1.0], [0.0, 4.0]])
    assert controlled_rounding(targets, ["a", "b"], np.random.default_rng(0)).tolist() == [[2, 1], [0, 4]]


def test_the_nearest_table_is_chosen() -> None:
    targets = np.array([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    assert controlled_rounding(targets, "aaa", np.random.default_rng(0)).tolist() == [[1, 0], [0, 1], [1, 0]]


def test_near_totals_come_before_near_cells() -> None:
    """Every cell alone would go to the first column: 3 of 3 where 1.8 are due."""
    counts = controlled_rounding(np.tile([0.6, 0.4], (3, 1)), "aaa", np.random.default_rng(0))
    assert counts.sum(axis=0).tolist() == [2, 1]


def test_ties_are_broken_by_the_generator_alone() -> None:
    targets = np.full((4, 2), 0.5)
    drawn = {tuple(controlled_rounding(targets, "aabb", np.random.default_rng(seed))[:, 0]) for seed in range(40)}
    assert drawn == {(1, 0, 1, 0), (1, 0, 0, 1), (0, 1, 1, 0), (0, 1, 0, 1)}


@pytest.mark.parametrize("rows", [1, 400])
def test_small_and_large_tables(rows: int) -> None:
    targets = np.tile([1.5, 1.2, 0.3], (rows, 1))
    counts = controlled_rounding(targets, list(range(rows)), np.random.default_rng(0))
    assert np.abs(counts.sum(axis=0) - targets.sum(axis=0)).max() < 1
