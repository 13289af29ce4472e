"""Readers' answers as numbers: could they tell, how good did they find the images, how far did they agree?

The unit is the image, of which there is one per patient: readers who look at the same images are no further trials.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fedsynth.evaluation.bootstrap import clopper_pearson, patient_bootstrap
from fedsynth.evaluation.reader_study.answer_key import Key
from fedsynth.evaluation.reader_study.answers import Answers
from fedsynth.evaluation.score import Result, Score

NAME = "readers"
GUESSING = 0.5
KINDS = ("real", "synthetic")
Table = NDArray[np.float64]
"""(readers, images), NaN where nothing was answered."""


def score_readers(key: Key, readers: Sequence[Answers], *, seed: int = 0) -> Result:
    """`accuracy` of all readers and of each, what they called real, quality and plausibility by kind, and agreement."""
    is_real = np.array([one.kind == "real" for one in key.shown])
    called = np.stack([one.called_real for one in readers])
    quality = np.stack([one.quality for one in readers])
    seen = np.stack([one.seen for one in readers])
    plausible = np.stack([one.plausible for one in readers])
    right = np.where(np.isfinite(called), called == is_real, np.nan)
    scores = {"accuracy": share(right, baseline=GUESSING)}
    for one, row in zip(readers, right, strict=True):
        scores[f"accuracy/{one.reader}"] = share(row[None], baseline=GUESSING)
    for kind, here in zip(KINDS, (is_real, ~is_real), strict=True):
        scores[f"called_real/{kind}"] = share(called[:, here])
    scores |= _qualities(quality, is_real, seed)
    for what, said in (("tumour_seen", seen), ("plausible", plausible)):
        beside = share(said[:, is_real])
        scores[f"{what}/real"] = beside
        scores[f"{what}/synthetic"] = share(said[:, ~is_real], control=beside.value)
    scores["kappa"] = _kappa(called, seed)
    return Result(
        benchmark=NAME,
        scores=scores,
        inputs=key.inputs,
        seed=key.seed,
        settings={"count": len(key.shown), "roles": list(key.roles)},
        seconds=0.0,
        details=_details(key, readers, called, right, is_real),
    )


def share(values: Table, *, baseline: float | None = None, control: float | None = None) -> Score:
    """The share of ones, readers averaged per image, with Clopper and Pearson's interval over images.

    A mean of several readers varies less than one reader's answer, so that the interval is if anything too wide.
    """
    each = _per_image(values)
    each = each[np.isfinite(each)]
    if not len(each):
        return Score(value=None, why="nobody answered it for any such image", n=0)
    hits = round(float(each.sum()), 9)
    low = clopper_pearson(int(np.floor(hits)), len(each))[0]
    high = clopper_pearson(int(np.ceil(hits)), len(each))[1]
    return Score(value=hits / len(each), low=low, high=high, baseline=baseline, control=control, n=len(each))


def p_guessing(right: Table) -> float:
    """How often coins alone would lie this far from half, whatever was answered: exact, both sides.

    Had the coin of an image fallen the other way, everybody's answer to it would be right instead of wrong.
    """
    answered = np.isfinite(right).sum(0).astype(int)
    hits = np.nansum(right, axis=0).astype(int)
    chances = np.ones(1)
    for count, hit in zip(answered.tolist(), hits.tolist(), strict=True):
        two = np.zeros(count + 1)
        two[hit] += 0.5
        two[count - hit] += 0.5
        chances = np.convolve(chances, two)
    away = np.abs(2 * np.arange(len(chances)) - answered.sum())
    return float(min(1.0, chances[away >= abs(2 * hits.sum() - answered.sum())].sum()))


def fleiss(called: Table) -> float:
    """Fleiss' kappa of two categories over images that everybody answered; NaN where it is not defined."""
    whole = called[:, np.isfinite(called).all(0)]
    readers, images = whole.shape
    if readers < 2 or not images:
        return float("nan")
    ones = whole.sum(0)
    agreed = ((ones * (ones - 1) + (readers - ones) * (readers - ones - 1)) / (readers * (readers - 1))).mean()
    real = ones.sum() / (readers * images)
    chance = real**2 + (1 - real) ** 2
    return float((agreed - chance) / (1 - chance)) if chance < 1 else float("nan")


def _qualities(quality: Table, is_real: NDArray[np.bool_], seed: int) -> dict[str, Score]:
    each = _per_image(quality)
    rows = np.flatnonzero(np.isfinite(each))
    each, real = each[rows], is_real[rows]
    if not real.any() or real.all():
        unknown = Score(value=None, why="no quality was given to images of one kind")
        return dict.fromkeys(("quality/real", "quality/synthetic", "quality_difference"), unknown)

    def mean_of(drawn: NDArray[np.intp], wanted: bool) -> float:
        return float(each[drawn][real[drawn] == wanted].mean())

    def score(statistic: Any, n: int, **more: Any) -> Score:
        rng = np.random.default_rng([seed, *b"quality"])
        low, high = patient_bootstrap(statistic, rows, rng, groups=real)
        return Score(value=statistic(np.arange(len(rows))), low=low, high=high, n=n, **more)

    beside = score(lambda drawn: mean_of(drawn, True), int(real.sum()))
    made = score(lambda drawn: mean_of(drawn, False), int((~real).sum()), control=beside.value)
    gap = score(lambda drawn: mean_of(drawn, False) - mean_of(drawn, True), len(rows), baseline=0.0)
    return {"quality/real": beside, "quality/synthetic": made, "quality_difference": gap}


def _kappa(called: Table, seed: int) -> Score:
    if len(called) < 2:
        return Score(value=None, why="one reader alone agrees with nobody")
    value = fleiss(called)
    if not np.isfinite(value):
        return Score(value=None, why="all said the same of every image that all of them answered")
    whole = np.flatnonzero(np.isfinite(called).all(0))
    rng = np.random.default_rng([seed, *b"kappa"])
    low, high = patient_bootstrap(lambda drawn: fleiss(called[:, whole[drawn]]), whole, rng)
    known = np.isfinite(low)
    return Score(value=value, low=low if known else None, high=high if known else None, baseline=0.0, n=len(whole))


def _details(
    key: Key, readers: Sequence[Answers], called: Table, right: Table, is_real: NDArray[np.bool_]
) -> dict[str, Any]:
    """`p_guessing`: exact, by score. `smallest_resolvable`: the accuracy that would have shown."""
    return {
        "sheet": key.sheet,
        "readers": [one.reader for one in readers],
        "answered": {one.reader: int(np.isfinite(one.called_real).sum()) for one in readers},
        "shown": {"real": int(is_real.sum()), "synthetic": int((~is_real).sum())},
        "p_guessing": {
            "accuracy": p_guessing(right),
            **{f"accuracy/{one.reader}": p_guessing(row[None]) for one, row in zip(readers, right, strict=True)},
        },
        "smallest_resolvable": _smallest_resolvable(int(np.isfinite(called).any(0).sum())),
    }


def _smallest_resolvable(images: int) -> float | None:
    """The true accuracy that one reader would show to differ from guessing four times in five."""
    hits = next((k for k in range(images + 1) if clopper_pearson(k, images)[0] > GUESSING), None)
    if hits is None:
        return None
    return float(stats.beta.ppf(0.8, hits, images - hits + 1))


def _per_image(values: Table) -> NDArray[np.float64]:
    known = np.isfinite(values)
    counts = known.sum(0)
    sums = np.where(known, values, 0.0).sum(0)
    each: NDArray[np.float64] = np.divide(sums, counts, out=np.full(values.shape[1], np.nan), where=counts > 0)
    return each
