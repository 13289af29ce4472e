"""Numbers that users know from other tools, each with its null beside it. They are shown and never decide.

They look at how close the output is, not at whether it depends on who was in: honest but blurred output moves most of
them further than copies do.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from fedsynth.evaluation.bootstrap import patient_bootstrap
from fedsynth.evaluation.memorization.comparators.measures import (
    Measured,
    RealAndSynthetic,
    ThreeSample,
    adaptive_extraction,
    authenticity,
    closer_to_members,
    distance_ratio,
    largest_correlation,
    patients_memorized,
    ratio_below_third,
    samples_copies,
    share_of_members,
)
from fedsynth.evaluation.score import Score

__all__ = ["COMPARATORS", "Comparator", "RealAndSynthetic", "compare", "compare_spaces"]

REPEATS = 200


@dataclass(frozen=True, kw_only=True)
class Comparator:
    """A number of the literature: how it is measured, the space it is customary in, and what misleads in it.

    `baseline` is what the definition gives for an honest set, where theory says so. What is measured against holdout
    images can only be compared with its null where half of the holdout takes the synthetic set's place.
    """

    measure: Callable[[RealAndSynthetic], Measured | ThreeSample]
    space: str
    meaning: str
    looks_at_holdout: bool = False
    baseline: Callable[[RealAndSynthetic], float] | None = None


COMPARATORS: Mapping[str, Comparator] = {
    "pixel_correlation": Comparator(
        measure=largest_correlation,
        space="pixels",
        meaning="mean largest correlation with a member's image (Akbar et al. 2025); no threshold is calibrated",
    ),
    "patients_memorized": Comparator(
        measure=patients_memorized,
        looks_at_holdout=True,
        space="encoder",
        meaning="share of member patients called memorized (Dar et al. 2024); grows with the number of images",
    ),
    "samples_copies": Comparator(
        measure=samples_copies,
        looks_at_holdout=True,
        space="encoder",
        meaning="share of synthetic images called copies (Dar et al. 2024); about 5 % of an honest set by construction",
    ),
    "authenticity": Comparator(
        measure=authenticity,
        space="components",
        meaning="share of images called authentic (Alaa et al. 2022), 0 for copies; honest blur lowers it as well",
    ),
    "c_t": Comparator(
        measure=ThreeSample.of,
        looks_at_holdout=True,
        space="components",
        meaning="three-sample test of copying (Meehan et al. 2020), far below 0 for copies; and for honest blur",
        baseline=lambda sets: 0.0,
    ),
    "closer_to_members": Comparator(
        measure=closer_to_members,
        looks_at_holdout=True,
        space="components",
        meaning="share of images nearer to members than to the holdout; the baseline is members' share of the images",
        baseline=share_of_members,
    ),
    "distance_ratio": Comparator(
        measure=distance_ratio,
        space="components",
        meaning="mean ratio of distances to the nearest and second-nearest member patient",
    ),
    "ratio_below_third": Comparator(
        measure=ratio_below_third,
        space="pixels",
        meaning="share of images whose distance ratio is below 1/3 (Yoon et al. 2023)",
    ),
    "adaptive_extraction": Comparator(
        measure=adaptive_extraction,
        space="pixels",
        meaning="share of images called extracted by the adaptive rule of Carlini et al. (2023)",
    ),
}


def compare(
    sets: RealAndSynthetic,
    *,
    seed: int,
    repeats: int = REPEATS,
    only: Collection[str] = tuple(COMPARATORS),
) -> dict[str, Score]:
    """Every comparator on one feature space: its value, a patient-bootstrap interval, and its null as the control.

    The control is the same number with the holdout in the synthetic set's place, half of it for comparators that look
    at the holdout. Synthetic images belong to the real patient they resemble most; those are drawn again. Without
    `repeats` there is no interval.
    """
    halved = sets.half_of_holdout_as_synthetic(np.random.default_rng([seed, *b"null"]))
    whole = sets.holdout_as_synthetic()
    return {
        name: _score(comparator, sets, halved if comparator.looks_at_holdout else whole, seed, repeats)
        for name, comparator in COMPARATORS.items()
        if name in only
    }


def compare_spaces(
    spaces: Mapping[str, RealAndSynthetic], *, seed: int, repeats: int = REPEATS
) -> dict[str, dict[str, Score]]:
    """Every comparator in the space it is customary in, or in the first where that is missing: by space, then name."""
    first = next(iter(spaces))
    home = {name: comparator.space if comparator.space in spaces else first for name, comparator in COMPARATORS.items()}
    wanted = {space: [name for name in home if home[name] == space] for space in spaces}
    return {
        space: compare(spaces[space], seed=seed, repeats=repeats, only=names)
        for space, names in wanted.items()
        if names
    }


def _score(
    comparator: Comparator, sets: RealAndSynthetic, honest: RealAndSynthetic | None, seed: int, repeats: int
) -> Score:
    measured = comparator.measure(sets)
    value = _value(measured)
    if not np.isfinite(value):
        return Score(value=None, why="too few synthetic images for this comparator", n=len(measured.patients))
    control = float("nan") if honest is None else _value(comparator.measure(honest))
    low, high = _interval(measured, seed, repeats) if repeats else (float("nan"), float("nan"))
    return Score(
        value=value,
        low=_finite(low),
        high=_finite(high),
        baseline=None if comparator.baseline is None else comparator.baseline(sets),
        control=_finite(control),
        n=len(measured.patients),
    )


def _value(measured: Measured | ThreeSample) -> float:
    return measured.statistic() if isinstance(measured, ThreeSample) else float(measured.values.mean())


def _interval(measured: Measured | ThreeSample, seed: int, repeats: int) -> tuple[float, float]:
    rng = np.random.default_rng([seed, *b"interval"])
    if isinstance(measured, ThreeSample):
        return patient_bootstrap(measured.statistic, measured.patients, rng, repeats=repeats)
    values = measured.values
    return patient_bootstrap(lambda rows: float(values[rows].mean()), measured.patients, rng, repeats=repeats)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
