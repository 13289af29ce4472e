"""How near synthetic images come to real ones, and how varied they are; every number beside real against real.

The real images are the holdout: a generator cannot look good by having kept its members. None of these numbers says
anything about privacy.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsynth.data import ImageSet
from fedsynth.errors import ImageSetError
from fedsynth.evaluation.fidelity.distances import KernelDistance, cover, frechet
from fedsynth.evaluation.fidelity.diversity import inception_score, ms_ssim_of_pairs, pairs_within
from fedsynth.evaluation.fidelity.features import Features, FeatureSpace, spaces
from fedsynth.evaluation.score import Input, Result, Score
from fedsynth.evaluation.utility.training_arms import Predictor

COMPONENTS = 64
REPEATS = 200
PAIRS = 300
FEWEST = 20

OnSpace = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class _Cloud:
    """Features of a set, and whose each row is; a synthetic image is nobody's and stands for itself."""

    rows: Features
    owner: NDArray[np.str_]

    def drawn(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """How often each image comes up when owners are drawn again with replacement."""
        names, inverse = np.unique(self.owner, return_inverse=True)
        times = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
        return np.asarray(times[inverse], np.float64)


def run_fidelity(
    real: ImageSet,
    synthetic: ImageSet,
    *,
    seed: int = 0,
    more: tuple[FeatureSpace, ...] = (),
    classifier: Predictor | None = None,
    on_space: OnSpace = lambda name, done, total: None,
) -> Result:
    """Measure in every space. `classifier`, trained on members, takes Inception's place in the Inception Score."""
    begun = time.monotonic()
    members, holdout = _real_halves(real)
    n = min(len(members), len(holdout), len(synthetic))
    if n < FEWEST:
        problem = f"there are {len(synthetic)} synthetic images, {len(members)} of members, {len(holdout)} of holdout"
        raise ImageSetError(f"{problem}: too few to compare", remedy=f"{FEWEST} of each are the least")
    known: tuple[FeatureSpace, ...] = (*spaces(), *more)
    scores: dict[str, Score] = {}
    for done, space in enumerate(known):
        on_space(space.name, done, len(known) + 1)
        near, generated, other = (_cloud(space, images) for images in (holdout, synthetic, members))
        scores |= {f"{name}/{space.name}": score for name, score in _closeness(near, generated, other, n, seed).items()}
    on_space("diversity", len(known), len(known) + 1)
    scores["ms_ssim"] = _alikeness(synthetic, holdout, seed)
    if classifier is not None:
        scores["inception_score"] = _inception(classifier, synthetic, holdout, seed)
    on_space("done", len(known) + 1, len(known) + 1)
    return Result(
        benchmark="fidelity",
        scores=scores,
        inputs={"real": Input.of(real), "synthetic": Input.of(synthetic)},
        seed=seed,
        settings={"spaces": [space.name for space in known], "images": n, "components": COMPONENTS},
        details={"control": "real against real: as many images of members in the synthetic set's place"},
        seconds=time.monotonic() - begun,
    )


def _real_halves(real: ImageSet) -> tuple[ImageSet, ImageSet]:
    roles = set(real.cases["role"])
    if not {"member", "holdout"} <= roles:
        remedy = "draw roles with `fedsynth split`"
        raise ImageSetError("fidelity needs members and holdout", file=real.folder, value=sorted(roles), remedy=remedy)
    return real.select(role="member"), real.select(role="holdout")


def _cloud(space: FeatureSpace, images: ImageSet) -> _Cloud:
    patient, case = images.cases["patient"], images.cases["case"]
    return _Cloud(rows=space.of(images), owner=patient.where(patient != "", case).to_numpy(str))


def _closeness(holdout: _Cloud, generated: _Cloud, members: _Cloud, n: int, seed: int) -> dict[str, Score]:
    rng = np.random.default_rng([seed, *b"fidelity"])
    picks = [_pick(cloud, n, rng) for cloud in (holdout, generated, members)]
    basis = _basis(picks[0].rows)
    near, fake, other = (cloud.rows @ basis for cloud in picks)
    scores = {"fd": Score(value=frechet(near, fake), control=frechet(near, other), n=n)}
    kid, control = (_kernel_distance(picks[0], cloud) for cloud in picks[1:])
    low, high = _interval(kid, picks[0], picks[1], rng)
    scores["kid"] = Score(value=kid.value(), low=low, high=high, baseline=0.0, control=control.value(), n=n)
    over, beside = cover(near, fake), cover(near, other)
    for name in ("precision", "recall", "density", "coverage"):
        scores[name] = Score(value=getattr(over, name), control=getattr(beside, name), n=n)
    return scores


def _pick(cloud: _Cloud, n: int, rng: np.random.Generator) -> _Cloud:
    rows = np.sort(rng.permutation(len(cloud.rows))[:n])
    return _Cloud(rows=cloud.rows[rows], owner=cloud.owner[rows])


def _basis(rows: Features) -> Features:
    """The leading directions of the holdout, so that the Frechet distance has fewer numbers to fit than images."""
    most = max(2, min(COMPONENTS, len(rows) // 4, rows.shape[1]))
    return np.asarray(np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:most].T)


def _kernel_distance(real: _Cloud, generated: _Cloud) -> KernelDistance:
    return KernelDistance.of(real.rows, generated.rows, patients=real.owner, generated_patients=generated.owner)


def _interval(kid: KernelDistance, real: _Cloud, generated: _Cloud, rng: np.random.Generator) -> tuple[float, float]:
    drawn = [kid.value(real.drawn(rng), generated.drawn(rng)) for _ in range(REPEATS)]
    return float(np.percentile(drawn, 2.5)), float(np.percentile(drawn, 97.5))


def _alikeness(synthetic: ImageSet, holdout: ImageSet, seed: int) -> Score:
    """Of pairs within a class, as Odena et al. have it; of all images where the sets share no class of two images."""
    among = np.intersect1d(_paired_classes(synthetic), _paired_classes(holdout))
    generated, real = (
        ms_ssim_of_pairs(images, pairs_within(images.cases["class"].to_numpy(str), among, PAIRS, seed))
        for images in (synthetic, holdout)
    )
    half = 1.96 * generated.std() / np.sqrt(len(generated))
    return Score(
        value=generated.mean(), low=generated.mean() - half, high=generated.mean() + half, control=real.mean(), n=PAIRS
    )


def _paired_classes(images: ImageSet) -> NDArray[np.str_]:
    names, counts = np.unique(images.cases["class"].to_numpy(str), return_counts=True)
    return np.asarray(names[(counts > 1) & (names != "")])


def _inception(classifier: Predictor, synthetic: ImageSet, holdout: ImageSet, seed: int) -> Score:
    generated, real = (np.stack(list(classifier(images))) for images in (synthetic, holdout))
    rng = np.random.default_rng([seed, *b"inception"])
    drawn = [inception_score(generated[rng.integers(0, len(generated), len(generated))]) for _ in range(REPEATS)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    value, control = inception_score(generated), inception_score(real)
    return Score(value=value, low=float(low), high=float(high), baseline=1.0, control=control, n=len(generated))
