"""One utility benchmark from start to end: train every arm, score it on the holdout, put every number beside `real`.

Nothing is chosen on the holdout: the steps are fixed, and every arm is trained alike.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from fedsynth.benchmark.leakage.statistics.selection import holm
from fedsynth.benchmark.score import Input, Result, Score
from fedsynth.benchmark.utility import classification, segmentation
from fedsynth.benchmark.utility.arms import AUGMENTED, REAL, Learner, Material, train_arm
from fedsynth.benchmark.utility.measure import Measure, paired_p, ratio, score, score_rows
from fedsynth.errors import ImageSetError
from fedsynth.images import ImageSet

Kind = Literal["segmentation", "classification"]
MAIN: dict[Kind, str] = {"segmentation": "dice", "classification": "accuracy"}
SEEDS_FOR_TESTS = 3

OnArm = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: `arms` with whether each is augmented, and how often, with which first seed."""

    kind: Kind
    arms: Sequence[tuple[str, bool]]
    seeds: int = 1
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


def run_utility(
    real: ImageSet,
    synthetic: ImageSet | None,
    plan: Plan,
    learner: Learner,
    *,
    on_arm: OnArm = lambda name, done, total: None,
) -> Result:
    """Train and score all arms. `on_arm` is told the arm at work, how many are done and how many there are."""
    begun = time.monotonic()
    material, holdout = prepare(real, synthetic, plan.kind)
    way = segmentation if plan.kind == "segmentation" else classification
    judged: dict[str, list[pd.DataFrame]] = {}
    jobs = [(arm, augmented, seed) for arm, augmented in plan.arms for seed in range(plan.seeds)]
    for done, (arm, augmented, number) in enumerate(jobs):
        on_arm(_name(arm, augmented), done, len(jobs))
        networks = train_arm(arm, material, learner, seed=plan.seed + number, augment=augmented)
        judged.setdefault(_name(arm, augmented), []).append(way.judge(networks, holdout))
    on_arm("scores", len(jobs), len(jobs))
    baselines = way.baselines(holdout)
    found = {name: way.measures(name, tables) for name, tables in judged.items()}
    home = {name: way.measures(name, way.at_home(_arm(name), tables)) for name, tables in judged.items()}
    inputs = {"real": Input.of(real)} | ({} if synthetic is None else {"synthetic": Input.of(synthetic)})
    return Result(
        benchmark=plan.kind,
        scores=_scores(found, baselines, plan),
        per_site={site: _site_scores(home, site, plan) for site in sorted(set(holdout.cases["site"])) if site},
        details=_details(found, plan),
        inputs=inputs,
        seed=plan.seed,
        settings={"seeds": plan.seeds, "arms": [_name(*arm) for arm in plan.arms], **plan.settings},
        seconds=time.monotonic() - begun,
    )


def prepare(real: ImageSet, synthetic: ImageSet | None, kind: Kind) -> tuple[Material, ImageSet]:
    """Members and synthetic images to learn from, and the holdout to be scored on; what does not fit is refused."""
    for role in ("member", "holdout"):
        if role not in set(real.cases["role"]):
            remedy = "draw roles with `fedsynth split`"
            raise ImageSetError(f"the real set has no {role} patients", file=real.folder, remedy=remedy)
    for images in (real, synthetic):
        if images is not None:
            _refuse_without_targets(images, kind)
    holdout = real.select(role="holdout")
    if kind == "classification" and holdout.cases["class"].replace("", pd.NA).nunique() < 2:
        raise ImageSetError("the holdout has one class only: there is nothing to tell apart", file=real.folder)
    if synthetic is not None:
        synthetic = _aligned(synthetic, real)
    return Material(members=real.select(role="member"), synthetic=synthetic), holdout


def _refuse_without_targets(images: ImageSet, kind: Kind) -> None:
    if kind == "segmentation" and images.masks is None:
        raise ImageSetError("has no masks, and segmentation needs them", file=images.folder)
    if kind == "classification" and len(set(images.cases["class"]) - {""}) < 2:
        raise ImageSetError("has fewer than two classes, and classification needs them", file=images.folder)


def _aligned(synthetic: ImageSet, real: ImageSet) -> ImageSet:
    """The synthetic set with its classes numbered as the real set's; another kind of image is refused."""
    for what in ("channels", "mask_labels"):
        own, wanted = getattr(synthetic.header, what), getattr(real.header, what)
        if own != wanted:
            name = what.replace("_", "-")
            raise ImageSetError(f"has other {name} than the real set: {own} and {wanted}", file=synthetic.folder)
    if synthetic.size != real.size:
        problem = f"has another size than the real set: {synthetic.size} and {real.size}"
        raise ImageSetError(problem, file=synthetic.folder)
    if unknown := set(synthetic.cases["class"]) - set(real.header.classes) - {""}:
        problem = f"has a class that the real set has not: {sorted(unknown)[0]!r}"
        raise ImageSetError(problem, file=synthetic.folder)
    return synthetic.with_cases(synthetic.cases, classes=real.header.classes)


def _scores(found: Mapping[str, Mapping[str, Measure]], baselines: Mapping[str, float], plan: Plan) -> dict[str, Score]:
    scores = {}
    for arm, measures in found.items():
        beside = _beside(arm, found)
        for name, measure in measures.items():
            control = found[beside][name] if beside is not None and beside != arm else None
            scores[f"{name}/{arm}"] = score(measure, seed=plan.seed, baseline=baselines.get(name), control=control)
        if beside is not None:
            main = MAIN[plan.kind]
            scores[f"{main}_ratio/{arm}"] = ratio(measures[main], found[beside][main], seed=plan.seed)
    return scores


def _site_scores(home: Mapping[str, Mapping[str, Measure]], site: str, plan: Plan) -> dict[str, Score]:
    scores, main = {}, MAIN[plan.kind]
    for arm, measures in home.items():
        measure, beside = measures[main], _beside(arm, home)
        scores[f"{main}/{arm}"] = score_rows(measure, measure.at(site), seed=plan.seed)
        if beside is not None and len(home[beside][main].patients) == len(measure.patients):
            to = home[beside][main]
            scores[f"{main}_ratio/{arm}"] = ratio(measure, to, seed=plan.seed, rows=measure.at(site))
    return scores


def _details(found: Mapping[str, Mapping[str, Measure]], plan: Plan) -> dict[str, Any]:
    main = MAIN[plan.kind]
    gains = {
        arm: found[arm + AUGMENTED][main].value(found[arm][main].rows) - found[arm][main].value(found[arm][main].rows)
        for arm in found
        if arm + AUGMENTED in found
    }
    details: dict[str, Any] = {"measure": main, "gain_by_augmentation": gains, "intervals": _intervals_in_words(plan)}
    if plan.seeds < SEEDS_FOR_TESTS:
        return details | {"paired": {}, "why_no_tests": f"{plan.seeds} seed(s); three are needed to claim a difference"}
    compared = {
        arm: p
        for arm in found
        if (beside := _beside(arm, found)) not in (None, arm)
        and (p := paired_p(found[arm][main], found[str(beside)][main])) is not None
    }
    corrected = dict(zip(compared, holm(np.array(list(compared.values()))), strict=True)) if compared else {}
    return details | {"paired": {arm: {"p": compared[arm], "p_holm": float(corrected[arm])} for arm in compared}}


def _intervals_in_words(plan: Plan) -> str:
    """What else could have come out, as far as the intervals know."""
    if plan.seeds == 1:
        return "over patients alone: every arm was trained once, and how lucky its training was is left out"
    return f"over patients and over {plan.seeds} trainings of every arm"


def _name(arm: str, augmented: bool) -> str:
    return arm + AUGMENTED if augmented else arm


def _arm(name: str) -> str:
    return name.removesuffix(AUGMENTED)


def _beside(name: str, found: Mapping[str, Any]) -> str | None:
    """The arm on real images that this one is compared with: trained alike in augmentation."""
    wanted = REAL + AUGMENTED if name.endswith(AUGMENTED) else REAL
    return wanted if wanted in found else None
