"""One utility benchmark from start to end: train every arm, score it on the holdout, put every number beside `real`.

Nothing is chosen on the holdout: reference patients say when training ends, by one rule for every arm, and fit the
controls that stand beside the arms.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedsynth.data import ImageSet
from fedsynth.errors import ImageSetError
from fedsynth.evaluation.multiple_testing import holm
from fedsynth.evaluation.score import Input, Result, Score
from fedsynth.evaluation.utility.arm_cache import ArmCache, Trainings
from fedsynth.evaluation.utility.arm_trainings import WAYS, Kind, OnArm, Plan, arm_name, train_all
from fedsynth.evaluation.utility.controls import has_lesions
from fedsynth.evaluation.utility.patient_scores import (
    FEWEST_PATIENTS,
    Measure,
    Rows,
    difference,
    paired_p,
    ratio,
    score,
    score_rows,
    skill,
)
from fedsynth.evaluation.utility.subgroups import patient_groups, subgroup_scores
from fedsynth.evaluation.utility.training_arms import (
    AUGMENTED,
    CONTROLS,
    MEAN_IMAGE,
    NOBODY,
    OF_SYNTHETIC,
    PLACEBO,
    REAL,
    SYNTHETIC,
    UNTRAINED,
    Learner,
    Material,
)

MAIN: dict[Kind, str] = {kind: way.COMPARED[0] for kind, way in WAYS.items()}
SEEDS_FOR_TESTS = 3


def run_utility(
    real: ImageSet,
    synthetic: ImageSet | None,
    plan: Plan,
    learner: Learner,
    *,
    kept: ArmCache | None = None,
    on_arm: OnArm = lambda name, done, total: None,
) -> Result:
    """Train and score all arms. `on_arm` is told the arm at work, how many are done and how many there are.

    Arms that do not depend on the synthetic set are taken from `kept` where they are in it, and put there.
    """
    begun = time.monotonic()
    material, holdout = prepare(real, synthetic, plan.kind, nobody=plan.nobody)
    trained = train_all(real, material, holdout, plan, learner, ArmCache() if kept is None else kept, on_arm)
    way = WAYS[plan.kind]
    found = {name: way.measures([one.table for one in of]) for name, of in trained.items()}
    sets = {"real": real, "synthetic": synthetic, **plan.nobody}
    scores = _scores(found, plan)
    return Result(
        benchmark=plan.kind,
        scores=scores,
        per_site={site: _site_scores(found, site, plan) for site in sorted(set(holdout.cases["site"])) if site},
        details={
            **_details(found, plan),
            **_gains(scores, plan),
            **_trainings(trained),
            **_controls(material, plan),
            "subgroups": _subgroups(found, holdout, plan),
        },
        inputs={name: Input.of(images) for name, images in sets.items() if images is not None},
        seed=plan.seed,
        settings={"seeds": plan.seeds, "arms": list(found), **plan.settings, **plan.federated},
        seconds=time.monotonic() - begun,
    )


def prepare(
    real: ImageSet, synthetic: ImageSet | None, kind: Kind, *, nobody: Mapping[str, ImageSet] | None = None
) -> tuple[Material, ImageSet]:
    """What there is to learn from, and the holdout to be scored on; what does not fit is refused."""
    for role in ("member", "holdout"):
        if role not in set(real.cases["role"]):
            remedy = "draw roles with `fedsynth split`"
            raise ImageSetError(f"the real set has no {role} patients", file=real.folder, remedy=remedy)
    for images in (real, synthetic, *(nobody or {}).values()):
        if images is not None:
            _refuse_without_targets(images, kind)
    holdout = real.select(role="holdout")
    if kind == "classification" and holdout.cases["class"].replace("", pd.NA).nunique() < 2:
        raise ImageSetError("the holdout has one class only: there is nothing to tell apart", file=real.folder)
    reference = real.select(role="reference") if "reference" in set(real.cases["role"]) else None
    material = Material(
        members=real.select(role="member"),
        synthetic=None if synthetic is None else _aligned(synthetic, real),
        reference=reference,
        nobody={name: _aligned(images, real) for name, images in (nobody or {}).items()},
    )
    return material, holdout


def _refuse_without_targets(images: ImageSet, kind: Kind) -> None:
    if kind == "segmentation" and images.masks is None:
        raise ImageSetError("has no masks, and segmentation needs them", file=images.folder)
    if kind == "classification" and len(set(images.cases["class"]) - {""}) < 2:
        raise ImageSetError("has fewer than two classes, and classification needs them", file=images.folder)


def _aligned(synthetic: ImageSet, real: ImageSet) -> ImageSet:
    """A synthetic or public set with its classes numbered as the real set's; another kind of image is refused."""
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


def _scores(found: Mapping[str, Mapping[str, Measure]], plan: Plan) -> dict[str, Score]:
    way, scores = WAYS[plan.kind], {}
    for arm, measures in found.items():
        beside, controls = _beside(arm, found), _controls_of(arm, found)
        for name, measure in measures.items():
            control = found[beside][name] if beside is not None and beside != arm else None
            known = [one[name].value(one[name].scored(one[name].rows)) for one in controls]
            baseline = max(known) if known and name not in way.LOWER_IS_BETTER else None
            scores[f"{name}/{arm}"] = score(measure, seed=plan.seed, baseline=baseline, control=control)
        for name in way.COMPARED if beside is not None else ():
            assert beside is not None
            to = found[beside][name]
            scores[f"{name}_ratio/{arm}"] = ratio(measures[name], to, seed=plan.seed)
            if _arm(arm) not in CONTROLS:
                others = [one[name] for one in controls]
                scores[f"{name}_skill/{arm}"] = skill(measures[name], to, others, seed=plan.seed)
        for name in NOBODY if _arm(arm) == SYNTHETIC else ():  # other arms hold the patients' own images
            if (other := found.get(arm_name(name, arm.endswith(AUGMENTED)))) is not None:
                main = MAIN[plan.kind]
                scores[f"{main}_over_{name}/{arm}"] = difference(measures[main], other[main], seed=plan.seed)
    return scores


def _site_scores(found: Mapping[str, Mapping[str, Measure]], site: str, plan: Plan) -> dict[str, Score]:
    """Every arm on the holdout patients of one site; of few patients there is no number, which would tell theirs."""
    scores, main = {}, MAIN[plan.kind]
    for arm, measures in found.items():
        measure, beside = measures[main], _beside(arm, found)
        rows = measure.scored(measure.at(site))
        scores[f"{main}/{arm}"] = _too_few(measure, rows) or score_rows(measure, rows, seed=plan.seed)
        if beside is not None:
            to = found[beside][main]
            both = to.scored(rows)
            of_real = _too_few(measure, both) or ratio(measure, to, seed=plan.seed, rows=both)
            scores[f"{main}_ratio/{arm}"] = of_real
    return scores


def _too_few(measure: Measure, rows: Rows) -> Score | None:
    n = len(np.unique(measure.patients[rows]))
    why = f"fewer than {FEWEST_PATIENTS} patients of the holdout have what it takes"
    return Score(value=None, why=why, n=n) if n < FEWEST_PATIENTS else None


def _subgroups(found: Mapping[str, Mapping[str, Measure]], holdout: ImageSet, plan: Plan) -> dict[str, Any]:
    """Of the arms on synthetic images: what real images teach stands beside them as a ratio."""
    main = MAIN[plan.kind]
    asked = {name: of[main] for name, of in found.items() if _arm(name) in OF_SYNTHETIC}
    real = {name: found[beside][main] for name in asked if (beside := _beside(name, found)) is not None}
    return subgroup_scores(asked, real, patient_groups(holdout), name=main, seed=plan.seed)


def _over_nobody(gain: Score, name: str, seeds: int, *, public: Score | None = None) -> str:
    """What the patients added to images not derived from members, in words that the interval allows.

    A narrower pool teaches better by itself, so that only what exceeds the placebo is the patients'; and a placebo may
    be worse than the `public` images, so that only who exceeds those too has a use for it.
    """
    if gain.value is None or gain.low is None or gain.high is None:
        return f"not known: {gain.why or 'there is no interval'}"
    if seeds < SEEDS_FOR_TESTS:
        trainings = "1 training" if seeds == 1 else f"{seeds} trainings"
        return f"not known from {trainings} of each arm: {gain} beside images not derived from members ({name})"
    if gain.low > 0 and name == PLACEBO and public is not None and public.low is not None and public.low > 0:
        return f"patients added {gain}"
    if gain.low > 0:
        without = " and not shown to be better than the public ones" if name == PLACEBO else ""
        return f"better than images not derived from members ({name}){without}: {gain}"
    told = f"images not derived from members ({name}): {gain}"
    return f"worse than {told}" if gain.high < 0 else f"no gain shown over {told}"


def _gains(scores: Mapping[str, Score], plan: Plan) -> dict[str, Any]:
    return {
        f"over_{name}": {
            of.removeprefix(start): _over_nobody(gain, name, plan.seeds, public=scores.get(of.replace(name, "public")))
            for of, gain in scores.items()
            if of.startswith(start)
        }
        for name in NOBODY
        for start in [f"{MAIN[plan.kind]}_over_{name}/"]
    }


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
        if _arm(arm) not in CONTROLS
        and (beside := _beside(arm, found)) not in (None, arm)
        and (p := paired_p(found[arm][main], found[str(beside)][main])) is not None
    }
    corrected = dict(zip(compared, holm(np.array(list(compared.values()))), strict=True)) if compared else {}
    return details | {"paired": {arm: {"p": compared[arm], "p_holm": float(corrected[arm])} for arm in compared}}


def _trainings(trained: Mapping[str, Sequence[Trainings]]) -> dict[str, Any]:
    """How long each arm was trained, and how many trainings collapsed: repeated once, and again after that."""
    return {
        "trainings": {
            name: {
                "steps": [steps for one in of for steps in one.steps],
                "repeated": sum(one.repeated for one in of),
                "collapsed": sum(one.collapsed for one in of),
            }
            for name, of in trained.items()
            if name not in UNTRAINED
        }
    }


def _controls(material: Material, plan: Plan) -> dict[str, Any]:
    """Why there are no controls, and by whom the end of training was chosen."""
    if material.reference is None:
        return {"why_no_early_stop": "there are no reference patients: every arm was trained up to the ceiling"} | (
            {"why_no_controls": "there are no reference patients to fit them on"} if plan.kind == "segmentation" else {}
        )
    if plan.kind == "segmentation" and not has_lesions(material.reference):
        return {"why_no_controls": "no reference patient has a lesion to fit them on"}
    return {}


def _intervals_in_words(plan: Plan) -> str:
    """What else could have come out, as far as the intervals know."""
    if plan.seeds == 1:
        return "over patients alone: every arm was trained once, and how lucky its training was is left out"
    return f"over patients and over {plan.seeds} trainings of every arm"


def _arm(name: str) -> str:
    return name.removesuffix(AUGMENTED)


def _beside(name: str, found: Mapping[str, Any]) -> str | None:
    """The arm on real images that this one is compared with: trained alike in augmentation.

    A control that is not trained is compared with the augmented one, or the only one.
    """
    augmented = name.endswith(AUGMENTED) or (name in UNTRAINED and REAL + AUGMENTED in found)
    wanted = arm_name(REAL, augmented)
    return wanted if wanted in found else None


def _controls_of(name: str, found: Mapping[str, Mapping[str, Measure]]) -> list[Mapping[str, Measure]]:
    """The controls of an arm, trained alike in augmentation; a control has none."""
    if _arm(name) in CONTROLS:
        return []
    augmented = name.endswith(AUGMENTED)
    return [found[one] for one in (*UNTRAINED, arm_name(MEAN_IMAGE, augmented)) if one in found]
