"""The picture of ROC curves: a perfect attack runs along the top, guessing stays in its band."""

import numpy as np
import pytest

from fedsynth.benchmark.leakage.curves import roc
from fedsynth.benchmark.leakage.roc_picture import BAND, _colour, _x, _y, roc_picture

MEMBERS = np.arange(200) < 120


def shown(scores: np.ndarray) -> np.ndarray:
    drawn = roc_picture({"one": roc(scores, MEMBERS)}, n_members=120, n_holdout=80, title="")
    return np.asarray(drawn)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of that colour within the axes."""
    rows, columns = np.nonzero((picture == colour).all(axis=2))
    inside = columns < _x(1, 0.01)
    return np.column_stack([rows, columns])[inside]


def test_a_perfect_attack_runs_along_the_top() -> None:
    line = coloured(shown(MEMBERS.astype(float)), _colour(0))
    along = line[line[:, 1] > _x(0.02, 0.01)]
    assert len(along) > 300
    assert along[:, 0].max() <= _y(1) + 2


def test_guesses_stay_in_the_band() -> None:
    outside, at = [], round(_x(0.3, 0.01))
    band = coloured(shown(np.zeros(200)), BAND)
    rows = band[band[:, 1] == at][:, 0]
    for seed in range(8):
        scores = np.random.default_rng(seed).normal(size=200)
        line = coloured(shown(scores), _colour(0))
        here = line[line[:, 1] == at][:, 0]
        outside.append(here.max() < rows.min() or here.min() > rows.max())
    assert np.mean(outside) <= 0.25


@pytest.mark.parametrize("n_holdout", [4, 5000])
def test_it_is_drawn_for_few_and_for_many(n_holdout: int) -> None:
    scores = np.random.default_rng(0).normal(size=n_holdout + 9)
    curve = roc(scores, np.arange(n_holdout + 9) < 9)
    drawn = roc_picture(dict.fromkeys("abcdefghijkl", curve), n_members=9, n_holdout=n_holdout, title="many")
    assert drawn.size == (960, 560)
