"""Answers as numbers: by hand, against binomial tables, and what a file must not say."""

import numpy as np
import pytest
from scipy import stats

from fedsynth.errors import FedSynthError
from fedsynth.evaluation.bootstrap import clopper_pearson
from fedsynth.evaluation.reader_study.answer_key import draw_key
from fedsynth.evaluation.reader_study.answers import COLUMNS, Answers, read_all, read_answers
from fedsynth.evaluation.reader_study.reader_scores import fleiss, p_guessing, score_readers, share
from tests.evaluation.reader_study.sets import real_and_synthetic

NAN = np.nan


@pytest.fixture(scope="module")
def key():
    return draw_key(*real_and_synthetic(patients=24, slices=1), count=12, seed=1)


def written(path, key, answer, *, reader="A", separator=",", sheet=None, skip=()):
    lines = [separator.join(COLUMNS)]
    for one in key.shown:
        if one.number not in skip:
            kind, quality, tumour = answer(one)
            lines.append(separator.join((sheet or key.sheet, reader, str(one.number), kind, quality, tumour)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def right(one):
    return one.kind, "4" if one.kind == "real" else "2", "yes" if one.tumour and one.kind == "real" else ""


def wrong(one):
    return "real" if one.kind == "synthetic" else "synthetic", "3", "no" if one.tumour else ""


def test_one_reader_by_hand(tmp_path, key):
    found = score_readers(key, [read_answers(written(tmp_path / "a.csv", key, right), key)])
    scores, n = found.scores, len(key.shown)
    n_real = sum(one.kind == "real" for one in key.shown)
    assert scores["accuracy"].value == scores["accuracy/A"].value == 1.0
    assert scores["accuracy"].low == pytest.approx(0.025 ** (1 / n))
    assert scores["accuracy"].baseline == 0.5
    assert (scores["called_real/real"].value, scores["called_real/synthetic"].value) == (1.0, 0.0)
    assert (scores["quality/real"].value, scores["quality/synthetic"].value) == (4.0, 2.0)
    assert scores["quality/synthetic"].control == 4.0
    assert scores["quality_difference"].value == -2.0
    assert scores["quality_difference"].high == -2.0
    assert scores["quality/real"].n == n_real
    assert scores["plausible/real"].value == 1.0
    assert scores["plausible/synthetic"].value is None
    assert scores["kappa"].value is None
    assert found.details["p_guessing"]["accuracy"] == pytest.approx(2 * 0.5**n)
    assert found.details["shown"] == {"real": n_real, "synthetic": n - n_real}


def test_two_readers_are_no_more_trials_than_one(tmp_path, key):
    readers = [read_answers(written(tmp_path / f"{r}.csv", key, right, reader=r), key) for r in "AB"]
    alone, both = (score_readers(key, readers[:k]) for k in (1, 2))
    assert both.scores["accuracy"].low == alone.scores["accuracy"].low
    assert both.scores["kappa"].value == 1.0
    p = [found.details["p_guessing"]["accuracy"] for found in (alone, both)]
    assert p[1] == pytest.approx(p[0])  # the same answers twice prove nothing more
    opposed = [readers[0], read_answers(written(tmp_path / "C.csv", key, wrong, reader="C"), key)]
    found = score_readers(key, opposed)
    assert found.scores["accuracy"].value == 0.5
    assert found.scores["accuracy/C"].value == 0.0
    assert found.scores["kappa"].value < 0
    assert found.details["p_guessing"]["accuracy"] == 1.0


def test_the_exact_p_is_the_binomial_of_one_reader_and_a_full_count_for_several():
    one = np.array([[1, 1, 1, 0, 1, NAN, 1, 1, 0, 1]], float)
    assert p_guessing(one) == pytest.approx(stats.binomtest(7, 9).pvalue)
    many = np.array([[1, 1, 0, 1], [1, 0, NAN, 1], [1, 1, 0, 1]], float)
    hits, asked = np.nansum(many, 0), np.isfinite(many).sum(0)
    away = abs(2 * hits.sum() - asked.sum())
    flips = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    totals = [sum(np.where(flip, asked - hits, hits)) for flip in flips]
    expected = np.mean([abs(2 * total - asked.sum()) >= away for total in totals])
    assert p_guessing(many) == pytest.approx(expected)


def test_who_sees_no_tumour_says_nothing_of_how_plausible_it_is(tmp_path, key):
    def half(one):
        return one.kind, "3", "none" if one.kind == "synthetic" else "yes" if one.number % 2 else "no"

    scores = score_readers(key, [read_answers(written(tmp_path / "a.csv", key, half), key)]).scores
    real = [one.number % 2 for one in key.shown if one.kind == "real"]
    assert (scores["tumour_seen/real"].value, scores["tumour_seen/synthetic"].value) == (1.0, 0.0)
    assert scores["tumour_seen/synthetic"].control == 1.0
    assert scores["plausible/real"].value == pytest.approx(sum(real) / len(real))
    assert scores["plausible/synthetic"].value is None


def test_shares_and_their_intervals():
    values = np.array([[1, 0, 1, NAN], [1, 1, 0, NAN]], float)
    found = share(values)
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == clopper_pearson(2, 3)
    assert found.n == 3
    half = share(np.array([[1, 0], [1, 1]], float))  # one and a half of two
    assert (half.low, half.high) == (clopper_pearson(1, 2)[0], 1.0)
    assert share(values[:, 3:]).value is None


def test_fleiss_by_hand():
    """Three readers, four images, ones 3, 3, 2, 0: agreement (1 + 1 + 1/3 + 1) / 4 = 5/6, chance 4/9 + 1/9."""
    called = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 0]], float)
    assert fleiss(called) == pytest.approx((5 / 6 - 5 / 9) / (4 / 9))
    with_gap = np.column_stack([called, [1, NAN, 0]])
    assert fleiss(with_gap) == fleiss(called)
    assert np.isnan(fleiss(np.ones((2, 3))))


def test_guessing_readers_are_seldom_told_from_guessing(key):
    """The interval holds one half for at least 95 of 100 guessers; seeded."""
    is_real = np.array([one.kind == "real" for one in key.shown])
    rng = np.random.default_rng(5)
    held = []
    for _ in range(200):
        guess = rng.integers(0, 2, len(is_real)).astype(float)
        score = share((guess == is_real)[None].astype(float))
        held.append(score.low <= 0.5 <= score.high)
    assert np.mean(held) >= 0.95


def test_files_that_went_through_a_spreadsheet_are_read(tmp_path, key):
    path = written(tmp_path / "a.csv", key, right, separator=";", skip=(3,))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b";;;;;\r\n")
    found = read_answers(path, key)
    assert found.reader == "A"
    assert np.isnan(found.called_real[2])
    assert np.isfinite(found.called_real).sum() == 11
    assert read_answers(written(tmp_path / "dr-b.csv", key, right, reader=""), key).reader == "dr-b"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("A,2,", "A,13,", "row 3: the sheet has no such image"),
        ("A,2,", "A,1,", "twice"),
        (",4,", ",6,", "quality"),
        (",real,", ",maybe,", "kind"),
        ("sheet,reader", "sheet,who", "'reader' is missing"),
    ],
)
def test_what_a_file_must_not_say(tmp_path, key, old, new, said):
    path = written(tmp_path / "a.csv", key, right)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(FedSynthError, match=said):
        read_answers(path, key)


def test_empty_foreign_and_doubled_files_are_refused(tmp_path, key):
    with pytest.raises(FedSynthError, match="no answer"):
        read_answers(written(tmp_path / "a.csv", key, lambda one: ("", "", "")), key)
    with pytest.raises(FedSynthError, match="another sheet"):
        read_answers(written(tmp_path / "b.csv", key, right, sheet="other"), key)
    with pytest.raises(FedSynthError, match="no such file"):
        read_answers(tmp_path / "none.csv", key)
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(FedSynthError, match="missing"):
        read_answers(tmp_path / "c.csv", key)
    twice = [written(tmp_path / f"{name}.csv", key, right) for name in "de"]
    with pytest.raises(FedSynthError, match="one reader"):
        read_all(twice, key)


def test_quality_has_an_interval_over_patients(key):
    n = len(key.shown)
    rng = np.random.default_rng(0)
    quality = rng.integers(1, 6, n).astype(float)
    one = Answers(reader="A", called_real=np.ones(n), quality=quality, seen=np.full(n, NAN), plausible=np.full(n, NAN))
    score = score_readers(key, [one]).scores["quality/real"]
    assert score.low < score.value < score.high
    assert score.low >= 1
    assert score.high <= 5
